"""Make ``readings.txt.gz``: what is read of every request and answer of the corpus.

Run it from the root of the checkout: ``python -m tests.wire.reference.make``. It prints the lines that are others than
before: look at each of them, for each is money.
"""

from __future__ import annotations

import difflib
import gzip
from pathlib import Path

from tests.wire.reference.readings import NAMES, lines_of

FILE = Path(__file__).with_name("readings.txt.gz")


def kept(file: Path = FILE) -> list[str]:
    """The lines as they were made last."""
    return gzip.decompress(file.read_bytes()).decode().split("\n") if file.exists() else []


def keep(lines: list[str], file: Path) -> None:
    """Write *lines*, and print those that differ."""
    for line in difflib.unified_diff(kept(file), lines, lineterm="", n=0):
        print(line[:300])
    file.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))


def main() -> None:
    """Write the file."""
    keep([line for name in NAMES for line in lines_of(name)], FILE)


if __name__ == "__main__":
    main()
