"""From what a ledger answered to the error that says it."""

from __future__ import annotations

from budget_guard.dimension import DIMENSIONS, Amounts, in_unit
from budget_guard.errors import BudgetError, BudgetExceeded, BudgetRevoked, UnboundedCallError, UnknownPriceError
from budget_guard.ledger.base import Refused, Revoked
from budget_guard.run import RAISE_IT


def exceeded(refused: Refused, asked: Amounts | None) -> BudgetExceeded:
    """The error for a limit that stands in the way of *asked*; None for money that is booked already."""
    i = refused.dimension
    return BudgetExceeded(
        dimension=DIMENSIONS[i],
        limit=in_unit(i, refused.limit),
        actual=in_unit(i, refused.committed + refused.reserved),
        scope=str(refused.scope),
        estimate=None if asked is None else in_unit(i, asked[i]),
        remedy=RAISE_IT.format(DIMENSIONS[i]),
    )


def revoked(outcome: Revoked) -> BudgetRevoked:
    """The error for a scope that was cut off."""
    return BudgetRevoked(scope=str(outcome.scope), reason=outcome.reason, at=outcome.at)


def cause(error: BudgetError) -> str:
    """What stopped the run, as `BudgetReport.terminated_by` says it."""
    if isinstance(error, BudgetExceeded):
        return error.dimension
    causes: dict[type[BudgetError], str] = {
        BudgetRevoked: "revoked",
        UnknownPriceError: "unknown_price",
        UnboundedCallError: "unbounded",
    }
    return causes.get(type(error), "downgrade")
