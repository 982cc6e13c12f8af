"""Spend: the values of a report, by model, tool, agent, task, limit and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from budget_guard.reporting.course import SpentAt

Outcome: TypeAlias = Literal["ok", "failed", "stopped", "abandoned"]
"""How a run ended: with a result, with an error, at a limit, or not at all as far as is known."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpend(_Value):
    """The spend of one model."""

    total: Decimal = Decimal(0)
    """Dollars."""
    calls: int = 0
    input_tokens: int = 0
    """Cached ones included."""
    output_tokens: int = 0
    """Reasoning included."""
    cached_tokens: int = 0
    """Input read from the provider's cache."""
    cache_written_tokens: int = 0
    """Input written to it."""
    reasoning_tokens: int = 0


class LlmSpend(_Value):
    """The spend of all model calls."""

    total: Decimal = Decimal(0)
    """Dollars."""
    calls: int = 0
    by_model: dict[str, ModelSpend] = Field(default_factory=dict[str, ModelSpend])


class ToolSpend(_Value):
    """The spend of one tool."""

    total: Decimal = Decimal(0)
    """Dollars."""
    calls: int = 0


class ToolsSpend(_Value):
    """The spend of all tool calls."""

    total: Decimal = Decimal(0)
    """Dollars."""
    calls: int = 0
    by_tool: dict[str, ToolSpend] = Field(default_factory=dict[str, ToolSpend])


class Breakdown(_Value):
    """Spend by what it was for."""

    llm: LlmSpend
    tools: ToolsSpend


class AgentSpend(_Value):
    """The spend of one agent: its model and tool calls together."""

    total: Decimal = Decimal(0)
    """Dollars, for the calls that it made itself."""
    calls: int = 0
    with_started: Decimal = Decimal(0)
    """Dollars, with those of all agents that it has started, and that these have. So the sum of these is more than was
    spent."""
    by_model: dict[str, ModelSpend] = Field(default_factory=dict[str, ModelSpend])
    """What it called itself."""
    by_tool: dict[str, ToolSpend] = Field(default_factory=dict[str, ToolSpend])


class TaskSpend(_Value):
    """The spend of one kind of work, as `Budget.task` names it."""

    total: Decimal = Decimal(0)
    """Dollars."""
    calls: int = 0
    """Model calls."""
    tool_calls: int = 0
    runs: int = 1


class LimitUse(_Value):
    """How much of one limit is used: dollars, tokens, calls or seconds."""

    scope: str
    """Whose limit it is, as ``kind:id``: the run's own, or that of a user, a team, an agent."""
    name: str
    """The field of the `Budget` that sets it."""
    limit: Decimal
    spent: Decimal
    held: Decimal = Decimal(0)
    """What calls in flight may still take."""
    resets_at: datetime | None = None
    """When it begins anew; None if it does not."""

    @property
    def fraction(self) -> float:
        """The part that is spent, 1.0 for all of it; more after an overrun."""
        return float(self.spent / self.limit) if self.limit else 1.0

    @property
    def left(self) -> Decimal:
        """What is neither spent nor held. Negative after an overrun."""
        return self.limit - self.spent - self.held


class RunSpend(_Value):
    """One run of a report that is a sum of several."""

    session_id: str
    task: str | None = None
    budget: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The limits and policies that are set."""
    total_spent: Decimal
    """Dollars committed."""
    remaining: Decimal | None = None
    """Dollars; None without a dollar limit."""
    terminated_by: str | None = None
    """What stopped it."""


class SpendValues(_Value):
    """The values of a `BudgetReport`, which adds the ways to read them."""

    session_id: str
    budget: dict[str, Any]
    """The limits and policies that are set. Empty for a sum of several reports: see `runs`."""
    tags: dict[str, str]
    """The principals that the run is attributed to, by kind."""
    total_spent: Decimal
    """Dollars committed."""
    reserved: Decimal
    """Dollars held for calls in flight."""
    remaining: Decimal | None
    """Dollars: limit - committed - reserved; None without a dollar limit. Negative after an overrun."""
    breakdown: Breakdown
    by_agent: dict[str, AgentSpend]
    by_child: dict[str, AgentSpend] = Field(default_factory=dict[str, AgentSpend])
    """What child sessions took that are closed. It is part of everything else as well."""
    duration_seconds: float
    """From the first call to the last thing that happened, or to now while the session is open."""
    terminated_by: str | None
    """What stopped the run, unless it has gone on since: the name of a limit, or ``output_cap``, ``revoked``,
    ``unknown_price``, ``unbounded``, ``downgrade``, ``ledger``, ``foreign_run``."""
    unpriced_calls: int
    """Calls whose price, or part of it, is not known: the total leaves that part out or estimates it."""
    uncertain: Decimal
    """Dollars in the total that are estimates, because the actual usage never came."""
    from_provider: Decimal = Decimal(0)
    """Dollars in the total that are the providers' own figures, and not usage at known prices."""
    overrun: Decimal
    """Dollars charged above what was held."""
    bound_violations: int
    """Calls that used more than their estimate said they could."""
    events: SkipValidation[
        list[dict[str, Any]]
    ]  # plain values already: to look at each takes a third of a report's time
    """The latest events, oldest first."""

    limits: list[LimitUse] = Field(default_factory=list[LimitUse])
    """How much of every limit is used: the run's own first, then the ceilings that it is under."""
    by_task: dict[str, TaskSpend] = Field(default_factory=dict[str, TaskSpend])
    """By kind of work, where `Budget.task` names it."""
    runs: list[RunSpend] = Field(default_factory=list[RunSpend])
    """The runs that a sum of reports is made of; empty for the report of one run."""
    started_at: datetime | None = None
    """When the first call came; None before it."""
    over_time: list[SpentAt] = Field(default_factory=list[SpentAt])
    """What was spent at which time, some hundreds of points at most, the last one exact. Money is in nano-dollars."""
    marks: SkipValidation[list[dict[str, Any]]] = Field(default_factory=list[dict[str, Any]])
    """Events of the whole run that a picture of it marks: soft limits, switches, stops, cut-offs and the like. Of a
    switch or a stop that comes again and again, the first one."""

    spent_here: Decimal | None = None
    """Dollars of the total that this session has spent, where others have spent from the same run and the breakdown has
    theirs as well."""

    @property
    def spent_elsewhere(self) -> Decimal:
        """Dollars of the total that other sessions of the same run have spent. The breakdown has them where the ledger
        has a usage history."""
        return self.total_spent - self.total_spent_here

    @property
    def total_spent_here(self) -> Decimal:
        """Dollars of the total that this session has spent."""
        return self.breakdown.llm.total + self.breakdown.tools.total if self.spent_here is None else self.spent_here

    @property
    def input_tokens(self) -> int:
        """Cached ones included."""
        return sum(model.input_tokens for model in self.breakdown.llm.by_model.values())

    @property
    def output_tokens(self) -> int:
        """Reasoning included."""
        return sum(model.output_tokens for model in self.breakdown.llm.by_model.values())

    @property
    def own_limits(self) -> list[LimitUse]:
        """The limits that the run has itself."""
        return [each for each in self.limits if each.scope == f"run:{self.session_id}"]


def as_plain(value: Any) -> Any:
    """*value* in JSON's own types, dollars as text, so that a report reads the same after a trip through JSON."""
    if isinstance(value, Mapping):
        return {str(name): as_plain(inner) for name, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in cast("Sequence[Any]", value)]
    return f"{value:f}" if isinstance(value, Decimal) else value
