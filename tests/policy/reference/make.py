"""Make ``tables.txt.gz`` anew, and print the lines that differ. Run it as a module, from the root."""

from __future__ import annotations

from pathlib import Path

from tests.policy.reference.tables import TABLES, lines_of
from tests.reference_text import keep

FILE = Path(__file__).with_name("tables.txt.gz")

if __name__ == "__main__":
    keep([line for name in TABLES for line in lines_of(name)], FILE)
