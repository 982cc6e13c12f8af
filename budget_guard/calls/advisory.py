"""Advisory ceilings: limits of a scope that refuse nothing, and mark what they would have refused.

A ledger refuses whatever passes a limit. So such a scope has none there: what it would be limited to is written down in
the note that goes with its limits, and changes with them in one step, for every process.
"""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard.ledger.base import Balance, Refused
from budget_guard.ledger.counters import first_refusal
from budget_guard.units.amounts import Amounts, Limits

_ADVISORY = "advisory_estimate"


def note_of(limits: Limits) -> str:
    """The note of a scope with advisory *limits*."""
    return f"{_ADVISORY} {','.join('' if limit is None else str(limit) for limit in limits)}"


def is_advisory(balance: Balance) -> bool:
    """True for a scope whose limits are advisory."""
    return balance.note.startswith(f"{_ADVISORY} ")


def as_meant(balance: Balance) -> Balance:
    """*balance* with the limits that are meant, also where these refuse nothing."""
    if not is_advisory(balance):
        return balance
    parts = balance.note.partition(" ")[2].split(",")
    return balance._replace(limits=Limits._make(int(part) if part else None for part in parts))


def passed(balances: Sequence[Balance], held: Amounts) -> Refused | None:
    """The first advisory limit that a call passes; None where it passes none.

    Args:
        balances: The counters of its scopes, without what is held for it.
        held: That.
    """
    return first_refusal([as_meant(each) for each in balances if is_advisory(each)], held, 0)
