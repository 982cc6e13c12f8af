"""Make ``views.txt.gz`` anew, and print the lines that differ. Run it as a module, from the root."""

from __future__ import annotations

from pathlib import Path

from tests.reference_text import keep
from tests.reporting.reference.views import NAMES, lines_of

FILE = Path(__file__).with_name("views.txt.gz")

if __name__ == "__main__":
    keep([line for name in NAMES for line in lines_of(name)], FILE)
