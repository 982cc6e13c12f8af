"""Running totals of a session: exact for ever, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from budget_guard.reporting.course import Course, SpentAt
from budget_guard.reporting.posting import Posting
from budget_guard.reporting.spend import AgentSpend, Breakdown, LlmSpend, ModelSpend, ToolSpend, ToolsSpend
from budget_guard.units.amounts import Amounts
from budget_guard.units.money import to_usd

K = TypeVar("K")

_MOST_NAMES = 1_000
"""Names kept apart in each breakdown; a run that makes up names is summed under `_REST` beyond that."""
_MOST_PAIRS = 10_000
"""Pairs of an agent and a name kept apart."""
_REST = "(others)"
_BATCH = 256
"""Postings that are added up at once."""

_Noted: TypeAlias = tuple[Posting, "str | None", int, Sequence[str]]
_Pair: TypeAlias = tuple["str | None", str]
"""An agent, and the model or tool that it called."""


class _Sum:
    __slots__ = ("cache_written", "cached", "calls", "cost", "input_tokens", "output_tokens", "reasoning")

    def __init__(self) -> None:
        self.cost = 0
        self.calls = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached = 0
        self.cache_written = 0
        self.reasoning = 0

    def merge(self, other: _Sum) -> None:
        self.cost += other.cost
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached += other.cached
        self.cache_written += other.cache_written
        self.reasoning += other.reasoning


class _Pairs(dict[_Pair, _Sum]):
    """Sums by agent and name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, None] = {}
        """The names that are told apart."""


