"""Text from outside made safe for a terminal, an error message and a log: one place for all of them."""

from __future__ import annotations

import logging

_MOST = 500
"""The most characters that are shown of one text."""
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 (full width, as typed)


def printable(text: object) -> str:
    """*text* on one line, with everything escaped that a terminal or a log would not show as it is.

    Line ends, escape sequences, characters of no width and those that turn the direction of writing, and half surrogate
    pairs become backslash escapes; letters of every language stay. What is very long is cut.
    """
    words = text if isinstance(text, str) else str(text)
    return escaped(words if len(words) <= _MOST else f"{words[:_MOST]}...")


def escaped(text: str) -> str:
    """As `printable`, however long."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def no_formula(text: str) -> str:
    """*text* so that no spreadsheet takes it for a formula: with an apostrophe in front, where it might."""
    return f"'{text}" if text.startswith(_STARTS_A_FORMULA) else text


class EscapingFilter(logging.Filter):
    """Escapes the arguments of log records: names from outside can neither forge a line nor steer a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with arguments that can be printed."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_shown, record.args))
        return True


class _Escaped:
    """Stands for an argument whose text, or whose `repr`, cannot be printed."""

    __slots__ = ("_repr", "_str")

    def __init__(self, argument: object) -> None:
        self._str = escaped(str(argument))
        self._repr = escaped(repr(argument))

    def __str__(self) -> str:
        return self._str

    def __repr__(self) -> str:
        return self._repr


def _shown(argument: object) -> object:
    if isinstance(argument, (int, float)) or (str(argument).isprintable() and repr(argument).isprintable()):
        return argument
    return _Escaped(argument)
