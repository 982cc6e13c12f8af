"""Make ``stories.txt.gz``: what every step of the stories comes to.

Run it from the root of the checkout: ``python -m tests.session.reference.make``. It prints the lines that are others
than before: look at each of them.
"""

from __future__ import annotations

import difflib
import gzip
from pathlib import Path

from tests.session.reference.stories import GROUPS, lines_of

FILE = Path(__file__).with_name("stories.txt.gz")


def kept() -> list[list[str]]:
    """The lines of each group as they were made last."""
    if not FILE.exists():
        return [[] for _ in range(GROUPS)]
    return [group.split("\n") for group in gzip.decompress(FILE.read_bytes()).decode().split("\n\n")]


def main() -> None:
    """Write the file."""
    groups = [list(lines_of(group)) for group in range(GROUPS)]
    for before, now in zip(kept(), groups, strict=True):
        for line in difflib.unified_diff(before, now, lineterm="", n=0):
            print(line[:400])
    FILE.write_bytes(gzip.compress("\n\n".join(map("\n".join, groups)).encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
