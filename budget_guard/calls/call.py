"""Calls: a model call or a tool call that an adapter is about to make, in plain values."""

from __future__ import annotations

from typing import NamedTuple

from budget_guard.estimate.prompt import Prompt
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.units.amounts import unchecked


class ModelCall(NamedTuple):
    """One model call that an adapter is about to make, in plain values."""

    model: str
    """The model as the provider knows it."""
    prompt: Prompt
    """What the input weighs."""
    provider: str | None = None
    """The provider's name, for example ``"openai"``; None to find it by the model's name."""
    max_output_tokens: int | None = None
    """The output cap that the caller set; None where it set none."""
    can_cap: bool = True
    """Whether the adapter can send an output cap that the session asks for."""
    needs: frozenset[str] = frozenset()
    """Capabilities that the call needs: ``tools``, ``vision``, ``json_schema``, ``audio``."""
    service_tier: str | None = None
    """The provider's price tier asked for, for example ``"flex"``, or ``"fast"`` for Anthropic's speed of that name.
    None for its standard one."""
    choices: int = 1
    """How many answers are asked for."""
    hosted_tools: tuple[str, ...] = ()
    """Tools that the provider runs and bills by use, as `Usage` names them."""
    agent: str | None = None
    """The agent to attribute the call to."""
    hour_cache: bool = True
    """Whether its input may be written to a one-hour cache, which costs more than a short one."""
    final: bool = False
    """Whether this is the final answer that `Budget.finalization_reserve` is kept for."""
    downgrade: DowngradePolicy | None = None
    """How the caller would switch this call to a cheaper model; None to go by `Budget.downgrade`."""
    region: str | None = None
    """Where the answer is made, if the request or the host pins that: it may set the price."""
    kinds: frozenset[str] | None = None
    """What it may carry beside text, as `budget_guard.pricing.model_price.KINDS` names it. None where not known:
    the dearest is held."""
    alternatives: tuple[str, ...] = ()
    """Other models that may answer in its place, as a list of fallbacks names them: the dearest of all is held. No
    cheaper model takes the place of such a call: the others might still answer."""
    search_context: str | None = None
    """How much is searched, where the fee of a request goes by that, as `Serving.search_context` names it."""
    tool_fees: tuple[tuple[str, int], ...] = ()
    """What one use of a hosted tool costs, in nano-dollars, by its name in `hosted_tools`, where the caller knows that.
    It wins over the price table."""

    started_by: tuple[str, ...] = ()
    """The agents that have started its agent, the nearest first: a sub-agent's spend is a part of theirs, too."""

    @property
    def kind(self) -> tuple[object, ...]:
        """All but the prompt: calls of one kind are planned alike."""
        return self[0], self[2:]

    def with_prompt(self, prompt: Prompt, agent: str | None) -> ModelCall:
        """The same call with another *prompt*, by *agent*. As `_replace`, in a third of the time."""
        return unchecked(ModelCall, (self.model, prompt, *self[2:9], agent, *self[10:]))


class ToolCall(NamedTuple):
    """One tool call that an adapter is about to make."""

    tool: str
    cost: int = 0
    """What it is known to cost, in nano-dollars; 0 where it is free or only the result tells."""
    agent: str | None = None
    counts: bool = True
    """Whether it counts as a tool call. False of what one costs that an adapter counts already."""
    tracked: bool = False
    """Whether the function itself is held, by `Session.track_tool`. Else an adapter holds it, from above."""
    arguments: bytes | None = None
    """The `budget_guard.calls.loops.digest` of its arguments; None where no loops are looked for."""
    run: object = None
    """The run that it is a part of, by anything that can be hashed: loops are looked for within each."""
    started_by: tuple[str, ...] = ()
    """The agents that have started its agent, the nearest first."""


def name_of(call: ModelCall | ToolCall) -> str:
    """The model that is asked for, or the tool."""
    return call.model if isinstance(call, ModelCall) else call.tool
