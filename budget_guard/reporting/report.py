"""Reports: the spend of a run, by model, tool and agent, and the reason why it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field

from budget_guard.units.money import cost_nano, format_usd

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


class BudgetReport(_Value):
    """The spend of a run, exact to the nano-dollar. ``print(report)`` gives one line."""

    session_id: str
    budget: dict[str, Any]
    """The limits and policies that are set."""
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
    events: list[dict[str, Any]]
    """The latest events, oldest first."""

    def __str__(self) -> str:
        parts = [f"Total spend: {_usd(self.total_spent)}"]
        if self.remaining is not None:
            parts.append(f"Remaining: {_usd(self.remaining)}")
        llm, tools = self.breakdown.llm, self.breakdown.tools
        parts += [f"LLM: {_usd(llm.total)}", f"Tools: {_usd(tools.total)}", f"Calls: {llm.calls}"]
        for words, amount in (("Held", self.reserved), ("Uncertain", self.uncertain), ("Overrun", self.overrun)):
            if amount:
                parts.append(f"{words}: {_usd(amount)}")
        if self.unpriced_calls:
            parts.append(f"Unpriced calls: {self.unpriced_calls}")
        if self.terminated_by:
            parts.append(f"Stopped by: {self.terminated_by}")
        return " | ".join(parts)


def as_plain(value: Any) -> Any:
    """*value* in JSON's own types, dollars as text, so that a report reads the same after a trip through JSON."""
    if isinstance(value, Mapping):
        return {str(name): as_plain(inner) for name, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in cast("Sequence[Any]", value)]
    return f"{value:f}" if isinstance(value, Decimal) else value


def _usd(amount: Decimal) -> str:
    return format_usd(cost_nano(amount))
