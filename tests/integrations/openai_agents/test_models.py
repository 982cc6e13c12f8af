"""Model objects stay what they were to everybody else: to their owner, to other agents, to runs without a guard."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import pytest

pytest.importorskip("agents")

import agents
from agents import (
    Agent,
    Model,
    ModelResponse,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Usage,
)
from openai.types.responses import Response, ResponseCompletedEvent

from budget_guard import Budget, UnboundedCallError
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import Reply
from budget_guard_openai_agents.model import discover_models
from tests.integrations.openai_agents.support import (
    BIG,
    NANO,
    SMALL,
    DelegatingModel,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    lookup,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


class FrozenModel(DelegatingModel):
    """A user's own model that lets nobody set anything."""

    def __init__(self, inner: Model) -> None:
        vars(self).update(inner=inner, model=BIG)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class SlottedModel(DelegatingModel):
    """A user's own model with slots."""

    __slots__ = ("inner", "model")


class PicklableModel(DelegatingModel):
    """A user's own model that can be pickled: it holds no connection."""

    def __init__(self, inner: Model | None = None, name: str = BIG) -> None:
        super().__init__(inner, name)  # type: ignore[arg-type]  # set before it is called

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PicklableModel) and self.model == other.model

    __hash__ = None  # type: ignore[assignment]  # equal, so not hashable: nobody may use it as a key


MODELS: dict[str, Callable[[Lab], Model]] = {
    "responses": lambda lab: lab.responses(),
    "chat": lambda lab: lab.chat(),
    "custom": lambda lab: DelegatingModel(lab.responses()),
    "frozen": lambda lab: FrozenModel(lab.responses()),
    "slotted": lambda lab: SlottedModel(lab.responses()),
    "equal": lambda lab: PicklableModel(lab.responses()),
}
kinds = pytest.mark.parametrize("kind", MODELS)


@modes
@kinds
async def test_a_model_is_the_same_object_of_the_same_type_after_a_guarded_run(lab: Lab, kind: str, mode: str) -> None:
    model = MODELS[kind](lab)
    cls, before = type(model), dict(vars(model))
    agent = agent_named("Worker", model)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent, hooks=guard)
    assert agent.model is model
    assert isinstance(model, cls)
    assert type(model).__name__ == cls.__name__
    assert type(model).__module__ == cls.__module__
    assert vars(model) == before
    agree(lab.provider, guard)


@modes
@kinds
async def test_a_guarded_model_passes_calls_through_where_no_guard_is(lab: Lab, kind: str, mode: str) -> None:
    agent = agent_named("Worker", MODELS[kind](lab))
    await lab.run(mode, agent, "go")
    plain = lab.calls[0].body
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent, "go", hooks=guard)
    spent = guard.spent_usd
    lab.script(Reply())
    result = await lab.run(mode, agent, "go")
    assert result.final_output == "ok"
    assert lab.calls[0].body == plain
    assert guard.spent_usd == spent


@kinds
async def test_a_guarded_model_can_be_copied_as_before(lab: Lab, kind: str) -> None:
    model = MODELS[kind](lab)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent_named("Worker", model), hooks=guard)
    copied = copy.copy(model)
    assert copied is not model
    assert vars(copied) == vars(model)
    await lab.run("run", agent_named("Worker", copied), hooks=guard)
    agree(lab.provider, guard)
    assert len(lab.calls) == 2


async def test_a_guarded_model_can_be_deep_copied_and_pickled_if_it_could_before(lab: Lab) -> None:
    model = PicklableModel(lab.responses())
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent_named("Worker", model), hooks=guard)
    del model.inner
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin is not model
        assert twin == model
        assert isinstance(twin, PicklableModel)
        twin.inner = lab.responses()
        await lab.run("run", agent_named("Worker", twin), hooks=guard)
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


class RemadeModel(PicklableModel):
    """A user's own model that says how it is made anew."""

    def __reduce__(self) -> Any:
        return remade, (self.model,)


def remade(name: str) -> RemadeModel:
    return RemadeModel(name=name)


class OnlyModel(PicklableModel):
    """A user's own model of which there is one, known by its name."""

    def __reduce__(self) -> Any:
        return "ONLY"


ONLY = OnlyModel()


class MadeModel(PicklableModel):
    """A user's own model that is made with its name."""

    made_with: ClassVar[list[tuple[Any, ...]]] = []

    def __new__(cls, *arguments: Any) -> MadeModel:
        cls.made_with.append(arguments[1:])
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[None, str]:
        return (None, self.model)


async def test_a_guarded_model_that_says_how_it_is_pickled_is_pickled_so(lab: Lab) -> None:
    model = RemadeModel(lab.responses(), "gpt-4.1")
    ONLY.inner = lab.responses()
    guard = BudgetGuard(Budget("$1.00"))
    MadeModel.made_with.clear()
    made = MadeModel(lab.responses(), BIG)
    for each in (model, ONLY, made):
        await lab.run("run", agent_named("Worker", each), hooks=guard)
    del made.inner
    assert type(pickle.loads(pickle.dumps(made))) is MadeModel and MadeModel.made_with == [(BIG,), (BIG,)]
    twin = pickle.loads(pickle.dumps(model))
    assert type(twin) is RemadeModel and twin == model
    assert pickle.loads(pickle.dumps(ONLY)) is ONLY


