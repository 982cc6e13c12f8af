"""The way from a guard's principals to its session: an authority's, or one by itself."""

from __future__ import annotations

from typing import Any

from budget_guard.ledger.base import Ledger
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session


def open_session(
    authority: BudgetAuthority | None,
    budget: Budget,
    run_id: str | None,
    *,
    ledger: Ledger | str | None = None,
    **settings: Any,
) -> Session:
    """A session of *authority*; without one, a session by itself that names the principals in its report alone.

    Args:
        authority: Whose ceilings hold as well.
        budget: What the run may spend.
        run_id: Its name, to go on with it later; made up by default.
        ledger: Where the counters live, or its URL, where there is no authority; in memory by default.
        **settings: What `BudgetAuthority.session` and `Budget.session` take besides: principals, prices, callbacks.

    Raises:
        BudgetError, ValueError: As `BudgetAuthority.session`; and if there is an authority and a ledger.
        TypeError: If *authority* is none.
    """
    _check(authority, ledger)
    if authority is not None:
        return authority.session(budget, run_id, **settings)
    return budget.session(ledger=ledger, run_id=run_id, **settings)


async def aopen_session(
    authority: BudgetAuthority | None,
    budget: Budget,
    run_id: str | None,
    *,
    ledger: Ledger | str | None = None,
    **settings: Any,
) -> Session:
    """As `open_session`, awaited where there is an authority to ask."""
    _check(authority, ledger)
    if authority is not None:
        return await authority.asession(budget, run_id, **settings)
    return budget.session(ledger=ledger, run_id=run_id, **settings)


def _check(authority: object, ledger: object) -> None:
    if authority is not None and not isinstance(authority, BudgetAuthority):
        raise TypeError(
            f"authority={authority!r} is no BudgetAuthority: for a ledger alone write ledger=..., for ceilings that "
            'runs share BudgetAuthority(ledger, ceilings={"user": Budget("$20.00", window="day")})'
        )
    if authority is not None and ledger is not None:
        raise ValueError("ledger= is set, and authority= too, which has a ledger of its own: set one of them")
