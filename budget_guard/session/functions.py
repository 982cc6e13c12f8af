"""Decorators for functions of a module, which are written before any session is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

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
