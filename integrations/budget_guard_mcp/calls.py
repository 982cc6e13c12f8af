"""One call of an MCP tool: held before it is made, booked after."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

from budget_guard import Budget, BudgetError, Session
from budget_guard.adapter import GuardedCall, SessionHandle, ToolCost, ToolCosts
from budget_guard.wire import never_billed

T = TypeVar("T")

Guard: TypeAlias = "Budget | Session | SessionHandle"
"""Whose money the tools spend: a budget, a session, or a guard or handler of another adapter."""


class PricedTools:
    """The tools of one client or server, with what they cost.

    Args:
        guard: Whose money they spend.
        tool_costs: What they cost a call, by name: dollars, or a function of the result. Others are free, and counted.
        agent: Whom to attribute the calls to.
        owner: What is made, for an error to show.

    Raises:
        TypeError: If *guard* is none.
        ValueError: If a cost is no amount of money.
    """

    def __init__(self, guard: Guard, tool_costs: Mapping[str, ToolCost] | None, agent: str | None, owner: str) -> None:
        given: object = guard
        if isinstance(given, Budget):
            self.session = given.session()
        elif isinstance(given, SessionHandle):
            self.session = given.session
        elif isinstance(given, Session):
            self.session = given
        else:
            raise TypeError(f'{given!r} is neither a Budget nor a Session: write {owner}(..., Budget("$5.00"))')
        self._costs = ToolCosts(tool_costs)
        self._agent = agent
        self._warned = False

    async def call(self, tool: str, arguments: object, make: Callable[[], Awaitable[T]]) -> T:
        """Make a call of *tool*, if the budget admits it.

        Args:
            tool: The tool.
            arguments: What it is called with.
            make: Makes the call.

        Raises:
            BudgetError: If it is refused. It is not made then.
        """
        call = GuardedCall((self.session,))
        asked = self.session.with_trail(self._costs.call(tool, self._agent), arguments)
        stop = await call.ahold(asked)
        if stop is not None:
            raise stop.error
        try:
            result = await make()
        except BaseException as error:
            if never_billed(error):
                await call.arelease(type(error).__name__)
            else:
                if not isinstance(error, BudgetError):
                    call.note_result(error)
                await call.acommit_cost()
            raise
        try:
            await call.acommit_result(self._costs, result)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self._warn(tool, error)  # what was held is booked, and the result is paid for
        return result

    def _warn(self, tool: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            words = f"The cost of the tool {tool!r} is not known, so what was held for it is booked: {error!r}"
            warnings.warn(words, RuntimeWarning, stacklevel=2)
