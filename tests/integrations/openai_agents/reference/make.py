"""Make ``readings.txt.gz`` and ``runs.txt.gz``, and print the lines that differ. Run it as a module, from the root."""

from __future__ import annotations

from pathlib import Path

from tests.integrations.openai_agents.reference.corpus import NAMES, lines_of
from tests.integrations.openai_agents.reference.runs import REFERENCE
from tests.reference_text import keep

FILE = Path(__file__).with_name("readings.txt.gz")

if __name__ == "__main__":
    keep([line for name in NAMES for line in lines_of(name)], FILE)
    keep(REFERENCE.make(), REFERENCE.file)
