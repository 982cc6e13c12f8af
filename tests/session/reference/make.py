"""Make the files of each kind of made-up runs, ``stories.txt.gz`` and so on: what every step of them comes to.

Run it from the root of the checkout: ``python -m tests.session.reference.make``. It prints the lines that are others
than before: look at each of them.
"""

from __future__ import annotations

import difflib
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.session.reference import accounts, platforms, singles, stories

FOLDER = Path(__file__).parent
KINDS: dict[str, tuple[Callable[[int], Iterator[str]], int]] = {
    "stories": (stories.lines_of, stories.GROUPS),
    "accounts": (accounts.lines_of, accounts.GROUPS),
    "platforms": (platforms.lines_of, platforms.GROUPS),
    "singles": (singles.lines_of, singles.GROUPS),
}
"""What makes the lines of each group, and how many groups there are."""


def kept(kind: str) -> list[list[str]]:
    """The lines of each group as they were made last."""
    file = FOLDER / f"{kind}.txt.gz"
    if not file.exists():
        return [[] for _ in range(KINDS[kind][1])]
    return [group.split("\n") for group in gzip.decompress(file.read_bytes()).decode().split("\n\n")]


def main() -> None:
    """Write the files."""
    for kind, (lines_of, number) in KINDS.items():
        groups = [list(lines_of(group)) for group in range(number)]
        for before, now in zip(kept(kind), groups, strict=True):
            for line in difflib.unified_diff(before, now, lineterm="", n=0):
                print(line[:400])
        text = "\n\n".join(map("\n".join, groups))
        (FOLDER / f"{kind}.txt.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
