"""The budget that users write: limits and policies, and the way to open a session."""

from __future__ import annotations

from dataclasses import dataclass

from budget_guard.policy.budget import BudgetPolicy
from budget_guard.session.session import Session


@dataclass(frozen=True, slots=True, init=False)
class Budget(BudgetPolicy):
    """An immutable set of limits and policies for one unit of work. At least one limit must be set.

    ``Budget("$5.00")`` is a ceiling of five dollars. None means no limit in that dimension.
    """

    def session(self, *, run_id: str | None = None, user: str | None = None, key: str | None = None) -> Session:
        """Open a session that spends from this budget alone, with its own ledger in memory."""
        tags = {"user": user, "key": key}
        return Session(self, run_id=run_id, tags={kind: tag for kind, tag in tags.items() if tag is not None})
