"""The way from a guard's principals to its session: an authority's, or one by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budget_guard.calls.seen import OnCancel
from budget_guard.ledger.base import Ledger
from budget_guard.pricing.overlay import PriceLike
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session


def open_session(
    authority: BudgetAuthority | None,
    budget: Budget,
    run_id: str | None,
    *,
    user: str | None,
    key: str | None,
    team: str | None,
    feature: str | None,
    pricing: Mapping[str, PriceLike] | None,
    per_million: Mapping[str, PriceLike] | None = None,
    agent: str | None = None,
    ledger: Ledger | str | None = None,
    on_cancel: OnCancel = "bound",
) -> Session:
    """A session of *authority*; without one, a session by itself that names the principals in its report alone.

    Args:
        authority: Whose ceilings hold as well.
        budget: What the run may spend.
        run_id: Its name, to go on with it later; made up by default.
        user: Whom it is attributed to, as the other four.
        key: As *user*.
        team: As *user*.
        feature: As *user*.
        pricing: Prices that win over the bundled ones, dollars per token.
        per_million: The same in dollars per million tokens.
        agent: As *user*: the handle of an agent.
        ledger: Where the counters live, or its URL, where there is no authority; in memory by default.
        on_cancel: What to book for an answer that its caller gives up.

    Raises:
        BudgetError, ValueError: As `BudgetAuthority.session`; and if there is an authority and a ledger.
        TypeError: If *authority* is none.
    """
    given: object = authority
    if given is not None and not isinstance(given, BudgetAuthority):
        raise TypeError(
            f"authority={given!r} is no BudgetAuthority: for a ledger alone write ledger=..., for ceilings that runs "
            'share BudgetAuthority(ledger, ceilings={"user": Budget("$20.00", window="day")})'
        )
    if authority is not None and ledger is not None:
        raise ValueError("ledger= is set, and authority= too, which has a ledger of its own: set one of them")
    if authority is not None:
        return authority.session(
            budget,
            run_id,
            user=user,
            key=key,
            team=team,
            feature=feature,
            agent=agent,
            pricing=pricing,
            per_million=per_million,
            on_cancel=on_cancel,
        )
    tags = {"user": user, "key": key, "team": team, "feature": feature, "agent": agent}
    return Session(
        budget,
        ledger=ledger,
        run_id=run_id,
        tags={kind: tag for kind, tag in tags.items() if tag is not None},
        pricing=pricing,
        per_million=per_million,
        on_cancel=on_cancel,
    )


async def aopen_session(
    authority: BudgetAuthority | None,
    budget: Budget,
    run_id: str | None,
    *,
    ledger: Ledger | str | None = None,
    **settings: Any,
) -> Session:
    """As `open_session`, awaited where there is an authority to ask."""
    if isinstance(authority, BudgetAuthority) and ledger is None:
        return await authority.asession(budget, run_id, **settings)
    return open_session(authority, budget, run_id, ledger=ledger, **settings)
