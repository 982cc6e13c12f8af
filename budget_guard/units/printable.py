"""Text from outside made safe for a terminal, an error message and a log: one place for all of them."""

from __future__ import annotations

_MOST = 500
"""The most characters that are shown of one text."""


def printable(text: object) -> str:
    """*text* on one line, with everything escaped that a terminal or a log would not show as it is.

    Line ends, escape sequences, characters of no width and those that turn the direction of writing, and half surrogate
    pairs become backslash escapes; letters of every language stay. What is very long is cut.
    """
    words = text if isinstance(text, str) else str(text)
    if len(words) > _MOST:
        words = f"{words[:_MOST]}..."
    if words.isprintable():
        return words
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in words
    )
