"""A reader of binary event streams that shares no code with their writer."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any


def read_frames(data: bytes) -> list[tuple[dict[str, str], Any]]:
    """Headers and JSON payloads of all frames; every length and checksum is looked at."""
    frames: list[tuple[dict[str, str], Any]] = []
    while data:
        total, head, prelude_crc = struct.unpack("!III", data[:12])
        frame, data = data[:total], data[total:]
        assert len(frame) == total
        assert zlib.crc32(frame[:8]) == prelude_crc
        assert struct.unpack("!I", frame[-4:])[0] == zlib.crc32(frame[:-4])
        frames.append((_headers(frame[12 : 12 + head]), json.loads(frame[12 + head : -4])))
    return frames


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    while data:
        size = data[0]
        name, kind = data[1 : 1 + size].decode(), data[1 + size]
        assert kind == 7
        (length,) = struct.unpack("!H", data[2 + size : 4 + size])
        headers[name] = data[4 + size : 4 + size + length].decode()
        data = data[4 + size + length :]
    return headers
