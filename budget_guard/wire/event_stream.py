"""AWS's event stream: the frames in which Bedrock streams its answers.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html: total length, length of the headers, CRC
of these two, headers, payload, CRC of all.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_MOST_BYTES = 24 * 1024 * 1024
"""No frame is longer: 16 MiB of payload are documented as the most."""
_TEXT = 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; types 6 and 7 carry their own length."""


class BrokenFrame(ValueError):
    """Bytes that are no frame: after them nothing of the stream can be read."""


class Frame(NamedTuple):
    """One message of an event stream."""

    raw: bytes
    headers: Mapping[str, str]
    """The headers that are texts, such as ``:event-type``."""
    payload: bytes


class FrameDecoder:
    """Splits bytes into frames, whatever pieces they come in."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def left(self) -> bytes:
        """Bytes of a frame that is not at its end."""
        return self._buffer

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that *data* completes.

        Raises:
            BrokenFrame: If a checksum or a length is wrong.
        """
        buffer = self._buffer + data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= _PRELUDE.size:
            total, header_bytes, checksum = _PRELUDE.unpack_from(buffer, at)
            if zlib.crc32(buffer[at : at + 8]) != checksum:
                raise BrokenFrame("the checksum of a frame's prelude is wrong")
            if total < _OVERHEAD + header_bytes or total > _MOST_BYTES:
                raise BrokenFrame("the length of a frame is wrong")
            if len(buffer) - at < total:
                break
            raw = buffer[at : at + total]
            if zlib.crc32(raw[:-4]) != _CRC.unpack(raw[-4:])[0]:
                raise BrokenFrame("the checksum of a frame is wrong")
            payload_at = _PRELUDE.size + header_bytes
            frames.append(Frame(raw, _headers(raw[_PRELUDE.size : payload_at]), raw[payload_at:-4]))
            at += total
        self._buffer = buffer[at:]
        return frames


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            length = data[at]
            name = data[at + 1 : at + 1 + length].decode()
            at += 1 + length
            kind = data[at]
            at += 1
            if kind in (6, _TEXT):
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
                if kind == _TEXT:
                    found[name] = data[at : at + size].decode()
            else:
                size = _SIZES[kind]
            at += size
    except (IndexError, KeyError, UnicodeDecodeError):
        raise BrokenFrame("the headers of a frame are wrong") from None
    if at != len(data):
        raise BrokenFrame("the headers of a frame are wrong")
    return found


def encode_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame, as Bedrock would send it."""
    packed = bytearray()
    for name, value in headers.items():
        key, content = name.encode(), value.encode()
        packed += bytes([len(key)]) + key + bytes([_TEXT]) + len(content).to_bytes(2, "big") + content
    total = _OVERHEAD + len(packed) + len(payload)
    lengths = struct.pack(">II", total, len(packed))
    frame = lengths + _CRC.pack(zlib.crc32(lengths)) + bytes(packed) + payload
    return frame + _CRC.pack(zlib.crc32(frame))
