"""Made-up standings of runs, the same ones each time, and their lines, boards and pictures on screens of any width.

`python -m tests.live_lines` writes them down in `live_lines.txt.gz`, and prints what differs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from budget_guard.live import Piece, Standing, as_html, board_lines, fitted, parts_of
from budget_guard.units.amounts import Amounts, Limits
from tests.reference_text import keep

FILE = Path(__file__).with_suffix(".txt.gz")
_WIDTHS = (None, 150, 100, 72, 50, 34, 20, 9, 1)
_MANY = (0, 1, 899, 9_999, 10_000, 998_000, 999_500, 12_345_678, 9_999_000_000, 10_000_000_000, 2_000_000_000_000)
_SECONDS = (
    0,
    0.4,
    89,
    89.5,
    90,
    120,
    149,
    150,
    151,
    5_369,
    5_370,
    5_400,
    5_430,
    171_000,
    172_799,
    172_800,
    216_000,
    10**7,
)
_COUNTS = [base + more for base in (10**4, 999 * 10**3, 10**7, 999 * 10**6, 10**10, 999 * 10**9) for more in (-1, 0, 1)]
_MODELS = ("", "gpt-4o", "gpt-4o-mini", "a\x07bell", "claude-" + "x" * 30)


def _standing(chance: random.Random) -> Standing:
    def maybe(value: Any) -> Any:
        return chance.choice([None, value, value])

    limits = [maybe(chance.choice([2_000_000_000, 50_000_000, 1])), *(maybe(chance.choice(_MANY)) for _ in range(3))]
    if chance.random() < 0.3:
        limits[0] = None
    return Standing(
        Amounts(chance.choice([0, 1, 49_999_999, 50_000_000, 1_999_999_999]), *chance.choices(_MANY, k=5)),
        Amounts(chance.choice([0, 0, 12_500_000]), *chance.choices(_MANY, k=5)),
        Limits._make([*limits, maybe(chance.choice([1, 5_000])), maybe(3)]),
        maybe(chance.choice([0.0, 0.5, 0.9, 1.0])),
        maybe(chance.choice([0.1, 0.8, 0.9, 1.0])),
        chance.choice([0, 1, 1_234_567]),
        maybe(chance.choice([0, 1, 60_000_000, 999_000_000, 70_000_000_000])),
        chance.choice(["", "", "gpt-4o"]),
        chance.choice(_MODELS),
        chance.choice(["", "", "max_cost_usd", "odd\nname"]),
    )


def _shown(line: Sequence[Piece]) -> str:
    return " ".join(f"{piece.style}[{piece.text}]" for piece in line)


def lines() -> Iterator[str]:
    """Every line."""
    for seconds in _SECONDS:  # that are left, at a dollar a second
        until = Standing(Amounts(), Amounts(), Limits(round(seconds * 10**9)), per_minute=60 * 10**9)
        yield f"{seconds} s: {_shown(fitted(partial(parts_of, until), None))!r}"
    for count in _COUNTS:
        tokens = Standing(Amounts(), Amounts(input_tokens=count), Limits(input_tokens=count + 1))
        yield f"{count}: {_shown(fitted(partial(parts_of, tokens), None))!r}"
    for spent in (0, 79, 80, 81, 89, 90, 91, 99, 100, 101):
        cents = Standing(Amounts(spent * 10**7), Amounts(), Limits(10**9), 0.9, 0.8)
        yield f"{spent} %: {_shown(fitted(partial(parts_of, cents), None))!r}"
    chance = random.Random(1)
    for number in range(220):
        standing = _standing(chance)
        told = (standing.shown, f"{standing.share:.6g}", standing.left_s, standing.style)
        yield f"{number}: {told}"
        for width in _WIDTHS:
            yield f"  {width}: {_shown(fitted(partial(parts_of, standing), width))!r}"
    for number in range(40):
        count = chance.choice([0, 1, 2, 5, 30, 31, 33])
        named = [("n" * chance.choice([1, 3, 7, 12, 60]) + str(each), _standing(chance)) for each in range(count)]
        for width in (chance.choice(_WIDTHS), chance.choice(_WIDTHS)):
            board = board_lines(named, width, with_sum=chance.random() < 0.8)
            yield f"board {number} {count} {width}:"
            yield from (f"  {_shown(line)!r}" for line in board)
            yield f"  {as_html(board)!r}"


if __name__ == "__main__":
    keep(list(lines()), FILE)
