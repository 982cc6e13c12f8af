"""One attempt of one model call under the guards of its run: held, sent, settled."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from agents import (
    AgentOutputSchemaBase,
    Handoff,
    ModelResponse,
    ModelSettings,
    OpenAIResponsesModel,
    Tool,
    TResponseInputItem,
)
from agents.exceptions import ModelBehaviorError, UserError
from agents.items import TResponseStreamEvent
from agents.models.interface import Model, ModelTracing
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from budget_guard import BudgetError, InvalidDowngradeError, ModelCall, Session, UnknownPriceError
from budget_guard.adapter.attempts import AddField
from budget_guard.adapter.guarded_call import GuardedCall, Steps
from budget_guard.adapter.provider_words import FINAL_NOTE
from budget_guard.adapter.stops import Stop
from budget_guard.calls.call import ToolCall
from budget_guard.wire import Answer, explain_refusal
from budget_guard_openai_agents.answer import usage_of
from budget_guard_openai_agents.errors import BudgetStop, recast
from budget_guard_openai_agents.guarded_run import GuardedRun, open_calls
from budget_guard_openai_agents.look import look_of
from budget_guard_openai_agents.request import Asked, endpoint_for, read_request
from budget_guard_openai_agents.translate import input_for, settings_for


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


_DEARER_TIERS = frozenset({"priority"})
"""Tiers that cost more than the standard one, and that a project may have for its default."""


class Attempt(GuardedCall):
    """One attempt of a model call. Every guard of the run holds its worst case before it is sent."""

    __slots__ = (
        "_asked_with",
        "_final",
        "_stream",
        "add_fields",
        "added",
        "arguments",
        "asked",
        "inner",
        "model",
        "refusal",
        "run",
    )

    never_sent = (UserError,)

    def __init__(self, run: GuardedRun, model: Model, arguments: Arguments, *, stream: bool) -> None:
        super().__init__(run.sessions)
        self.run = run
        self.model = model
        self.arguments = arguments
        self.asked: Asked
        """The call as it is asked for."""
        self.add_fields: frozenset[AddField] = run.add_fields
        self.added: tuple[str, ...] = ()
        """The fields that were added to the request."""
        self.inner = 0
        """How many guarded models were called inside this call."""
        self.refusal: Stop | None = None
        """Why a request of it was not sent."""
        self._stream = stream
        self._final = False
        self._asked_with = arguments.input

    def asked_of(self, session: Session, call: ModelCall | ToolCall) -> ModelCall | ToolCall:
        """*call*, as *session* has to see it: it knows only the reasoning that it has seen made."""
        call = super().asked_of(session, call)
        ids = self.asked.request.reasoning_ids
        if ids and isinstance(call, ModelCall) and self.run.unknown_reasoning(session, ids):
            opaque = (*call.prompt.opaque, "reasoning of another session, kept by the provider")
            return call._replace(prompt=call.prompt._replace(opaque=opaque, conversation=0))
        return call

    def _once(self, steps: Steps[None], *, given_up: bool = False) -> Steps[None]:
        open_calls.end(self)
        return super()._once(steps, given_up=given_up)

    def note_refusal(self, stop: Stop) -> None:
        """Remember why a request was not sent."""
        self.refusal = self.refusal or stop

    @property
    def raw_answer(self) -> Answer | None:
        """What the raw answer said, where the look at the transport has read and booked it already."""
        if self.below is None or not self.below.settled or self.answer is None or self.answer.usage is None:
            return None
        return self.answer

    async def aanswered(self, answer: Answer) -> Answer:
        """Book what the answer says, or what the raw answer said.

        Args:
            answer: What the SDK says of it.

        Returns:
            What was booked.
        """
        await self.acommit_answer(answer)
        booked = self.answer or answer
        tier, request = booked.tier, self.asked.request
        if tier in _DEARER_TIERS and not request.tier and (look := look_of(self.model)) is not None:
            look.served_tiers[request.model] = tier
        self.run.note_reasoning((*booked.reasoning_ids, *answer.reasoning_ids))
        return booked

    async def afailed(self, error: BaseException) -> Stop | None:
        """Settle a call that ended in *error*. Returns the stop that it is, if it is one.

        Where the endpoint refused a field that was added here, the error says so.
        """
        if self.refusal is not None:
            await self.arelease("it was not sent")  # what was sent before, if anything, is settled
            return self.refusal
        await self.afail(error)
        if self.added:
            explain(error, self.added)
        answer = self.answer
        cut_off = isinstance(error, ModelBehaviorError) if answer is None else answer.cut_off
        return self.cut_short(known=True) if cut_off else None

    def cut_short_by(self, answer: Answer) -> Stop | None:
        """The stop that *answer* is, if a guard's own output cap has cut it off.

        The provider's reason to finish tells: an answer of exactly the cap may be whole. Where only the SDK tells of
        the answer, which drops that reason, its length has to tell.
        """
        return self.cut_short(answer.usage if self.below is None else None, known=answer.cut_off)

    def keeps(self, stop: Stop) -> bool:
        """Whether the guard that stops the call keeps what has come of an answer."""
        return self.run.guard_of(stop.session).on_cut_off == "keep"

    @property
    def partial_output(self) -> str:
        """The text of an answer that was cut off, as the provider wrote it."""
        return "" if self.answer is None else self.answer.text

    def kept(self, stop: Stop) -> ModelResponse | None:
        """The answer that a guard keeps though the SDK takes it for an error, as it does with one that is incomplete.

        None where there is none to keep.
        """
        answer = self.answer
        if self.refusal is not None or answer is None or not answer.text or answer.calls_tools or not self.keeps(stop):
            return None
        content: list[Any] = [ResponseOutputText(text=answer.text, type="output_text", annotations=[])]
        message = ResponseOutputMessage(
            id=answer.id or "msg_cut_off", type="message", role="assistant", status="incomplete", content=content
        )
        return ModelResponse(output=[message], usage=usage_of(answer), response_id=answer.id)

    def stopped(self, stop: Stop, partial_output: str) -> BudgetError:
        """The error of a stop of this call, to be raised: noted in the run, and with what has come of the answer."""
        self.run.stop(stop)
        error = recast(stop.error)
        error.partial_output = partial_output or None
        if isinstance(error, BudgetStop):
            error.partial_of = self.run.agent_of(self._asked_with)
        return error

    async def admit(self) -> None:
        """Hold the worst case with every guard, and work out what to send to which model.

        Raises:
            BudgetError: In the SDK's terms, if a guard refuses. Nothing is held then.
        """
        run = self.run
        open_calls.settle_lost()
        asked, agent = run.name_of(self.model), run.agent_of(self.arguments.input)
        if run.ambient:
            for guard in run.guards:
                await guard.hand_over(self.arguments.input)
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
        open_calls.begin(self)

    async def _authorize(self, name: str, agent: str | None) -> Stop | None:
        arguments, final = self.arguments, self._final
        handoffs = [] if final else arguments.handoffs
        self.asked = sent = read_request(
            model=self.model,
            name=name,
            system_instructions=arguments.system_instructions,
            input=arguments.input,
            settings=arguments.model_settings,
            tools=arguments.tools,
            output_schema=arguments.output_schema,
            handoffs=handoffs,
            previous_response_id=arguments.previous_response_id,
            conversation_id=arguments.conversation_id,
            prompt=arguments.prompt,
        )
        asked = sent.request.model
        call = sent.call(agent=agent, can_cap="output_cap" in self.add_fields, final=final)
        if self.run.started_by:
            call = call._replace(started_by=self.run.started_by)
        for guard in self.run.guards:
            if guard.tool_costs.unseen:
                guard.tool_costs.saw(tool.name for tool in arguments.tools)
        look = look_of(self.model)
        tier = look.served_tiers.get(asked) if look is not None and sent.request.tier in (None, "auto") else None
        stop = await self.ahold(call if tier is None else call._replace(service_tier=tier))
        if stop is not None and tier is not None and isinstance(stop.error, UnknownPriceError):
            stop = await self.ahold(call)  # no price is known for that tier
        if stop is not None:
            return stop
        called = self._name or asked
        try:
            if called != asked:
                self.model = self._downgraded(asked, called)
                sent = sent._replace(endpoint=endpoint_for(self.model, called))
            settings, self.added = settings_for(
                self.model,
                arguments.model_settings,
                asked=sent,
                called=called,
                cap=self.output_cap,
                ask_for_usage=self._stream and "usage" in self.add_fields and asks_for_usage(self.model, sent),
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
            if hasattr(cheaper, "_model_is_explicit"):
                object.__setattr__(cheaper, "_model_is_explicit", True)
        except AttributeError as error:
            raise InvalidDowngradeError(
                model=asked,
                target=target,
                reason=f"{type(self.model).__name__} has no `model` name that could be changed",
                remedy="Give the agent the model by name, with RunConfig(model_provider=...).",
            ) from error
        return cheaper


def asks_for_usage(model: Model, sent: Asked) -> bool:
    """Whether a stream has to be asked for its usage, and the endpoint takes that."""
    return not isinstance(model, OpenAIResponsesModel) and sent.endpoint.takes_usage_option


def explain(error: BaseException, added: tuple[str, ...]) -> None:
    """Let *error* say who added the field that an endpoint complains of."""
    status: object = getattr(error, "status_code", None)
    said = explain_refusal(added, status, getattr(error, "body", None) or str(error))
    if said is not None:
        message = f"{error} ({said})"
        error.args = (message, *error.args[1:])
        if isinstance(getattr(error, "message", None), str):
            error.message = message  # type: ignore[attr-defined]  # the client's own errors have it
