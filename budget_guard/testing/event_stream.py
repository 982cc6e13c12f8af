"""Frames of ``application/vnd.amazon.eventstream``, the binary streams of AWS.

A frame is its length, the length of its headers, a checksum of these two, the headers, the payload, and a checksum of
all that: https://smithy.io/2.0/aws/amazon-eventstream.html. All numbers are big-endian.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_JSON = {":content-type": "application/json"}
_STRING = 7
"""The type of a header whose value is a string."""
_FRAME_OVERHEAD = 16
"""Bytes of a frame beside headers and payload: two lengths, two checksums."""


def event_frame(kind: str, payload: Any) -> bytes:
    """An event of type *kind* with a JSON payload."""
    return frame({":event-type": kind, **_JSON, ":message-type": "event"}, _json(payload))


def exception_frame(kind: str, payload: Any) -> bytes:
    """An exception of type *kind* with a JSON payload."""
    return frame({":exception-type": kind, **_JSON, ":message-type": "exception"}, _json(payload))


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame with text headers."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", _FRAME_OVERHEAD + len(head) + len(payload), len(head))
    checked = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return checked + struct.pack("!I", zlib.crc32(checked))


def _header(name: str, value: str) -> bytes:
    raw, text = name.encode(), value.encode()
    return struct.pack("!B", len(raw)) + raw + struct.pack("!BH", _STRING, len(text)) + text


def _json(payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()
