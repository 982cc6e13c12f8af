"""A model whose calls are steered is called, and described, as it would be without that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from budget_guard import Budget, ModelCall, weigh
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budgeted_model
from budget_guard_langchain.steered_model import How, name_of, steered
from tests.builders import ZERO
from tests.integrations.langchain.agents import DIME, SMALL, Lab, configured


class Listener(BaseChatModel):
    """A model of one's own. Notes what each of its methods is called with."""

    model_name: str = "gpt-4o"
    heard: list[Any] = []  # noqa: RUF012  # a field, which pydantic copies

    @property
    def _llm_type(self) -> str:
        return "listener"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop=stop, **kwargs), "told": sorted(kwargs)}

    def _note(self, method: str, messages: Any, stop: Any, run_manager: Any, more: dict[str, Any]) -> None:
        self.heard.append((method, messages, {"stop": stop, "run_manager": run_manager, **more}))

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        self._note("generate", messages, stop, run_manager, more)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("ok"))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        self._note("agenerate", messages, stop, run_manager, more)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("ok"))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> Iterator[ChatGenerationChunk]:
        self._note("stream", messages, stop, run_manager, more)
        yield ChatGenerationChunk(message=AIMessageChunk(content="ok"))

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._note("astream", messages, stop, run_manager, more)
        yield ChatGenerationChunk(message=AIMessageChunk(content="ok"))


async def drain(pieces: AsyncIterator[Any]) -> None:
    async for _ in pieces:
        pass


SAID: Any = [HumanMessage("hi")]
MANAGER: Any = object()
GIVEN: dict[str, Any] = {"stop": ["END"], "run_manager": MANAGER, "temperature": 0.5}
WAYS: dict[str, Callable[[BaseChatModel], object]] = {
    "generate": lambda model: model._generate(SAID, **GIVEN),
    "agenerate": lambda model: asyncio.run(model._agenerate(SAID, **GIVEN)),
    "stream": lambda model: list(model._stream(SAID, **GIVEN)),
    "astream": lambda model: asyncio.run(drain(model._astream(SAID, **GIVEN))),
}
MADE: dict[str, Callable[[Listener, Lab], BaseChatModel]] = {
    "a copy": lambda model, lab: steered(model, How()),
    "a pair": lambda model, lab: budgeted_model(model, lab.chat(SMALL)),
}
made = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


@made
@pytest.mark.parametrize("way", WAYS)
def test_it_is_called_with_all_that_langchain_calls_it_with(lab: Lab, make: Any, way: str) -> None:
    inner = Listener()
    WAYS[way](make(inner, lab))
    assert inner.heard == [(way, SAID, GIVEN)]


MORE = {"temperature": 0.5}


@made
def test_it_is_described_as_it_is(lab: Lab, make: Any) -> None:
    plain = Listener()
    model = make(plain, lab)
    for stop in (None, ["END"]):
        steered_call = model._steered(MORE)
        assert model._get_ls_params(stop=stop, **steered_call) == plain._get_ls_params(stop=stop, **MORE)
        assert model._get_llm_string(stop=stop, **steered_call) == model._get_llm_string(stop=stop, **MORE)
        assert model._get_ls_params(stop=stop, **MORE) == plain._get_ls_params(stop=stop, **MORE)
        told = model._get_invocation_params(stop=stop, **MORE)
        assert told == plain._get_invocation_params(stop=stop, **MORE)
        named = model._get_llm_string(stop=stop, **MORE)
        assert named.startswith(plain._get_llm_string(stop=stop, **MORE))


