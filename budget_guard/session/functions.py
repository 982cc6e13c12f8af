"""Decorators for functions of a module, which are written before any session is opened."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from budget_guard.calls.seen import OnCancel
from budget_guard.ledger.base import Ledger
from budget_guard.ledger.url import open_ledger
from budget_guard.policy.misspelt import unknown_keyword
from budget_guard.pricing.overlay import PriceLike
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.opening import aopen_session, open_session
from budget_guard.session.session import current_session
from budget_guard.session.told import OnThreshold, Told
from budget_guard.session.tracking import tracked
from budget_guard.units.money import UsdLike

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunStore

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
    per_million: Mapping[str, PriceLike] | None = None,
    run_log: RunStore | None = None,
    on_soft_limit: OnThreshold | None = None,
    on_hard_limit: OnThreshold | None = None,
    on_loop_detected: OnThreshold | None = None,
    on_downgrade: OnThreshold | None = None,
    on_cancel: OnCancel = "bound",
    **further: str | None,
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
        per_million: The same in dollars per million tokens.
        run_log: Where a record of each call goes, such as `budget_guard.reporting.RunLog`.
        on_soft_limit: A function of the report, plain or async, that is called once in each call for each limit that is
            nearly used up.
        on_hard_limit: The same for each limit that has refused a call.
        on_loop_detected: The same for each loop that is noticed, and when it is stopped.
        on_downgrade: The same for each model that another one stands in for.
        on_cancel: What to book for an answer that its caller gives up, as `Session` says.
        **further: The principals of further kinds that the authority has ceilings for, by kind: ``org="acme"``.

    Raises:
        TypeError: If *budget* is none, a keyword is not known, or what is decorated is a generator, which has no call
            that ends.
    """
    if not isinstance(budget, Budget):
        raise TypeError(f'budget={budget!r} is not a Budget: write @budgeted(Budget("$2.00"))')
    kinds = authority.kinds if isinstance(authority, BudgetAuthority) else ()
    for name in further:
        if name not in kinds:
            known = [each for each in inspect.signature(budgeted).parameters if each != "further"]
            raise unknown_keyword("budgeted", name, (*known, *kinds))
    told = Told(run_log, on_soft_limit, on_hard_limit, on_loop_detected, on_downgrade)
    told.check()
    settings: dict[str, Any] = {
        "user": user,
        "key": key,
        "team": team,
        "feature": feature,
        "agent": agent,
        "pricing": pricing,
        "per_million": per_million,
        "on_cancel": on_cancel,
        **told._asdict(),
        **further,
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
