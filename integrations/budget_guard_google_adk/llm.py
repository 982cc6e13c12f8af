"""`BudgetLlm`: an ADK model under a budget. `BudgetPlugin`: the polite end of a run that it has stopped."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, cast

from google.adk.agents.callback_context import CallbackContext
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.models.registry import LLMRegistry
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.genai import types
from pydantic import PrivateAttr

from budget_guard import Budget, Session, UnboundedCallError
from budget_guard.adapter import GuardedCall, ModelGuard, check_instance, latch_of, session_of, with_prefix_of
from budget_guard_google_adk.errors import BudgetStop, stops
from budget_guard_google_adk.request import Reader, model_call

_OWNER = 'BudgetLlm(model, Budget("$5.00"))'
ERROR_CODE = "BUDGET_EXCEEDED"
"""The ``error_code`` of the response with which `BudgetPlugin` ends a run."""


class BudgetLlm(BaseLlm):
    """A model whose every request is held in a budget before it is sent, streamed or not.

    ::

        agent = LlmAgent(name="helper", model=BudgetLlm("gemini-2.5-flash", Budget("$1.00")))

    Several agents spend from one budget if they are given the same session.

    Args:
        model: The model, or its name as ADK knows it.
        guard: The budget, or the session to spend from.
        agent: Whom to attribute its calls to.

    Raises:
        TypeError: If *model* is a class or no model, or *guard* is no budget and no session.
        ValueError: If ADK knows no model of that name.
    """

    _inner: BaseLlm = PrivateAttr()
    _guard: ModelGuard = PrivateAttr()

    def __init__(self, model: BaseLlm | str, guard: Budget | Session, *, agent: str | None = None) -> None:
        inner = LLMRegistry.new_llm(model) if isinstance(model, str) else model
        check_instance("model", inner, BaseLlm, "model of ADK", _OWNER)
        guarded = ModelGuard(guard, stops, owner=_OWNER, agent=agent)
        super().__init__(model=inner.model)
        self._inner = inner
        self._guard = guarded

    @property
    def session(self) -> Session:
        """The session that it spends from."""
        return self._guard.session

    @property
    def capabilities(self) -> Any:
        """What the model can do."""
        return self._inner.capabilities

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Ask the model, once the worst case is held."""
        guard = self._guard
        name = llm_request.model or self._inner.model
        held = await guard.ahold(model_call(llm_request, name, agent=guard.agent))
        for called, tool in llm_request.tools_dict.items():  # those that ADK runs when the answer asks for them
            llm_request.tools_dict[called] = _around(tool, guard)
        responses = self._inner.generate_content_async(_to_send(llm_request, name, held), stream)
        reader = Reader()
        async with aclosing(guard.astream(held, responses, reader.read, reader.answered)) as guarded:
            async for response in guarded:
                yield response

    def connect(self, llm_request: LlmRequest) -> AbstractAsyncContextManager[Any]:
        """Refused: what goes over a live connection cannot be held."""
        raise stops.recast(
            UnboundedCallError(
                model=self.model,
                reason="what goes over a live connection cannot be held, so it is not opened",
                remedy="Use run_async, or give a live agent the model that is not guarded.",
            )
        )


def _to_send(request: LlmRequest, name: str, held: GuardedCall) -> LlmRequest:
    """*request* with the model and the output cap that the budget decided on. The request itself is not changed."""
    changes: dict[str, Any] = {}
    if held.name is not None and held.name != name:
        changes["model"] = with_prefix_of(name, held.name)
    if held.output_cap is not None and held.output_cap != request.config.max_output_tokens:
        changes["config"] = request.config.model_copy(update={"max_output_tokens": held.output_cap})
    return request.model_copy(update=changes) if changes else request


def _around(tool: BaseTool, guard: ModelGuard) -> BaseTool:
    """A copy of *tool*: what stops an agent that it runs, under another budget, stops the agent of *guard* as well."""
    clone: Any = copy.copy(tool)

    async def run_async(**given: Any) -> Any:
        with guard.around():
            return await tool.run_async(**given)

    clone.run_async = run_async
    return cast(BaseTool, clone)


class BudgetPlugin(BasePlugin):
    """Ends a run that its budget has stopped with a last response, in place of an error.

    It counts nothing: the models of the run's agents are `BudgetLlm`, in the same session. The response's
    ``error_code`` is "BUDGET_EXCEEDED", its ``error_message`` the stop.

    Args:
        guard: The session whose stops it takes.
        message: What the response says to the user; None for the stop's own ``user_message``.

    Raises:
        TypeError: If *guard* is no session and no budget.
    """

    def __init__(self, guard: Budget | Session, *, message: str | None = None, name: str = "budget") -> None:
        super().__init__(name=name)
        self.session = session_of(guard, "BudgetPlugin(session), and BudgetLlm(model, session)")
        """The session. Give it to the models."""
        self.message = message
        self._latch = latch_of(self.session)

    async def on_model_error_callback(
        self, *, callback_context: CallbackContext, llm_request: LlmRequest, error: Exception
    ) -> LlmResponse | None:
        """Give the last response in place of a stop of the session."""
        stop = self._latch.get()
        if not isinstance(error, BudgetStop) or stop is None or str(stop.error) != str(error):
            return None
        said = self.message or stop.error.user_message
        return LlmResponse(
            error_code=ERROR_CODE,
            error_message=str(error),
            content=types.Content(role="model", parts=[types.Part(text=said)]),
            turn_complete=True,
        )