@pytest.mark.parametrize("add_fields", [(), ("output_cap",), ("usage",), ("output_cap", "usage")], ids=",".join)
def test_what_may_be_added_to_a_request_is_added_and_nothing_else(lab: Lab, add_fields: Any) -> None:
    cheap = lab.chat(SMALL, max_tokens=70)
    copy: Any = steered(cheap, How(add_fields=frozenset(add_fields), final=True))
    pair: Any = budgeted_model(lab.chat("gpt-4o", max_tokens=50), cheap, add_fields=add_fields)
    call = ModelCall("gpt-4o", weigh(messages="hi"), "openai")
    for model, cap, final in ((copy, 70, True), (pair, 50 if "output_cap" in add_fields else 70, False)):
        steering = model._steer({})
        asked = steering.ask(call)
        assert steering.asks_for_usage is ("usage" in add_fields)
        assert (asked.can_cap, asked.max_output_tokens) == ("output_cap" in add_fields, cap)
        assert (asked.final, asked.model, asked.provider) == (final, "gpt-4o", "openai")


@pytest.mark.parametrize("same_provider", [True, False])
def test_a_copy_is_asked_for_in_the_words_of_the_model_that_it_stands_for(lab: Lab, same_provider: bool) -> None:
    copy: Any = steered(lab.chat(SMALL), How(stands_for=("larger", same_provider), keeps_cut=True))
    asked = copy._steer({}).ask(ModelCall(SMALL, weigh(messages="hi"), "openai"))
    assert (asked.model, asked.provider) == ("larger", "openai" if same_provider else None)


def test_how_a_copy_is_steered_is_named_and_never_changes() -> None:
    with pytest.raises(TypeError):
        How(None)  # type: ignore[call-arg]  # by its place
    with pytest.raises(AttributeError):
        How().final = True  # type: ignore[misc]  # it is frozen


class Half(FakeListChatModel):
    """A model that streams in synchronous code alone, so that LangChain streams it in a thread."""

    model_name: str = "dime"
    _astream = BaseChatModel._astream


class Whole(Half):
    _stream = BaseChatModel._stream


def test_a_copy_streams_where_its_model_does() -> None:
    for model in (Listener(), Half(responses=["ok"]), Whole(responses=["ok"])):
        copy = steered(model, How())
        for name in ("_stream", "_astream"):
            plain = getattr(BaseChatModel, name)
            assert (getattr(type(copy), name) is plain) is (getattr(type(model), name) is plain)


def test_a_stream_that_langchain_makes_in_a_thread_is_held_first() -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=1), pricing=DIME)
    model = steered(Half(responses=["ok"]), How())
    asyncio.run(drain(model.astream("hi", configured(handler))))
    assert (handler.report().breakdown.llm.calls, handler.reserved_usd) == (1, ZERO)
    with pytest.raises(BudgetExceeded):
        asyncio.run(drain(model.astream("hi", configured(handler))))
    assert (handler.report().breakdown.llm.calls, handler.reserved_usd) == (1, ZERO)


@pytest.mark.skipif(
    not hasattr(BaseChatModel, "_should_use_protocol_streaming"), reason="langchain-core has it from 1.4 on"
)
def test_a_pair_streams_events_where_both_of_its_models_stream(lab: Lab) -> None:
    from langchain_core.tracers._streaming import _V2StreamingCallbackHandler

    class Listens(_V2StreamingCallbackHandler):
        pass

    heard: Any = SimpleNamespace(handlers=[Listens()])
    for model, streams in (
        (Listener(model_name="mine"), True),
        (Half(responses=["ok"]), True),
        (Whole(responses=["ok"]), False),
    ):
        for pair in (budgeted_model(lab.chat(), model), budgeted_model(model, lab.chat(SMALL))):
            for awaits in (False, True):
                assert pair._should_use_protocol_streaming(async_api=awaits, run_manager=heard) is streams
                assert not pair._should_use_protocol_streaming(async_api=awaits, run_manager=None)


@pytest.mark.parametrize(("called", "name"), [("gpt-4o", "gpt-4o"), ("", "Named"), (None, "Named"), (5, "Named")])
def test_a_model_without_a_name_is_known_by_its_class(called: Any, name: str) -> None:
    class Named(Listener):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {"ls_model_name": called}

    assert name_of(Named()) == name
