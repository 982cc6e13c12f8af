"""One attempt of one model call under its guards: admitted, sent, settled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from agents import AgentOutputSchemaBase, Handoff, ModelResponse, ModelSettings, Tool, TResponseInputItem
from agents.exceptions import UserError
from agents.items import TResponseStreamEvent
from agents.models.interface import Model, ModelTracing

from budget_guard import BudgetError, InvalidDowngradeError, Reservation, Usage
from budget_guard.calls.settlement import never_billed
from budget_guard_openai_agents.downgraded import model_called
from budget_guard_openai_agents.errors import recast
from budget_guard_openai_agents.guarded_run import GuardedRun
from budget_guard_openai_agents.translate import input_for, model_call, settings_for

if TYPE_CHECKING:
    from budget_guard_openai_agents.guard import BudgetGuard

FINAL_NOTE = "The budget of this run is used up. Answer now with what you have. No more tools can be called."


class Arguments(NamedTuple):
    """What the SDK passes to a model, under its own names, and in the way it does: by keyword, or by position."""

    system_instructions: str | None
    input: str | list[TResponseInputItem]
    model_settings: ModelSettings
    tools: list[Tool]
    output_schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    previous_response_id: str | None
    conversation_id: str | None
    prompt: Any

    async def get_response(self, method: Callable[..., Awaitable[ModelResponse]]) -> ModelResponse:
        """Call a model's *method* with them."""
        return await method(**self._asdict())

    def stream_response(
        self, method: Callable[..., AsyncIterator[TResponseStreamEvent]]
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Call a model's *method* with them."""
        *by_position, previous_response_id, conversation_id, prompt = self
        return method(
            *by_position, previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt
        )


class GuardedCall:
    """One attempt. Every guard of the run holds its worst case before it is sent, and is settled on every way out."""

    def __init__(self, run: GuardedRun, model: Model, arguments: Arguments, *, stream: bool) -> None:
        self.run = run
        self.model = model
        self.arguments = arguments
        self._asked = run.name_of(model)
        self._agent = run.agent_of(arguments.input)
        self._stream = stream
        self._name = self._asked
        self._final = False
        self._holds: list[Reservation] = []

    async def admit(self) -> None:
        """Hold the worst case with every guard, and work out what to send to which model.

        Raises:
            BudgetError: In the SDK's terms, if a guard refuses. Nothing is held then.
        """
        refused = self.run.stopped() or await self._authorize(final=False)
        if refused is not None:
            guard, error = refused
            self.run.stop(guard, error)
            if not self.run.may_finalize(guard):
                raise recast(error)
            self.run.finalize(guard)
            self._final = True
            refused = await self._authorize(final=True)
            if refused is not None:
                raise recast(refused[1])

    async def _authorize(self, *, final: bool) -> tuple[BudgetGuard, BudgetError] | None:
        try:
            return await self._hold(final=final)
        except BaseException:  # a cancelled wait, a provider that cannot make the cheaper model
            await self._release("the call could not be made")
            raise

    async def _hold(self, *, final: bool) -> tuple[BudgetGuard, BudgetError] | None:
        arguments, name, caps = self.arguments, self._asked, list[int]()
        handoffs = [] if final else arguments.handoffs
        call = model_call(
            model=self.model,
            name=self._asked,
            agent=self._agent,
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
            guard.tool_costs.saw(tool.name for tool in arguments.tools)
        for guard in self.run.guards:
            decision = await guard.session.aauthorize(call._replace(model=name), sent=True)
            if decision.error is not None:
                await self._release("another budget of the run refused the call")
                return guard, decision.error
            self._holds.append(decision.require())
            name = decision.name  # what the next guard is asked for
            if decision.output_cap is not None:
                caps.append(decision.output_cap)
        try:
            self.model = model_called(self.run, self.model, self._asked, name)
        except InvalidDowngradeError as error:
            await self._release("the cheaper model could not be made")
            return self.run.guards[-1], error
        self._name = name
        self.arguments = arguments._replace(
            model_settings=settings_for(
                self.model,
                arguments.model_settings,
                asked=self._asked,
                called=name,
                cap=min(caps, default=None),
                stream=self._stream,
                final=final,
            ),
            handoffs=handoffs,
            input=input_for(arguments.input, downgraded=name != self._asked, note=FINAL_NOTE if final else None),
        )
        return None

    async def commit(self, usage: Usage | None) -> None:
        """Book what the provider billed; the estimate where it did not say."""
        for hold in self._holds:
            await hold.acommit(usage, model=self._name)

    async def fail(self, error: BaseException) -> None:
        """Settle a call that ended in *error*: given back only if it provably was not billed."""
        reason = f"{type(error).__name__}: {error}"[:200]
        if isinstance(error, UserError) or never_billed(error):  # the SDK itself refused to send it
            await self._release(reason)
        else:
            for hold in self._holds:
                await hold.acommit_estimate(reason)

    def cut_short(self, output_tokens: int | None) -> tuple[BudgetGuard, BudgetError] | None:
        """The stop that an answer is when a guard's own output cap cut it off.

        Args:
            output_tokens: What the answer took; None where it is known to be cut.
        """
        if self._final:
            return None  # half a final answer is better than none
        for guard, hold in zip(self.run.guards, self._holds, strict=False):  # nothing is held once it is released
            if output_tokens is None or output_tokens >= hold.amounts.output_tokens:
                error = hold.cut_short()
                if error is not None:
                    return guard, error
        return None

    async def _release(self, reason: str) -> None:
        for hold in self._holds:
            await hold.arelease(reason)
        self._holds.clear()

    def interruption(self, deltas: int) -> tuple[BudgetGuard, BudgetError] | None:
        """Why the stream must not go on after *deltas* pieces of output."""
        for guard, hold in zip(self.run.guards, self._holds, strict=True):
            error = hold.interruption(deltas)
            if error is not None:
                return guard, error
        return None
