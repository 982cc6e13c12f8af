"""The view of one session that a guard, a handler and a middleware share."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import cast

from budget_guard.events.model import Subscriber
from budget_guard.reporting.report import BudgetReport
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session
from budget_guard.units.money import UsdLike


class SessionHandle:
    """What a guard, a handler and a middleware have in common: the view of one session, and how to steer it."""

    session: Session

    @property
    def budget(self) -> Budget:
        """The budget, with its limits as they are now."""
        return cast("Budget", self.session.budget)  # which a handle was given

    @property
    def spent_usd(self) -> Decimal:
        """Dollars committed, exact to the nano-dollar."""
        return self.session.spent_usd

    @property
    def reserved_usd(self) -> Decimal:
        """Dollars held for calls in flight."""
        return self.session.reserved_usd

    @property
    def remaining_usd(self) -> Decimal | None:
        """Dollars: limit - committed - reserved; None without a dollar limit. Negative after an overrun."""
        return self.session.remaining_usd

    @property
    def times_raised(self) -> int:
        """How often the limits were raised."""
        return self.session.times_raised

    def report(self) -> BudgetReport:
        """What was spent so far, on what, and what stopped the run. ``print`` it for one line."""
        return self.session.report()

    def raise_limits(self, **limits: UsdLike | None) -> None:
        """Raise limits of the running session. As `Session.raise_limits`."""
        self.session.raise_limits(**limits)

    def revoke(self, reason: str) -> None:
        """Refuse every further call. Calls in flight settle as usual."""
        self.session.revoke(reason)

    def charge(self, tool: str, cost: UsdLike, *, agent: str | None = None) -> None:
        """Book *cost* dollars that were already spent on *tool*. As `Session.charge`."""
        self.session.charge(tool, cost, agent=agent)

    def close(self) -> None:
        """Give up what is kept for the session alone, such as its place among the live runs. As `Session.close`."""
        self.session.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self.session.aclose()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call *subscriber* with every event; returns how to stop. As `Session.subscribe`."""
        return self.session.subscribe(subscriber)
