"""What is booked for the part of an answer that was seen."""

from __future__ import annotations

import pytest

from budget_guard.calls import seen
from budget_guard.calls.seen import Seen, is_all_seen, seen_tokens
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.table import PriceTable


def priced(**more: object) -> ModelPrice:
    """A price, of which more may be known."""
    return PriceTable.bundled().overlaid({"m": {"input": 1e-6, "output": 1e-6, **more}}).find("m")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("x" * 1_000, 1_000),
        ("é" * 1_000, 2_000),
        ("\ud800", 3),  # which no encoding has
    ],
    ids=["nothing", "a letter", "ASCII", "two bytes each", "half a character"],
)
def test_of_a_model_whose_tokens_nobody_counts_every_byte_is_one(text: str, tokens: int) -> None:
    assert seen_tokens("nobody-knows", text) == tokens + tokens // 10 + 2


@pytest.mark.parametrize("counted", [0, 1, 250, 999, 100_000])
def test_tokens_that_are_counted_piece_by_piece_are_never_fewer_than_text_can_have(
    counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[str] = []

    def count(encoding: str, piece: str, key: int | None) -> int:
        assert key is None  # it never comes again
        pieces.append(piece)
        return counted

    monkeypatch.setattr(seen, "count", count)
    text = "".join(chr(97 + n % 26) for n in range(2 * 50_000 + 7))
    tokens = max(3 * counted, -(-len(text) // 4))
    assert seen_tokens("gpt-4o", text) == tokens + tokens // 10 + 2
    assert [len(piece) for piece in pieces] == [50_000, 50_000, 7] and "".join(pieces) == text


def test_where_one_piece_cannot_be_counted_every_byte_is_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * (50_000 + 1)
    monkeypatch.setattr(seen, "count", lambda encoding, piece, key: 5 if len(piece) == 1 else None)
    assert seen_tokens("gpt-4o", text) == len(text) + len(text) // 10 + 2


@pytest.mark.parametrize(
    ("thinks", "price", "all_seen"),
    [
        (True, None, False),
        (False, None, True),
        (True, priced(capabilities=[]), False),
        (False, priced(capabilities=["reasoning"]), True),
        (None, None, False),
        (None, priced(), False),
        (None, priced(capabilities=[]), True),
        (None, priced(capabilities=["tools"]), True),
        (None, priced(capabilities=["tools", "reasoning"]), False),
    ],
)
def test_a_model_that_may_have_thought_out_of_sight_has_not_shown_all(
    thinks: bool | None, price: ModelPrice | None, all_seen: bool
) -> None:
    assert is_all_seen(Seen("text", None, thinks), price) is all_seen
