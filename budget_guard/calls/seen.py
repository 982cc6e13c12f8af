"""What was seen of an answer that its caller gave up: how much of it to book where `on_cancel` is ``"seen"``."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from budget_guard.estimate.tokens import count, encoding_of
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.units.usage import Usage

OnCancel: TypeAlias = Literal["bound", "seen"]
"""What to book for an answer that its caller gives up: all that is held, or the input and what was seen of it."""

_BYTES_PER_TOKEN = 4
"""Text has no fewer tokens than this tells, but for the tightest: so much is booked in any case."""
_MARGIN = 10
"""One in so many tokens is booked besides, and `_LEAST_MARGIN`: the provider wrote on until it learned of the end."""
_LEAST_MARGIN = 2
_PIECE = 50_000
"""Characters that are counted at once."""


class Seen(NamedTuple):
    """The part of an answer that was seen."""

    text: str
    """All that the model wrote in it, tool calls included."""
    usage: Usage | None = None
    """The usage that it told until then; None where it told none."""
    thinks: bool | None = None
    """Whether the model thought out of sight; None where its answer does not tell."""


def seen_tokens(model: str, text: str) -> int:
    """The output tokens to book for *text* of *model*: no fewer than were written, and a margin.

    They are counted where the model's encoding is known and a tokenizer is installed; else there are at most as many
    as bytes.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    encoding = encoding_of(model)
    counts = [] if encoding is None else [count(encoding, piece, None) for piece in _pieces(text)]
    known = [tokens for tokens in counts if tokens is not None]
    tokens = size if encoding is None or len(known) < len(counts) else max(sum(known), -(-size // _BYTES_PER_TOKEN))
    return tokens + tokens // _MARGIN + _LEAST_MARGIN


def is_all_seen(seen: Seen, price: ModelPrice | None) -> bool:
    """Whether the model wrote nothing out of sight."""
    if seen.thinks is not None:
        return not seen.thinks
    return price is not None and price.capabilities is not None and "reasoning" not in price.capabilities


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
