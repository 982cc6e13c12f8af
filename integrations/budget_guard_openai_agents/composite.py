"""Several hooks as one: the SDK takes a single `RunHooks`."""

from __future__ import annotations

from typing import Any

from agents import Agent, AgentHookContext, ModelResponse, RunContextWrapper, RunHooks, Tool, TResponseInputItem
from agents.lifecycle import RunHooksBase


class CompositeRunHooks(RunHooks[Any]):
    """Calls each of *hooks* in turn, in the order given. Guards inside are found, however deep.

    An exception ends the turn: the hooks after the one that raised are not called. Put the guard first to have it
    decide before anything else happens.

    Args:
        *hooks: Any number of `RunHooks`, composites among them.

    Raises:
        TypeError: If something is no `RunHooks`.
    """

    def __init__(self, *hooks: RunHooks[Any]) -> None:
        for hook in hooks:
            # a class in place of its instance is the usual slip
            if not isinstance(hook, RunHooksBase):
                raise TypeError(f"CompositeRunHooks takes RunHooks objects, not {hook!r}: pass an instance")
        self.hooks: tuple[RunHooks[Any], ...] = hooks

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        for hook in self.hooks:
            await hook.on_llm_start(context, agent, system_prompt, input_items)

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        for hook in self.hooks:
            await hook.on_llm_end(context, agent, response)

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Any) -> None:
        for hook in self.hooks:
            await hook.on_agent_start(context, agent)

    async def on_agent_end(self, context: AgentHookContext[Any], agent: Any, output: Any) -> None:
        for hook in self.hooks:
            await hook.on_agent_end(context, agent, output)

    async def on_handoff(self, context: RunContextWrapper[Any], from_agent: Any, to_agent: Any) -> None:
        for hook in self.hooks:
            # by keyword, as the SDK does: hooks may take it only so
            await hook.on_handoff(context=context, from_agent=from_agent, to_agent=to_agent)

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Any, tool: Tool) -> None:
        for hook in self.hooks:
            await hook.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Any, tool: Tool, result: Any) -> None:
        for hook in self.hooks:
            await hook.on_tool_end(context, agent, tool, result)
