"""Looks up the headers of requests and answers, as httpx and httpx2 have them."""

from __future__ import annotations

from typing import Any


def header(headers: Any, name: bytes) -> str:
    """The header *name* of an HTTP library's headers, by its name in lower case; empty where there is none.

    Many of the same name are joined, as the library's own look-up does, which takes several times as long.
    """
    found = [value for key, value in headers.raw if key.lower() == name]
    return "" if not found else b", ".join(found).decode("latin-1")