class Totals:
    """Sums by agent and model, and by agent and tool. Not thread-safe: the session calls it under its own lock."""

    __slots__ = (
        "_agents",
        "_children",
        "_course",
        "_from_provider",
        "_latest",
        "_models",
        "_overrun",
        "_started",
        "_tools",
        "_uncertain",
        "_unpriced_calls",
        "_violations",
    )

    def __init__(self) -> None:
        self._latest: list[_Noted] = []
        """What is not added up yet: a call only puts its posting aside."""
        self._models = _Pairs()
        self._tools = _Pairs()
        self._agents: dict[str, None] = {}
        """The agents that are told apart, in order of appearance."""
        self._started: dict[str, int] = {}
        """What the agents cost that each one has started, in nano-dollars."""
        self._children: dict[str, _Sum] = {}
        self._course = Course()
        self._from_provider = 0
        self._overrun = 0
        self._uncertain = 0
        self._unpriced_calls = 0
        self._violations = 0

    def add(self, posting: Posting, agent: str | None, calls: int = 1, started_by: Sequence[str] = ()) -> None:
        """Add a call; its negative, as -1 *calls*, takes it out again.

        Args:
            posting: The call.
            agent: Whom to attribute it to.
            calls: 1 or -1.
            started_by: The agents that have started *agent*, directly or by another one.
        """
        latest = self._latest
        latest.append((posting, agent, calls, started_by))
        if len(latest) >= _BATCH:
            self._add_up()

    def _add_up(self) -> None:
        """Add what was put aside to the sums. Before anybody looks at them, and where there is much of it."""
        if not self._latest:
            return
        note = self._course.note
        for posting, agent, calls, started_by in self._latest:
            _, _, name, amounts, overrun, uncertain, unpriced, violation, source, _, usage = posting
            cost, input_tokens, output_tokens, _, requests, tool_calls = amounts
            note(posting)
            if unpriced:
                self._unpriced_calls += calls if requests else tool_calls
            if violation:
                self._violations += calls
            if requests:
                sums = self._models
            else:  # what a tool costs may be booked beside the call itself
                sums, calls = self._tools, tool_calls
            of_pair = sums.get((agent, name))
            if of_pair is None:
                of_pair = self._new(sums, (agent, name))
            of_pair.cost += cost
            of_pair.calls += calls
            of_pair.input_tokens += input_tokens
            of_pair.output_tokens += output_tokens
            if usage is not None:
                of_pair.cached += calls * usage.cached
                of_pair.cache_written += calls * usage.cache_written
                of_pair.reasoning += calls * usage.reasoning
            if started_by:
                for above in set(started_by):
                    if above != agent:
                        known = _known(self._agents, above)
                        self._started[known] = self._started.get(known, 0) + cost
            if source == "provider":
                self._from_provider += cost
            if overrun:
                self._overrun += overrun
            if uncertain:
                self._uncertain += cost
        self._latest.clear()

    def add_many(
        self,
        name: str,
        agent: str | None,
        is_model: bool,
        amounts: Amounts,
        uncertain: int,
        cached: int,
        cache_written: int,
        reasoning: int,
    ) -> None:
        """Add many calls of one model or tool by one agent, as a ledger has summed them up.

        Args:
            name: The model or tool.
            agent: Whom to attribute them to.
            is_model: Whether it is a model.
            amounts: What they took together.
            uncertain: The nano-dollars of it that are an estimate.
            cached: Input tokens read from the provider's cache.
            cache_written: Input tokens written to it.
            reasoning: Output tokens that were reasoning.
        """
        sums = self._models if is_model else self._tools
        of_pair = sums.get((agent, name)) or self._new(sums, (agent, name))
        of_pair.cost += amounts.cost
        of_pair.calls += amounts.requests if is_model else amounts.tool_calls
        of_pair.input_tokens += amounts.input_tokens
        of_pair.output_tokens += amounts.output_tokens
        of_pair.cached += cached
        of_pair.cache_written += cache_written
        of_pair.reasoning += reasoning
        self._uncertain += uncertain

    @property
    def from_provider(self) -> int:
        """Nano-dollars that are providers' own figures."""
        self._add_up()
        return self._from_provider

    @property
    def overrun(self) -> int:
        """Nano-dollars above what was held."""
        self._add_up()
        return self._overrun

    @property
    def uncertain(self) -> int:
        """Nano-dollars that are estimates."""
        self._add_up()
        return self._uncertain

    @property
    def unpriced_calls(self) -> int:
        """Calls whose price, or a part of it, is not known."""
        self._add_up()
        return self._unpriced_calls

    @property
    def violations(self) -> int:
        """Calls that used more tokens than their estimate said they could."""
        self._add_up()
        return self._violations

    def over_time(self) -> list[SpentAt]:
        """The sums over time, as `Course.points`."""
        self._add_up()
        return self._course.points()

    def merge(self, child_id: str, child: Totals, at_s: float = 0.0) -> None:
        """Add all that a child session took, as it is known *at_s* seconds after the start."""
        self._add_up()
        child._add_up()
        for name in child._agents:
            _known(self._agents, name)
        for sums, added in ((self._models, child._models), (self._tools, child._tools)):
            for pair, each in added.items():
                (sums.get(pair) or self._new(sums, pair)).merge(each)
        for name, cost in child._started.items():
            name = _known(self._agents, name)
            self._started[name] = self._started.get(name, 0) + cost
        for name, each in child._children.items():
            self._child(name).merge(each)
        of_child = self._child(child_id)
        for each in (*child._models.values(), *child._tools.values()):
            of_child.merge(each)
        self._course.note(Posting(at_s, child_id, child_id, child.total(), 0, False, False, False))
        self._from_provider += child._from_provider
        self._overrun += child._overrun
        self._uncertain += child._uncertain
        self._unpriced_calls += child._unpriced_calls
        self._violations += child._violations

    def total(self) -> Amounts:
        """All of it together."""
        self._add_up()
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
        self._add_up()
        return {
            name: AgentSpend(total=to_usd(s.cost), calls=s.calls, with_started=to_usd(s.cost))
            for name, s in self._children.items()
        }

    def breakdown(self) -> Breakdown:
        """The sums by model and by tool."""
        self._add_up()
        models, tools = _by_name(self._models), _by_name(self._tools)
        return Breakdown(
            llm=LlmSpend(
                total=to_usd(sum(s.cost for s in models.values())),
                calls=sum(s.calls for s in models.values()),
                by_model=_by_model(models.items()),
            ),
            tools=ToolsSpend(
                total=to_usd(sum(s.cost for s in tools.values())),
                calls=sum(s.calls for s in tools.values()),
                by_tool=_by_tool(tools.items()),
            ),
        )

    def started(self) -> Mapping[str, int]:
        """What the agents cost that each one has started, in nano-dollars."""
        self._add_up()
        return self._started

    def by_agent(self, started: Mapping[str, int] | None = None) -> dict[str, AgentSpend]:
        """The sums by agent.

        Args:
            started: What the agents cost that each one has started, where somebody else knows that.
        """
        self._add_up()
        started = self._started if started is None else started
        models: dict[str, list[tuple[str, _Sum]]] = {}
        tools: dict[str, list[tuple[str, _Sum]]] = {}
        for sums, of_agents in ((self._models, models), (self._tools, tools)):
            for (agent, name), each in sums.items():
                if agent is not None:
                    of_agents.setdefault(agent, []).append((name, each))
        spends: dict[str, AgentSpend] = {}
        for agent in self._agents:
            called, used = models.get(agent, []), tools.get(agent, [])
            cost = sum(s.cost for _, s in (*called, *used))
            spends[agent] = AgentSpend(
                total=to_usd(cost),
                calls=sum(s.calls for _, s in (*called, *used)),
                with_started=to_usd(cost + started.get(agent, 0)),
                by_model=_by_model(called),
                by_tool=_by_tool(used),
            )
        return spends

    def _child(self, child_id: str) -> _Sum:
        if child_id not in self._children and len(self._children) >= _MOST_NAMES:
            child_id = _REST
        return _of(self._children, child_id)

    def _new(self, sums: _Pairs, pair: _Pair) -> _Sum:
        """The sum for *pair*, which has none: a new one, or that of the rest."""
        agent, name = pair
        if agent is not None:
            agent = _known(self._agents, agent)
        name = _known(sums.names, name)
        if (agent, name) not in sums and len(sums) >= _MOST_PAIRS:
            agent, name = None if agent is None else _REST, _REST
            sums.names.setdefault(name)
            if agent is not None:
                self._agents.setdefault(agent)
        return _of(sums, (agent, name))


def _known(names: dict[str, None], name: str) -> str:
    """*name*, from now on one of *names*, or the name of the rest where there are too many."""
    if name not in names:
        if len(names) >= _MOST_NAMES:
            name = _REST
        names.setdefault(name)
    return name


def _of(sums: dict[K, _Sum], key: K) -> _Sum:
    found = sums.get(key)
    if found is None:
        found = sums[key] = _Sum()
    return found


def _by_name(sums: _Pairs) -> dict[str, _Sum]:
    summed: dict[str, _Sum] = {}
    for (_, name), each in sums.items():
        _of(summed, name).merge(each)
    return summed


def _by_model(sums: Iterable[tuple[str, _Sum]]) -> dict[str, ModelSpend]:
    return {
        name: ModelSpend(
            total=to_usd(s.cost),
            calls=s.calls,
            input_tokens=s.input_tokens,
            cached_tokens=s.cached,
            cache_written_tokens=s.cache_written,
            output_tokens=s.output_tokens,
            reasoning_tokens=s.reasoning,
        )
        for name, s in sums
        if s.calls
    }


def _by_tool(sums: Iterable[tuple[str, _Sum]]) -> dict[str, ToolSpend]:
    return {name: ToolSpend(total=to_usd(s.cost), calls=s.calls) for name, s in sums}