async def test_agents_that_share_a_model_share_it_still(lab: Lab) -> None:
    lab.script(by_role({"Triage": caller_of("transfer_to_worker"), "Worker": Reply(text="done")}))
    model = lab.responses()
    worker = agent_named("Worker", model)
    triage: Agent[Any] = agent_named("Triage", model, handoffs=[worker])
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", triage, hooks=guard)
    await lab.run("run", triage, hooks=guard)
    assert triage.model is worker.model is model
    assert type(model).__mro__.count(OpenAIResponsesModel) == 1
    agree(lab.provider, guard)


@modes
async def test_a_downgrade_leaves_the_users_model_object_alone(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")]}))
    model = lab.chat()
    before = dict(vars(model))
    guard = BudgetGuard(Budget("$1.00"), downgrade_to=SMALL, downgrade_at=0.000_001)
    await lab.run(mode, agent_named("Worker", model, tools=[lookup]), hooks=guard)
    assert [call.model for call in lab.calls] == [BIG, SMALL]
    assert vars(model) == before
    assert isinstance(model, OpenAIChatCompletionsModel)
    agree(lab.provider, guard)


async def test_a_model_subclass_that_calls_super_is_counted_once(lab: Lab) -> None:
    class Logging(OpenAIResponsesModel):
        """A user's own subclass of the SDK's model."""

        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            return await super().get_response(*args, **kwargs)

    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent_named("Worker", Logging(BIG, openai_client=lab.client)), hooks=guard)
    assert len(lab.calls) == 1
    agree(lab.provider, guard)


