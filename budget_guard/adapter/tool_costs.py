"""The costs of tools by name, and a warning of names that no tool has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from budget_guard.calls.call import ToolCall
from budget_guard.units.money import UsdLike, nano_of

ToolCost: TypeAlias = "UsdLike | Callable[[Any], UsdLike]"
"""What a tool costs a call, in dollars: an amount, or a function of its result."""


class ToolCosts:
    """The costs of the tools of one guard or handler, by their names.

    Raises:
        ValueError: If a cost is no amount of money.
    """

    def __init__(self, costs: Mapping[str, ToolCost] | None) -> None:
        costs = costs or {}
        self._held: dict[str, int] = {}
        self._of_result: dict[str, Callable[[Any], UsdLike]] = {}
        for tool, cost in costs.items():
            if callable(cost):
                self._of_result[tool] = cost
            else:
                self._held[tool] = nano_of(cost, f"tool_costs[{tool!r}]")
        self.unseen = set(costs)
        """The tools with a cost that no call has offered or run yet."""
        self.seen_any = False
        """Whether any tool was seen, while one with a cost was not."""
        self.looked = False
        """True once a call was looked at for its tools."""

    def call(self, tool: str, agent: str | None) -> ToolCall:
        """The call of *tool*, with what of its cost is known beforehand."""
        return ToolCall(tool, self._held.get(tool, 0), agent)

    def depends_on_result(self, tool: str) -> bool:
        """Whether only the result tells what a call of *tool* cost."""
        return tool in self._of_result

    def of_result(self, tool: str, result: Any) -> UsdLike | None:
        """What a call of *tool* cost in the end; None for what was held."""
        cost = self._of_result.get(tool)
        return None if cost is None else cost(result)

    def saw(self, tools: Iterable[str]) -> None:
        """Note which of the tools with a cost there really are. Needed only while some are `unseen`."""
        tools = tuple(tools)
        self.looked = True
        self.seen_any = self.seen_any or bool(tools)
        self.unseen.difference_update(tools)

    def warn_of_unseen(self) -> None:
        """Say once which tools with a cost there are not: a misspelt name would make its tool free."""
        if self.unseen:
            names = ", ".join(sorted(map(repr, self.unseen)))
            self.unseen.clear()
            warnings.warn(
                f"tool_costs names {names}, but no agent of this run has such a tool: check the spelling.",
                RuntimeWarning,
                stacklevel=2,
            )
