"""How many pages a PDF file has."""

from __future__ import annotations

import re
import zlib

_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_COUNT = re.compile(rb"/Type\s*/Pages\b[^>]{0,2000}?/Count\s+(\d{1,7})|/Count\s+(\d{1,7})[^>]{0,2000}?/Type\s*/Pages\b")
_STREAM = re.compile(rb"stream\r?\n")
_MOST_INFLATED = 64 * 1024 * 1024


def pdf_pages(data: bytes) -> int | None:
    """The number of pages of a PDF file; None where *data* does not tell."""
    if not data.startswith(b"%PDF") or b"/Encrypt" in data:
        return None
    parts = [data]
    if b"/ObjStm" in data:  # since PDF 1.5 the pages themselves may be in a compressed stream
        inflated = _object_streams(data)
        if inflated is None:
            return None
        parts += inflated
    pages = sum(len(_PAGE.findall(part)) for part in parts)
    counts = [int(a or b) for part in parts for a, b in _COUNT.findall(part)]
    return max([pages, *counts]) or None


def _object_streams(data: bytes) -> list[bytes] | None:
    found: list[bytes] = []
    left = _MOST_INFLATED
    for match in _STREAM.finditer(data):
        header = data[max(0, data.rfind(b"obj", 0, match.start())) : match.start()]
        if b"/ObjStm" not in header:
            continue
        if b"/FlateDecode" not in header:
            return None
        try:
            inflater = zlib.decompressobj()
            found.append(inflater.decompress(data[match.end() :], left))
        except zlib.error:
            return None
        left -= len(found[-1])
        if left <= 0:  # as much as it may be, whether it ends there or goes on
            return None
    return found
