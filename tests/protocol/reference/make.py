"""Make ``told.txt.gz`` anew, and print the lines that differ. Run it as a module, from the root."""

from __future__ import annotations

from pathlib import Path

from tests.protocol.reference.told import NAMES, lines_of
from tests.reference_text import keep

FILE = Path(__file__).with_name("told.txt.gz")

if __name__ == "__main__":
    keep([line for name in NAMES for line in lines_of(name)], FILE)
