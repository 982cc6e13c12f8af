"""Decorators for functions of a module, which are written before any session is opened."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from budget_guard.ledger.base import Ledger
from budget_guard.ledger.url import open_ledger
from budget_guard.pricing.overlay import PriceLike
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.opening import aopen_session, open_session
from budget_guard.session.session import current_session
from budget_guard.session.tracking import tracked
from budget_guard.units.money import UsdLike

P = ParamSpec("P")
R = TypeVar("R")


def track_tool(
    *,
    cost: UsdLike | Callable[[Any], UsdLike] | None = None,
    estimate: UsdLike | Callable[..., UsdLike] | None = None,
    tool: str | None = None,
    agent: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `Session.track_tool`, for tools of a module: each call spends from the `current_session` where it is made.

    ::

        @track_tool(cost="0.02")
        def search(query: str) -> list[str]: ...

        with Budget("$5.00").session():
            search("cats")

    Raises:
        ValueError: If an amount is none, naming the tool.
        TypeError: As `Session.track_tool`; and, when the tool is called, if it is inside of no session.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return tracked(function, current_session, cost=cost, estimate=estimate, tool=tool, agent=agent)

    return decorate


def budgeted(
    budget: Budget,
    *,
    authority: BudgetAuthority | None = None,
    ledger: Ledger | str | None = None,
    user: str | None = None,
    key: str | None = None,
    team: str | None = None,
    feature: str | None = None,
    agent: str | None = None,
    pricing: Mapping[str, PriceLike] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give each call of a function a budget of its own: it runs inside a new session, which is `current_session`.

    ::

        @budgeted(Budget("$2.00"))
        def answer(question: str) -> str:
            client = current_session().guard(OpenAI())
            ...

    Plain functions, and async ones. The session is closed when the function returns or raises.

    Args:
        budget: What each call may spend.
        authority: Where the ceilings live that the calls share with others; none by default.
        ledger: Where the counters live, or its URL; each session in memory by default, or where the authority has them.
        user: The user whose ceiling holds as well, or, without an authority, whom to name in the report.
        key: The API key's name, likewise.
        team: The team, likewise.
        feature: What to attribute the calls to, in the report.
        agent: The handle of the agent that makes them, likewise.
        pricing: Prices that win over the bundled ones, dollars per token.

    Raises:
        TypeError: If *budget* is none, or what is decorated is a generator, which has no call that ends.
    """
    if not isinstance(budget, Budget):
        raise TypeError(f'budget={budget!r} is not a Budget: write @budgeted(Budget("$2.00"))')
    settings: dict[str, Any] = {
        "user": user,
        "key": key,
        "team": team,
        "feature": feature,
        "agent": agent,
        "pricing": pricing,
        "ledger": open_ledger(ledger) if isinstance(ledger, str) else ledger,
    }

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__name__} is a generator, whose calls do not end where they return: open the session in "
                "it, with Budget(...).session() as session"
            )
        if inspect.iscoroutinefunction(function):
            awaited = cast("Callable[..., Awaitable[Any]]", function)

            @functools.wraps(function)
            async def acall(*args: Any, **kwargs: Any) -> Any:
                async with await aopen_session(authority, budget, None, **settings):
                    return await awaited(*args, **kwargs)

            return cast("Callable[P, R]", acall)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with open_session(authority, budget, None, **settings):
                return function(*args, **kwargs)

        return call

    return decorate
