"""Make ``plans.txt.gz`` anew, and print the lines that differ. Run it as a module, from the root."""

from __future__ import annotations

from pathlib import Path

from tests.calls.reference.plans import lines
from tests.reference_text import keep

FILE = Path(__file__).with_name("plans.txt.gz")

if __name__ == "__main__":
    keep(list(lines()), FILE)
