"""What can be typed behind every command is what it was: a missing option, or another default, breaks who uses it.

A line that differs is no fault by itself: look at it, and where it is right run ``python -m tests.cli.options``.
"""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp")

from tests.cli import options


def test_the_options_of_every_command_are_as_they_were() -> None:
    assert options.lines() == options.FILE.read_text("utf-8").splitlines()
