"""The headers that every answer of a service carries, refusals included."""

from __future__ import annotations

from decimal import Decimal

from budget_guard.calls.decision import Decision
from budget_guard.errors import BudgetError
from budget_guard.protocol.words import output_clamped, scope_kind, usd
from budget_guard.units.printable import printable

PROTOCOL_HEADERS = (
    "X-Budget-Decision",
    "X-Budget-Decision-Id",
    "X-Budget-Reservation-Id",
    "X-Budget-Enforcement-Mode",
    "X-Budget-Blocking-Scope",
    "X-Budget-Remaining-USD",
    "X-Budget-Requested-Model",
    "X-Budget-Selected-Model",
    "X-Budget-Output-Clamped",
    "X-Budget-Price-Table-Version",
    "X-Run-Id",
)
"""Their names."""


def budget_headers(
    *,
    mode: str,
    run_id: str | None,
    decision: Decision | None = None,
    error: BudgetError | None = None,
    remaining_usd: Decimal | None = None,
    prices: str | None = None,
    refused: bool = False,
) -> list[tuple[str, str]]:
    """The headers of an answer, in the order of `PROTOCOL_HEADERS`: those that say something.

    Args:
        mode: The mode of the run's budget.
        run_id: The run; None where it is refused before it is known.
        decision: The decision on the call; None where it is refused before there is one.
        error: Why it is refused; None where it is not.
        remaining_usd: Dollars left in the tightest scope; None where nothing limits them.
        prices: Version and hash of the price table, where there is no *decision*.
        refused: Whether it is refused by something else than a budget, so that there is no *error*.
    """
    named: list[tuple[str, str]] = []
    error = error or (None if decision is None else decision.error)
    decision_id = decision.id if decision is not None else None if error is None else error.decision_id
    action = "block" if error is not None or refused else "allow" if decision is None else decision.action
    named.append(("X-Budget-Decision", action))
    if decision_id is not None:
        named.append(("X-Budget-Decision-Id", decision_id))
    if decision is not None and decision.reservation is not None:
        named.append(("X-Budget-Reservation-Id", decision.id))
    named.append(("X-Budget-Enforcement-Mode", mode))
    kind = None if error is None else scope_kind(error)
    if kind is not None:  # never its id, which may be another principal's name
        named.append(("X-Budget-Blocking-Scope", kind))
    if remaining_usd is not None:
        named.append(("X-Budget-Remaining-USD", usd(remaining_usd)))
    if decision is not None and action == "downgrade":
        named.append(("X-Budget-Requested-Model", _field(decision.requested)))
        named.append(("X-Budget-Selected-Model", _field(decision.name)))
    if decision is not None and output_clamped(decision):
        named.append(("X-Budget-Output-Clamped", "true"))
    table = prices if decision is None else decision.prices
    if table is not None:
        named.append(("X-Budget-Price-Table-Version", table))
    if run_id is not None:
        named.append(("X-Run-Id", _field(run_id)))
    return named


def _field(text: str) -> str:
    """*text* as a header may carry it."""
    return printable(text).encode("ascii", "backslashreplace").decode("ascii")