async def test_what_a_provider_of_the_users_offers_beside_models_is_reached_through_the_guard(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    config = lab.config()
    inner: Any = config.model_provider
    inner.colour = "green"
    outer: Any = guard.run_config(config).model_provider
    assert outer.colour == "green"
    with pytest.raises(AttributeError, match="shape"):
        _ = outer.shape


async def test_a_model_that_is_called_directly_in_a_block_is_guarded_call_by_call(lab: Lab) -> None:
    model = lab.responses()
    await lab.run("run", agent_named("Worker", model), hooks=BudgetGuard(Budget("$1.00")))  # guarded from now on
    lab.script(Reply())
    guard = BudgetGuard(Budget("$0.02"))

    async def call(tokens: int) -> None:
        await model.get_response(
            system_instructions=None,
            input="go",
            model_settings=ModelSettings(max_tokens=tokens),
            tools=[],
            output_schema=None,
            handoffs=[],
            tracing=ModelTracing.DISABLED,
        )

    with guard:
        with pytest.raises(BudgetExceeded):
            await call(5_000)
        await call(100)
    await call(5_000)
    assert len(lab.calls) == 2
    assert guard.report().breakdown.llm.calls == 1
    assert guard.spent_usd == Decimal(lab.calls[0].cost_nano or 0) / NANO


async def ask_by_hand(model: Model, *, stream: bool, tokens: int = 100) -> None:
    arguments: Any = (None, "go", ModelSettings(max_tokens=tokens), [], None, [], ModelTracing.DISABLED)
    more: Any = {"previous_response_id": None, "conversation_id": None, "prompt": None}
    if stream:
        async for _ in model.stream_response(*arguments, **more):
            pass
    else:
        await model.get_response(*arguments, **more)


@pytest.mark.parametrize("stream", [False, True])
@kinds
async def test_a_model_that_no_run_has_ever_seen_is_guarded_in_a_block(lab: Lab, kind: str, stream: bool) -> None:
    model = MODELS[kind](lab)
    await ask_by_hand(model, stream=stream)
    lab.script(Reply())
    with BudgetGuard(Budget(max_requests=1)) as guard:
        await ask_by_hand(model, stream=stream)
        with pytest.raises(BudgetExceeded):
            await ask_by_hand(model, stream=stream)
    agree(lab.provider, guard)
    assert len(lab.calls) == 1


async def test_a_model_that_does_not_let_itself_be_guarded_says_so_and_works_by_hand(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budget_guard_openai_agents.model._guarded_class", lambda cls: int)
    model = lab.responses()
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(TypeError, match="OpenAIResponsesModel does not let its calls be accounted for: wrap it"):
        await lab.run("run", agent_named("Worker", model), hooks=guard)
    with guard:
        await ask_by_hand(model, stream=False)
    assert len(lab.calls) == 1 and type(model) is OpenAIResponsesModel


class Ensemble(Model):
    """A user's own model that asks several others."""

    model = BIG

    def __init__(self, *inner: Model) -> None:
        self.inner = inner

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        first, *_ = [await model.get_response(*args, **kwargs) for model in self.inner]
        return first

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        for model in self.inner:
            async for event in model.stream_response(*args, **kwargs):
                if model is self.inner[-1]:
                    yield event


@modes
@pytest.mark.parametrize("depth", [1, 2])
async def test_models_that_a_model_of_ones_own_calls_are_each_counted_though_no_run_has_seen_them(
    lab: Lab, mode: str, depth: int
) -> None:
    model: Model = Ensemble(lab.responses(), lab.chat(), lab.responses(SMALL))
    if depth == 2:
        model = Ensemble(lab.chat(), model)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Worker", model, model_settings=ModelSettings(max_tokens=100)), hooks=guard)
    assert len(lab.calls) == 2 + depth
    agree(lab.provider, guard)


async def test_a_model_whose_class_is_made_after_the_guard_is_guarded_when_it_is_called_by_hand(lab: Lab) -> None:
    guard = BudgetGuard(Budget(max_requests=1))

    class MadeLater(Model):
        model = BIG

        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            answer = await lab.client.responses.create(model=BIG, input="go", max_output_tokens=100)
            assert answer.usage is not None
            taken, written = answer.usage.input_tokens, answer.usage.output_tokens
            usage = Usage(requests=1, input_tokens=taken, output_tokens=written, total_tokens=taken + written)
            return ModelResponse(output=[*answer.output], usage=usage, response_id=answer.id)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    with guard:
        await ask_by_hand(MadeLater(), stream=False)
        with pytest.raises(BudgetExceeded):
            await ask_by_hand(MadeLater(), stream=False)
    agree(lab.provider, guard)
    assert len(lab.calls) == 1


def test_classes_that_were_there_before_any_guard_are_found_down_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Model, "__init_subclass__")  # as before the first guard

    class Kind(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            raise NotImplementedError

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    class Below(Kind):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            raise NotImplementedError

    class Last(Below):
        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    written = {cls: dict(vars(cls)) for cls in (Kind, Below, Last)}
    discover_models()
    changed = {
        cls.__name__: sorted(name for name in own if vars(cls)[name] is not own[name]) for cls, own in written.items()
    }
    assert changed == {
        "Kind": ["get_response", "stream_response"],
        "Below": ["get_response"],
        "Last": ["stream_response"],
    }

    async def own(*args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError

    later = type("Later", (Kind,), {"get_response": own})
    assert vars(later)["get_response"] is not own


USAGE = {
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}
TEXT = {"type": "output_text", "text": "ok", "annotations": []}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
ANSWER = {
    **{"object": "response", "created_at": 1, "model": BIG, "status": "completed", "output": [MESSAGE]},
    **{"parallel_tool_calls": False, "tool_choice": "auto", "tools": []},
}


class Socket(agents.OpenAIResponsesWSModel if hasattr(agents, "OpenAIResponsesWSModel") else object):  # type: ignore[misc]
    """The SDK's model that talks over a WebSocket, answered here."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(BIG, openai_client=lab.client)
        self.served = 0

    async def _iter_websocket_response_events(self, create_kwargs: Any) -> Any:
        self.served += 1
        answer = {**ANSWER, "usage": {**USAGE, "input_tokens": 10, "output_tokens": 100, "total_tokens": 110}}
        response = Response.model_validate({**answer, "id": f"resp_{self.served}"})
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)


@pytest.mark.skipif(Socket.__mro__[1] is object, reason="this SDK has no model that opens WebSockets")
@modes
@pytest.mark.parametrize("calls", [1, 2, 3])
async def test_each_call_that_goes_round_the_clients_transport_is_counted(lab: Lab, mode: str, calls: int) -> None:
    socket = Socket(lab)
    model = socket if calls == 1 else Ensemble(*[socket] * calls)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Worker", model, model_settings=ModelSettings(max_tokens=100)), hooks=guard)
    assert socket.served == calls
    assert guard.spent_usd == calls * (10 * Decimal("2.5e-6") + 100 * Decimal("10e-6"))
    assert guard.reserved_usd == 0


@pytest.mark.skipif(Socket.__mro__[1] is object, reason="this SDK has no model that opens WebSockets")
async def test_what_a_model_adds_to_requests_that_nobody_sees_has_no_bound(lab: Lab) -> None:
    class Adding(Socket):
        def _build_response_create_kwargs(self, *args: Any, **kwargs: Any) -> Any:
            return {**super()._build_response_create_kwargs(*args, **kwargs), "multi_agent": {"enabled": True}}

    guard = BudgetGuard(Budget("$1.00"))
    model = Adding(lab)
    with pytest.raises(UnboundedCallError, match="what Adding adds to it"):
        await lab.run("run", agent_named("Worker", model), hooks=guard)
    assert model.served == 0
    assert guard.reserved_usd == 0


@pytest.mark.parametrize("option", ["on_cancel", "on_cut_off", "on_exceeded"])
def test_what_to_do_that_nobody_knows_is_refused_where_it_is_said(option: str) -> None:
    given: dict[str, Any] = {option: "sometimes"}
    with pytest.raises(ValueError, match=f"{option}='sometimes'"):
        BudgetGuard(Budget("$1.00"), **given)
