"""What an answer says was used, as one value for every dialect."""

from __future__ import annotations

from typing import NamedTuple

from budget_guard.calls.seen import Seen
from budget_guard.units.usage import Usage

_STANDARD_TIERS = frozenset({"default", "standard", "on_demand", "performance", "ON_DEMAND", "STANDARD"})


class Answer(NamedTuple):
    """What one answer says about its bill."""

    dialect: str
    usage: Usage | None = None
    """What was used, billed events included; None where that is not known."""
    problem: str | None = None
    """Why it is not known, in words that hold nothing of the answer."""
    model: str | None = None
    """The model that served it."""
    tier: str | None = None
    """The price tier that served it, ``fast`` included; None where the answer does not say, "default" for the standard
    one."""
    region: str | None = None
    """The region that served it, where the answer says so."""
    id: str | None = None
    cost: int | None = None
    """The provider's own figure for this call, in nano-dollars."""
    cut_off: bool = False
    """Whether an output cap ended it early. An answer of exactly the cap that says it is done is whole."""
    failed: bool = False
    """Whether it is an error in the shape of an answer, or a stream that broke."""
    others: tuple[tuple[str, Usage], ...] = ()
    """What other models used for the same answer, to be billed besides: advisors, and models that declined."""
    reasoning_ids: tuple[str, ...] = ()
    """Parts of it that only the provider has, and that later requests may name."""
    output_floor: int = 0
    """Tokens that were made for sure, of a stream whose usage is not known."""
    seen: Seen | None = None
    """What was seen of a stream that is not at its end, where its reader `keeps_text`."""
    text: str = ""
    """What it says, of an answer that is no stream and was cut off."""
    calls_tools: bool = False
    """Whether an answer that is no stream was cut off with tools to call, the last of them perhaps half made."""

    @property
    def source(self) -> str | None:
        """Where the bill comes from: ``provider`` for its own figure, ``usage`` for counts, None where nobody knows."""
        if self.cost is not None:
            return "provider"
        return None if self.usage is None else "usage"


def served_tier(tier: object, speed: object = None) -> str | None:
    """The tier that served a call, in the words of the price table; "default" for the standard one."""
    if speed == "fast":
        return "fast"
    if not isinstance(tier, str) or not tier:
        return "default" if speed == "standard" else None
    return "default" if tier in _STANDARD_TIERS else tier.lower()


def unreadable(dialect: str, problem: str) -> Answer:
    """An answer that cannot be read."""
    return Answer(dialect, problem=f"{dialect}: {problem}")
