"""The record of a decision, with everything that it was decided on: what its lookup answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any

from budget_guard.calls.call import ModelCall
from budget_guard.calls.decision import Decision
from budget_guard.ledger.hold_id import made_ms
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.protocol.problems import problem_of
from budget_guard.protocol.words import output_clamped
from budget_guard.units.money import usd_text
from budget_guard.units.printable import printable


def decision_record(decision: Decision, *, mode: str, feature: str | None = None) -> dict[str, Any]:
    """The record of *decision*, as JSON has it, with what was booked for the call as far as that is known now.

    Args:
        decision: The decision.
        mode: The mode of the run's budget.
        feature: What the run is attributed to.
    """
    principals = dict(_principals_of(decision.scopes))
    seconds, ms = divmod(made_ms(decision.id), 1_000)
    record: dict[str, Any] = {
        "decision_id": decision.id,
        "time": f"{_second(seconds)}.{ms:03d}+00:00",
        "decision": decision.action,
        "mode": mode,
        "kind": decision.kind,
        "run_id": principals.pop("run", None),
        "principals": principals,
        "feature": feature,
        "requested": printable(decision.requested),
        "selected": None if decision.action == "block" else printable(decision.name),
        "reason": "",
        "code": None,
        "estimate": {
            "input_tokens": decision.held.input_tokens,
            "output_tokens": decision.held.output_tokens,
            "cost_usd": usd_text(decision.held.cost),
        },
        "bounded": decision.bounded,
        "client_requested_max_output_tokens": None,
        "effective_max_output_tokens": decision.output_cap,
        "output_clamped": output_clamped(decision),
        "price": _price_of(decision),
        "state": None,
        "cost_usd": None,
        "uncertain": None,
    }
    if isinstance(decision.call, ModelCall):
        record["client_requested_max_output_tokens"] = decision.call.max_output_tokens
    if decision.error is not None:
        stop = problem_of(decision.error, decision=decision)
        record["reason"], record["code"] = stop.detail, stop.code
    elif decision.action == "downgrade":
        record["reason"] = printable(decision.reason)
    if decision.reservation is not None:
        record |= _settlement_of(decision)
    return record


@lru_cache(maxsize=256)
def _principals_of(scopes: tuple[str, ...]) -> Sequence[tuple[str, str]]:
    """The kinds and names of *scopes*."""
    return [(kind, name) for kind, _, name in (scope.partition(":") for scope in scopes)]


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    """A second in UTC, as ISO 8601 has it."""
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat()[:19]


def _price_of(decision: Decision) -> dict[str, Any]:
    """The prices that it was decided by, dollars per token."""
    price = None if decision.terms is None else decision.terms.rung.price
    told: dict[str, Any] = {"table": decision.prices, "currency": "USD"}
    if price is not None:
        told["provider"] = price.provider
        told |= _text_price_of(price)
    return told


@lru_cache(maxsize=256)
def _text_price_of(price: ModelPrice) -> dict[str, str]:
    text = price.text_price()
    return (
        {}
        if text is None
        else dict(zip(("input_usd", "output_usd"), (f"{Decimal(each):f}" for each in text), strict=True))
    )


def _settlement_of(decision: Decision) -> dict[str, Any]:
    """What became of its hold."""
    held = decision.reservation
    if held is None or not held.settled:
        return {"state": "reserved"}
    if held.posting is None:
        return {"state": "released"}
    return {
        "state": "committed",
        "cost_usd": usd_text(held.posting.amounts.cost),
        "uncertain": held.posting.uncertain,
    }
