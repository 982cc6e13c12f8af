"""Running totals of a session: exact for ever, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard.reporting.posting import Posting
from budget_guard.reporting.report import AgentSpend, Breakdown, LlmSpend, ModelSpend, ToolSpend, ToolsSpend
from budget_guard.units.amounts import Amounts
from budget_guard.units.money import to_usd

_MOST_NAMES = 1_000
"""Names kept apart in each breakdown; a run that makes up names is summed under `_REST` beyond that."""
_REST = "(others)"


class _Sum:
    __slots__ = ("calls", "cost", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.cost = 0
        self.calls = 0
        self.input_tokens = 0
        self.output_tokens = 0

    def merge(self, other: _Sum) -> None:
        self.cost += other.cost
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens


class Totals:
    """Sums by model, tool and agent. Not thread-safe: the session calls it under its own lock."""

    __slots__ = (
        "_agents",
        "_children",
        "_models",
        "_started",
        "_tools",
        "from_provider",
        "overrun",
        "uncertain",
        "unpriced_calls",
        "violations",
    )

    def __init__(self) -> None:
        self._models: dict[str, _Sum] = {}
        self._tools: dict[str, _Sum] = {}
        self._agents: dict[str, _Sum] = {}
        self._started: dict[str, int] = {}
        """What the agents cost that each one has started, in nano-dollars."""
        self._children: dict[str, _Sum] = {}
        self.from_provider = 0
        self.overrun = 0
        self.uncertain = 0
        self.unpriced_calls = 0
        self.violations = 0

    def add(self, posting: Posting, agent: str | None, calls: int = 1, started_by: Sequence[str] = ()) -> None:
        """Add a call; its negative, as -1 *calls*, takes it out again.

        Args:
            booked: The call.
            agent: Whom to attribute it to.
            calls: 1 or -1.
            started_by: The agents that have started *agent*, directly or by another one.
        """
        _, _, name, amounts, overrun, uncertain, unpriced, violation, source = posting
        cost, input_tokens, output_tokens, _, requests, tool_calls = amounts
        if requests:
            sums = self._models
        else:  # what a tool costs may be booked beside the call itself
            sums, calls = self._tools, tool_calls
        of_name = sums.get(name)
        if of_name is None:
            of_name = _new(sums, name)
        of_name.cost += cost
        of_name.calls += calls
        of_name.input_tokens += input_tokens
        of_name.output_tokens += output_tokens
        if agent is not None:
            of_agent = self._agents.get(agent) or _new(self._agents, agent)
            of_agent.cost += cost
            of_agent.calls += calls
        if started_by:
            for name in set(started_by):
                if name != agent:
                    if name not in self._agents:
                        _new(self._agents, name)
                    name = name if name in self._agents else _REST
                    self._started[name] = self._started.get(name, 0) + cost
        if source == "provider":
            self.from_provider += cost
        if overrun:
            self.overrun += overrun
        if uncertain:
            self.uncertain += cost
        if unpriced:
            self.unpriced_calls += calls
        if violation:
            self.violations += calls

    def merge(self, child_id: str, child: Totals) -> None:
        """Add all that a child session took."""
        for sums, added in (
            (self._models, child._models),
            (self._tools, child._tools),
            (self._agents, child._agents),
            (self._children, child._children),
        ):
            for name, each in added.items():
                (sums.get(name) or _new(sums, name)).merge(each)
        for name, cost in child._started.items():
            name = name if name in self._agents else _REST
            self._started[name] = self._started.get(name, 0) + cost
        of_child = self._children.get(child_id) or _new(self._children, child_id)
        for each in (*child._models.values(), *child._tools.values()):
            of_child.merge(each)
        self.from_provider += child.from_provider
        self.overrun += child.overrun
        self.uncertain += child.uncertain
        self.unpriced_calls += child.unpriced_calls
        self.violations += child.violations

    def total(self) -> Amounts:
        """All of it together."""
        models, tools = self._models.values(), self._tools.values()
        input_tokens, output_tokens = (sum(s.input_tokens for s in models), sum(s.output_tokens for s in models))
        return Amounts(
            sum(s.cost for s in (*models, *tools)),
            input_tokens,
            output_tokens,
            input_tokens + output_tokens,
            sum(s.calls for s in models),
            sum(s.calls for s in tools),
        )

    def by_child(self) -> dict[str, AgentSpend]:
        """The sums by child session."""
        return {
            name: AgentSpend(total=to_usd(s.cost), calls=s.calls, with_started=to_usd(s.cost))
            for name, s in self._children.items()
        }

    def breakdown(self) -> Breakdown:
        """The sums by model and by tool."""
        models, tools = self._models.values(), self._tools.values()
        return Breakdown(
            llm=LlmSpend(
                total=to_usd(sum(s.cost for s in models)),
                calls=sum(s.calls for s in models),
                by_model={
                    name: ModelSpend(
                        total=to_usd(s.cost),
                        calls=s.calls,
                        input_tokens=s.input_tokens,
                        output_tokens=s.output_tokens,
                    )
                    for name, s in self._models.items()
                    if s.calls
                },
            ),
            tools=ToolsSpend(
                total=to_usd(sum(s.cost for s in tools)),
                calls=sum(s.calls for s in tools),
                by_tool={name: ToolSpend(total=to_usd(s.cost), calls=s.calls) for name, s in self._tools.items()},
            ),
        )

    def by_agent(self) -> dict[str, AgentSpend]:
        """The sums by agent."""
        started = self._started
        return {
            name: AgentSpend(total=to_usd(s.cost), calls=s.calls, with_started=to_usd(s.cost + started.get(name, 0)))
            for name, s in self._agents.items()
        }


def _new(sums: dict[str, _Sum], name: str) -> _Sum:
    if len(sums) >= _MOST_NAMES:
        name = _REST
    return sums.setdefault(name, _Sum())
