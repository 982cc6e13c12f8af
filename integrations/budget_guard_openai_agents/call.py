"""One attempt of one model call under the guards of its run: held, sent, settled."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from agents import AgentOutputSchemaBase, Handoff, ModelSettings, Tool, TResponseInputItem
from agents.exceptions import UserError
from agents.items import TResponseStreamEvent
from agents.models.interface import Model, ModelTracing

from budget_guard import InvalidDowngradeError
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.provider_words import FINAL_NOTE
from budget_guard.adapter.stops import Stop
from budget_guard_openai_agents.errors import recast
from budget_guard_openai_agents.guarded_run import GuardedRun
from budget_guard_openai_agents.translate import input_for, model_call, settings_for


class Arguments(NamedTuple):
    """What the SDK passes to a model, in its order and under its names: some by position, the others by keyword."""

    system_instructions: str | None
    input: str | list[TResponseInputItem]
    model_settings: ModelSettings
    tools: list[Tool]
    output_schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    previous_response_id: str | None = None
    conversation_id: str | None = None
    prompt: Any = None

    def stream_response(
        self, method: Callable[..., AsyncIterator[TResponseStreamEvent]]
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Call a model's *method* with them as the SDK calls this one: by position where it can."""
        *by_position, previous_response_id, conversation_id, prompt = self
        return method(
            *by_position, previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt
        )


class Attempt(GuardedCall):
    """One attempt of a model call. Every guard of the run holds its worst case before it is sent."""

    __slots__ = ("_final", "_stream", "arguments", "model", "run")

    never_sent = (UserError,)

    def __init__(self, run: GuardedRun, model: Model, arguments: Arguments, *, stream: bool) -> None:
        super().__init__(run.sessions)
        self.run = run
        self.model = model
        self.arguments = arguments
        self._stream = stream
        self._final = False

    async def admit(self) -> None:
        """Hold the worst case with every guard, and work out what to send to which model.

        Raises:
            BudgetError: In the SDK's terms, if a guard refuses. Nothing is held then.
        """
        run = self.run
        asked, agent = run.name_of(self.model), run.agent_of(self.arguments.input)
        stop = run.stopped() or await self._authorize(asked, agent)
        if stop is not None:
            run.stop(stop)
            if not run.may_finalize(stop.session):
                raise recast(stop.error)
            run.finalize(stop.session)
            self._final = True
            stop = await self._authorize(asked, agent)
            if stop is not None:
                raise recast(stop.error)

    async def _authorize(self, asked: str, agent: str | None) -> Stop | None:
        arguments, final = self.arguments, self._final
        handoffs = [] if final else arguments.handoffs
        call = model_call(
            model=self.model,
            name=asked,
            agent=agent,
            system_instructions=arguments.system_instructions,
            input=arguments.input,
            settings=arguments.model_settings,
            tools=arguments.tools,
            output_schema=arguments.output_schema,
            handoffs=handoffs,
            previous_response_id=arguments.previous_response_id,
            conversation_id=arguments.conversation_id,
            prompt=arguments.prompt,
            final=final,
        )
        for guard in self.run.guards:
            if guard.tool_costs.unseen:
                guard.tool_costs.saw(tool.name for tool in arguments.tools)
        stop = await self.ahold(call)
        if stop is not None:
            return stop
        called = self._name or asked
        try:
            if called != asked:
                self.model = self._downgraded(asked, called)
            settings = settings_for(
                self.model,
                arguments.model_settings,
                asked=asked,
                called=called,
                cap=self.output_cap,
                stream=self._stream,
                final=final,
            )
        except InvalidDowngradeError as error:
            await self.arelease("the cheaper model could not be made")
            return Stop(self.sessions[-1], error)
        except BaseException:  # a provider that cannot make the cheaper model
            await self.arelease("the call could not be made")
            raise
        items = arguments.input
        if final or called != asked:
            items = input_for(items, downgraded=called != asked, note=FINAL_NOTE if final else None)
        self.arguments = arguments._replace(model_settings=settings, handoffs=handoffs, input=items)
        return None

    def _downgraded(self, asked: str, target: str) -> Model:
        """A model that calls *target* in the place of the one asked for, over the same client. No agent is touched.

        Raises:
            InvalidDowngradeError: If the model is a custom one whose name cannot be changed.
        """
        provider = self.run.provider_of(self.model)
        if provider is not None:
            return provider.get_model(target)
        cheaper = copy.copy(self.model)
        try:
            if not isinstance(getattr(cheaper, "model", None), str):
                raise AttributeError("it has no name")
            object.__setattr__(cheaper, "model", target)  # the copy is ours, also where its class is frozen
        except AttributeError as error:
            raise InvalidDowngradeError(
                model=asked,
                target=target,
                reason=f"{type(self.model).__name__} has no `model` name that could be changed",
                remedy="Give the agent the model by name, with RunConfig(model_provider=...).",
            ) from error
        return cheaper
