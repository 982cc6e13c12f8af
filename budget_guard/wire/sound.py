"""How long a sound is, read from its file."""

from __future__ import annotations

import struct


def wav_seconds(data: bytes, size: int) -> float | None:
    """The length of a WAV file in seconds; None where its first bytes do not tell.

    Args:
        data: The first bytes of the file.
        size: The size of the whole file in bytes. It counts where the header claims less.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"fmt " and at + 20 <= len(data):
            (per_second,) = struct.unpack("<I", data[at + 16 : at + 20])
            return size / per_second if per_second else None
        at += 8 + length + (length & 1)
    return None
