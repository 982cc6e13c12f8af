"""Names and texts from outside reach no terminal, error or log as they are."""

from __future__ import annotations

import pytest

from budget_guard.units.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpt-4o", "gpt-4o"),
        ("Zürich 東京 \N{PILE OF POO}", "Zürich 東京 \N{PILE OF POO}"),
        ("a\nERROR all is well", r"a\nERROR all is well"),
        ("\r\t\0", r"\r\t\x00"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil\u200b", r"\u202eevil\u200b"),
        ("\u2028\ud800", r"\u2028\ud800"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_only_what_can_be_printed_is_shown_as_it_is(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_what_is_very_long_is_cut() -> None:
    assert len(printable("x" * 1_000_000)) < 600
