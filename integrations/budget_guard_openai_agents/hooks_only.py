"""The guard's fallback where another runner than ours has started the run: holds by hooks alone."""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from typing import Any

from agents import Agent, ModelResponse, RunContextWrapper, TResponseInputItem
from agents.models.default_models import get_default_model
from agents.models.interface import Model

from budget_guard import Session
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard_openai_agents.answer import answer_of
from budget_guard_openai_agents.errors import recast
from budget_guard_openai_agents.guarded_run import ToolHolds, open_calls
from budget_guard_openai_agents.request import Asked, read_request

_MOST_RUNS = 1_000
"""Runs whose tool calls are told apart."""


class HooksOnly:
    """Holds each call of an agent from ``on_llm_start`` to ``on_llm_end``. Warns once of what it cannot see."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.tools = ToolHolds()
        self.calls: dict[int, GuardedCall] = {}
        """The calls that are held, by the id of their run's context."""
        self._asked: dict[int, Asked] = {}
        self._items: dict[int, object] = {}
        self._gone: deque[GuardedCall] = deque()
        """Those whose context is gone. It goes wherever the garbage is collected, and there no lock can be taken."""
        self._trails: dict[int, tuple[object, object]] = {}
        self._warned = False

    async def reserve(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """Hold the call that is about to be made.

        Raises:
            BudgetError: In the SDK's terms, if it is refused.
        """
        self._warn()
        self.sweep()
        failed, _ = self._pop(id(context))
        if failed is not None:
            await failed.aestimate("the call failed unseen")
        instance = agent.model if isinstance(agent.model, Model) else None
        name = agent.model if instance is None else getattr(instance, "model", None) or type(instance).__name__
        asked = read_request(
            model=instance,
            name=str(name or get_default_model()),
            system_instructions=system_prompt,
            input=input_items,
            settings=agent.model_settings,
            tools=agent.tools,
            output_schema=None,
            handoffs=[],
        )
        held = GuardedCall((self._session,))
        stop = await held.ahold(asked.call(agent=agent.name, can_cap=False, final=False))
        if stop is not None:
            raise recast(stop.error)
        self.calls[id(context)] = held
        self._asked[id(context)] = asked
        self._items[id(context)] = input_items
        open_calls.begin(held)
        weakref.finalize(context, self._abandoned, id(context), held)

    def trail_of(self, context: RunContextWrapper[Any]) -> object:
        """What the tool calls of a run are known by: all of them are given the same object to count usage in."""
        usage = context.usage
        kept, trail = self._trails.get(id(usage), (None, None))
        if kept is not usage:
            trail = object()
            self._trails[id(usage)] = (usage, trail)
            if len(self._trails) > _MOST_RUNS:
                del self._trails[next(iter(self._trails))]
        return trail

    async def commit(self, context: RunContextWrapper[Any], response: ModelResponse) -> None:
        """Book what the call used, if it was held here."""
        call, asked = self._pop(id(context))
        if call is not None and asked is not None:
            await call.acommit_answer(answer_of(response, asked.request))

    async def hand_over(self, items: object) -> None:
        """Give back the hold of the call with these input *items*: its model accounts for it."""
        for context_id, held in list(self._items.items()):
            if held is items:
                call, _ = self._pop(context_id)
                if call is not None:
                    await call.arelease("its model accounts for it")

    def sweep(self) -> None:
        """Book the calls whose run is gone."""
        while self._gone:
            self._gone.popleft().estimate("the run ended unseen")

    def _pop(self, context_id: int) -> tuple[GuardedCall | None, Asked | None]:
        self._items.pop(context_id, None)
        call = self.calls.pop(context_id, None)
        if call is not None:
            open_calls.end(call)
        return call, self._asked.pop(context_id, None)

    def _abandoned(self, context_id: int, call: GuardedCall) -> None:
        if self.calls.get(context_id) is call:
            self._pop(context_id)
            self._gone.append(call)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "Another agent runner is in charge, so BudgetGuard sees its runs through hooks alone: sub-agents, "
                "guardrail agents and retries are not covered, no output cap is sent and no model is replaced. "
                "Pass run_config=guard.run_config(), or use agents.Runner.",
                RuntimeWarning,
                stacklevel=2,
            )
