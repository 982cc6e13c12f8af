"""The budget that users write: limits and policies, and the way to open a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budget_guard.ledger.base import Ledger
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.pricing.overlay import PriceLike
from budget_guard.session.session import Session


@dataclass(frozen=True, slots=True, init=False)
class Budget(BudgetPolicy):
    """An immutable set of limits and policies for one unit of work. At least one limit must be set.

    ``Budget("$5.00")`` is a ceiling of five dollars. None means no limit in that dimension.
    """

    def session(
        self,
        *,
        ledger: Ledger | str | None = None,
        run_id: str | None = None,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
    ) -> Session:
        """Open a session that spends from this budget alone.

        Args:
            ledger: Where the counters live, or its URL as of `open_ledger`; a new one in memory by default. With one
                that lasts and a *run_id* the budget survives a restart: the run goes on where it stopped.
            run_id: The run's name; made up by default.
            user: Whom to name in the report, as the other three.
            key: As *user*. Not the secret: it is logged.
            team: As *user*.
            feature: As *user*.
            pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.

        Raises:
            LedgerUnavailable: If the ledger cannot be reached.
            ValueError: If an argument makes no sense.
        """
        tags = {"user": user, "key": key, "team": team, "feature": feature}
        return Session(
            self,
            ledger=ledger,
            run_id=run_id,
            tags={kind: tag for kind, tag in tags.items() if tag is not None},
            pricing=pricing,
        )
