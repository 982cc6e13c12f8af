"""Reconciliation: settles holds whose process died after the call was sent, by a rule."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from budget_guard.errors import ReservationError
from budget_guard.ledger.base import Ledger, Settled, Suspended
from budget_guard.ledger.flow import Flow, adrive, drive
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.money import format_usd

_log = logging.getLogger("budget_guard")

Rule: TypeAlias = Literal["estimate"] | Callable[[Suspended], Amounts | None]
"""What a suspended hold is worth: ``estimate`` books all that was held, which the actual amounts still replace if they
come. A function says the amounts that were really billed (`Amounts()` gives the hold back), or None to leave it."""


class Reconciled(NamedTuple):
    """What became of one suspended hold."""

    hold: Suspended
    charged: Amounts | None
    """What was booked for it; None where it was left, or settled elsewhere meanwhile."""


def reconcile(ledger: Ledger, rule: Rule = "estimate", *, most: int = 1_000) -> list[Reconciled]:
    """Settle suspended holds, oldest first.

    Args:
        ledger: Where they are.
        rule: What each is worth.
        most: How many to look at.

    Raises:
        ValueError: If *rule* is not known.
    """
    return drive(_reconcile(rule, most), ledger)


async def areconcile(ledger: Ledger, rule: Rule = "estimate", *, most: int = 1_000) -> list[Reconciled]:
    """As `reconcile`."""
    return await adrive(_reconcile(rule, most), ledger.aio)


def _reconcile(rule: Rule, most: int) -> Flow[list[Reconciled]]:
    if rule != "estimate" and not callable(rule):
        raise ValueError(f"rule={rule!r} is not known: use 'estimate', or a function of a suspended hold")
    yield "sweep", (most,)
    suspended: list[Suspended] = yield "suspended", (most,)
    reconciled: list[Reconciled] = []
    for hold in suspended:
        charged = hold.amounts if rule == "estimate" else rule(hold)
        if charged is not None:
            try:
                if not (yield from _settle(hold, charged, rule == "estimate")):
                    charged = None
            except ReservationError as error:
                _log.info("budget_guard: %s was settled by somebody else: %s", hold.hold_id, error)
                charged = None
            else:
                if charged is not None:
                    _log.warning("budget_guard: booked %s for %s", format_usd(charged.cost), hold.hold_id)
        reconciled.append(Reconciled(hold, charged))
    return reconciled


def _settle(hold: Suspended, charged: Amounts, uncertain: bool) -> Flow[bool]:
    """Book *charged* for *hold*; return whether that is what is booked now, and not what somebody else has booked."""
    if charged == NOTHING:
        released: bool = yield "release", (hold.hold_id, hold.scopes)
        return released
    settled: Settled = yield "commit", (hold.hold_id, hold.scopes, charged, uncertain)
    return settled.charged == charged and settled.uncertain == uncertain
