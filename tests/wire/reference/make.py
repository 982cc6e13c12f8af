"""Make ``readings.txt.gz``: what is read of every request and answer of the corpus.

Run it from the root of the checkout: ``python -m tests.wire.reference.make``. It prints the lines that are others than
before: look at each of them, for each is money.
"""

from __future__ import annotations

from pathlib import Path

from tests.reference_text import keep
from tests.wire.reference.readings import NAMES, lines_of

FILE = Path(__file__).with_name("readings.txt.gz")


def main() -> None:
    """Write the file."""
    keep([line for name in NAMES for line in lines_of(name)], FILE)


if __name__ == "__main__":
    main()
