"""How amounts and scopes are written on the wire."""

from __future__ import annotations

from decimal import Decimal

from budget_guard.calls.call import ModelCall
from budget_guard.calls.decision import Decision
from budget_guard.errors import BudgetError
from budget_guard.units.money import cost_nano, usd_text
from budget_guard.units.scope import AGENT_IN_RUN

_MOST_PLACES = 9


def usd(amount: Decimal) -> str:
    """Dollars as a plain decimal text of at most nine places, never with an exponent."""
    text = f"{amount:f}"
    whole, point, places = text.partition(".")
    if len(places) > _MOST_PLACES:
        return usd_text(cost_nano(amount))
    places = places.rstrip("0")
    return f"{whole}.{places}" if places else "0" if point and whole == "-0" else whole


def quantity(amount: Decimal | float) -> str | int | float:
    """A quantity of any dimension: dollars as text, everything else as a number."""
    return usd(amount) if isinstance(amount, Decimal) else amount


def output_clamped(decision: Decision) -> bool:
    """Whether the output cap that is sent is not the caller's: lower than that, or where it has set none."""
    if not isinstance(decision.call, ModelCall):
        return False
    cap = decision.output_cap
    return decision.output_clamped or (cap is not None and cap != decision.call.max_output_tokens)


def scope_kind(error: BudgetError) -> str | None:
    """The kind of the scope that is in the way; None where it is no scope."""
    scope = getattr(error, "scope", None)
    if not isinstance(scope, str):
        return None
    kind = scope.partition(":")[0]
    return "agent" if kind == AGENT_IN_RUN else kind


def is_within_run(error: BudgetError) -> bool:
    """Whether the scope that is in the way is the caller's own run, so that its amounts are nobody else's."""
    scope = getattr(error, "scope", None)
    return isinstance(scope, str) and scope.partition(":")[0] in ("run", AGENT_IN_RUN)
