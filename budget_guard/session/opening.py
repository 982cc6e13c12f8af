"""The way from a guard's principals to its session: an authority's, or one by itself."""

from __future__ import annotations

from collections.abc import Mapping

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
) -> Session:
    """A session of *authority*; without one, a session by itself that names the principals in its report alone.

    Raises:
        BudgetError, ValueError: As `BudgetAuthority.session`.
    """
    if authority is not None:
        return authority.session(budget, run_id, user=user, key=key, team=team, feature=feature, pricing=pricing)
    tags = {"user": user, "key": key, "team": team, "feature": feature}
    return Session(
        budget, run_id=run_id, tags={kind: tag for kind, tag in tags.items() if tag is not None}, pricing=pricing
    )
