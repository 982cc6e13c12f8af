"""Refusals: the errors that say what a ledger answered."""

from __future__ import annotations

from datetime import datetime

from budget_guard.calls.call import ModelCall
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    LedgerAmbiguous,
    LedgerUnavailable,
    LoopDetected,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.ledger.base import Refused, Revoked
from budget_guard.units.amounts import DIMENSIONS, NOTHING, Amounts, in_unit
from budget_guard.units.money import format_usd
from budget_guard.units.scope import AGENT_IN_RUN, Scope

OUTPUT_CAP = "output_cap"
"""What `BudgetReport.terminated_by` says where the guard's own output cap cut an answer off."""

_WAITING_HELPS = (
    "Other calls in flight hold a part of it and may give some back: try again when they are over, or wait longer with "
    "Budget(max_wait_s=...). "
)


def exceeded(
    refused: Refused,
    asked: Amounts | None,
    kept: Amounts = NOTHING,
    *,
    waiting_helps: bool = False,
    now: datetime | None = None,
) -> BudgetExceeded:
    """The error for a limit that stands in the way.

    Args:
        refused: The ledger's answer.
        asked: What it was asked to hold; None for money that is booked already.
        kept: What is kept back for the final answer.
        waiting_helps: Whether it may fit once the other calls in flight are over.
        now: The time (UTC), to say how long it takes until the limit begins anew.
    """
    i = refused.dimension
    words = format_usd(kept.cost) if i == 0 else kept[i]
    kept_back = f"{words} of it is kept back for the final answer. " if kept[i] else ""
    error = BudgetExceeded(
        dimension=DIMENSIONS[i],
        limit=in_unit(i, refused.limit),
        actual=in_unit(i, refused.committed + refused.reserved),
        scope=refused.scope.principal,
        estimate=None if asked is None else in_unit(i, asked[i]),
        remedy=kept_back
        + (_WAITING_HELPS if waiting_helps else "")
        + remedy_of(refused.scope, DIMENSIONS[i], refused.resets_at),
    )
    error.waiting_helps = waiting_helps
    error.reserved = in_unit(i, refused.reserved)
    resets_at = error.resets_at = refused.resets_at
    if resets_at is not None:
        error.user_message = f"The budget for this is used up. It begins anew at {resets_at:%Y-%m-%d %H:%M} UTC."
        error.retry_after_s = None if now is None else max(0.0, (resets_at - now).total_seconds())
    return error


def cap_too_high(scope: Scope, call: ModelCall, most: int, *, of_model: bool) -> BudgetExceeded:
    """The error for a call whose own output cap is above *most*, where the budget does not lower but refuse that.

    Args:
        scope: The run.
        call: The call.
        most: The highest cap that it may set.
        of_model: Whether that is the most that its model writes, and not the budget's own.
    """
    why = f"and {call.model!r} writes no more than that" if of_model else "which is above that"
    return BudgetExceeded(
        dimension="call_max_output_tokens",
        limit=most,
        actual=0,
        scope=scope.principal,
        estimate=call.max_output_tokens,
        detail=f"the call sets max_output_tokens={call.max_output_tokens}, {why}",
        remedy=f'Set at most {most}, or let it be lowered: Budget(clamp_output="when_unset").',
    )


def remedy_of(scope: Scope, dimension: str, resets_at: datetime | None = None) -> str:
    """The remedy for a limit of *scope*, which begins anew at *resets_at*."""
    if scope.kind == AGENT_IN_RUN:
        name = scope.id.partition("/")[2]
        return f"It is the cap of that agent alone, Budget(agents={{{name!r}: Budget({dimension}=...)}}): others go on."
    if scope.kind == "run":
        return f"Raise it with raise_limits({dimension}=...), or start over with a larger Budget."
    anew = "" if resets_at is None else f", and it begins anew at {resets_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"All runs of {scope.principal} share it{anew}: an operator can raise it with BudgetAuthority.set_ceiling(...)."
    )


def is_of_one_agent(error: BudgetError) -> bool:
    """Whether *error* stops one agent alone, by its cap within the run, and not the run."""
    return isinstance(error, BudgetExceeded) and error.scope.startswith(f"{AGENT_IN_RUN}:")


def revoked(outcome: Revoked) -> BudgetRevoked:
    """The error for a scope that was cut off."""
    return BudgetRevoked(scope=str(outcome.scope), reason=outcome.reason, at=outcome.at)


def cause(error: BudgetError) -> str:
    """The cause of a stop, as `BudgetReport.terminated_by` says it."""
    if isinstance(error, BudgetExceeded):
        return error.dimension
    causes: dict[type[BudgetError], str] = {
        BudgetRevoked: "revoked",
        LoopDetected: "loop_detected",
        UnknownPriceError: "unknown_price",
        UnboundedCallError: "unbounded",
        ForeignRun: "foreign_run",
        LedgerUnavailable: "ledger",
        LedgerAmbiguous: "ledger",
    }
    return causes.get(type(error), "downgrade")
