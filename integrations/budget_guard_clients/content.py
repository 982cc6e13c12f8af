"""The bodies of answers, decompressed as they come in: what is compressed cannot be read."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Protocol

READABLE = ("identity", "gzip", "deflate")
"""The encodings that can be read."""


class Decoder(Protocol):
    """Decompresses one body."""

    def decode(self, data: bytes) -> bytes:
        """What *data* adds. Raises `ValueError` where it is broken."""
        ...

    def flush(self) -> bytes:
        """What is left at the end."""
        ...


class Plain:
    """A body that is not compressed."""

    def decode(self, data: bytes) -> bytes:
        """*data*."""
        return data

    def flush(self) -> bytes:
        """Nothing."""
        return b""


class _Zlib:
    def __init__(self, bits: int) -> None:
        self._decoder = zlib.decompressobj(bits)
        self._is_first = bits > 0

    def decode(self, data: bytes) -> bytes:
        try:
            found = self._decoder.decompress(data)
        except zlib.error as error:
            if not self._is_first:
                raise ValueError("the answer's compression is broken") from error
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers send "deflate" without its head
            self._is_first = False
            return self.decode(data)
        self._is_first = self._is_first and not data
        return found

    def flush(self) -> bytes:
        try:
            return self._decoder.flush()
        except zlib.error as error:
            raise ValueError("the answer's compression is broken") from error


class _Gzip(_Zlib):
    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS | 16)
        self._is_first = False


CODING = b"content-encoding"
ACCEPTED = b"accept-encoding"


def decoder_of(coding: str) -> Decoder | None:
    """What decompresses the body of an answer with this *coding*; None where it cannot be read."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return Plain()
    if coding in ("gzip", "x-gzip"):
        return _Gzip()
    return _Zlib(zlib.MAX_WBITS) if coding == "deflate" else None


@lru_cache(maxsize=256)
def accepts_only_readable(accepted: str) -> bool:
    """Whether a request that accepts these codings accepts nothing that could not be read."""
    names = [each.partition(";")[0].strip().lower() for each in accepted.split(",")]
    return all(name in READABLE or not name for name in names)
