"""`budgeted_model` picks per call, and stands for one chat model towards LangChain."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from budget_guard import Budget
from budget_guard.events import ModelDowngraded
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    InvalidDowngradeError,
    budget_scope,
    budgeted_model,
)
from budget_guard.testing import Reply
from budget_guard.units.amounts import Amounts
from tests.integrations.langchain.agents import (
    BIG,
    MODEL_SURFACES,
    SMALL,
    Lab,
    agree,
    caller_of,
    configured,
    lookup,
)

surfaces = pytest.mark.parametrize("call", MODEL_SURFACES.values(), ids=MODEL_SURFACES)
kinds = pytest.mark.parametrize("kind", ["chat", "responses", "claude"])


def pair(lab: Lab, kind: str = "chat", **options: Any) -> Any:
    if kind == "claude":
        return budgeted_model(lab.claude("claude-sonnet-4-6"), lab.claude("claude-haiku-4-5"), **options)
    made = lab.chat if kind == "chat" else lab.responses
    return budgeted_model(made(BIG), made(SMALL), **options)


def agree_on_models(lab: Lab, handler: BudgetCallbackHandler) -> None:
    assert handler.reserved_usd == 0
    assert handler.report().breakdown.llm.total == lab.provider.bill_usd


class Heard(BaseCallbackHandler):
    """Knows the calls that LangChain tells of, however often it does."""

    run_inline = True

    def __init__(self) -> None:
        self.started, self.ended = set[Any](), set[Any]()

    @property
    def calls(self) -> tuple[int, int]:
        """How many started, and how many ended."""
        return len(self.started), len(self.ended)

    def on_chat_model_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.started.add(run_id)

    def on_llm_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.ended.add(run_id)


@surfaces
@kinds
def test_it_switches_at_the_threshold_with_one_start_and_one_end(lab: Lab, kind: str, call: Any) -> None:
    lab.script(Reply(text="words", input_tokens=40, output_tokens=60))
    model, handler, heard = pair(lab, kind), BudgetCallbackHandler(Budget(max_total_tokens=5_000)), Heard()
    dear, cheap = model.primary, model.cheaper
    for _ in range(2):
        call(model, "hi", configured(handler, heard))
    handler.session.carry_over(handler.session.committed._replace(total_tokens=4_050))
    call(model, "hi", configured(handler, heard))
    names = [getattr(m, "model_name", None) or m.model for m in (dear, dear, cheap)]
    assert lab.models == names
    assert heard.calls == (3, 3)
    assert list(handler.report().breakdown.llm.by_model) == names[1:]
    assert [(e.model, e.target) for e in handler.session.events() if isinstance(e, ModelDowngraded)] == [
        (names[0], names[2])
    ]
    assert handler.reserved_usd == 0
    assert handler.report().breakdown.llm.total == lab.provider.bill_usd


def test_a_stream_comes_in_pieces(lab: Lab) -> None:
    lab.script(Reply(text="some words in a row"))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    assert len(list(pair(lab).stream("hi", configured(handler)))) > 2
    agree_on_models(lab, handler)


@pytest.mark.parametrize("at", [0.3, 0.8])
def test_the_fraction_is_the_callers(lab: Lab, at: float) -> None:
    lab.script(Reply(input_tokens=100, output_tokens=1))
    handler = BudgetCallbackHandler(Budget(max_requests=20, max_input_tokens=2_000))
    model = pair(lab, downgrade_at=at)
    for _ in range(18):
        model.invoke("hi", configured(handler))
    assert lab.models == [BIG] * round(at * 20) + [SMALL] * round(18 - at * 20)


@surfaces
def test_a_stream_is_booked_as_billed_where_langchain_would_not_ask_for_its_usage(lab: Lab, call: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = budgeted_model(lab.chat(stream_usage=None), lab.chat(SMALL, stream_usage=None))
    call(model, "hi", configured(handler))
    agree(lab, handler)


@surfaces
def test_the_cheaper_model_is_called_where_the_dear_one_does_not_fit(lab: Lab, call: Any) -> None:
    lab.script(Reply(input_tokens=10, output_tokens=10))
    handler = BudgetCallbackHandler(Budget("$0.004"))
    call(pair(lab), "hi", configured(handler))  # 500 tokens of the dear one are $0.005
    assert lab.models == [SMALL]
    agree(lab, handler)


@surfaces
def test_what_neither_model_fits_into_is_not_sent(lab: Lab, call: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$0.00001"))
    with pytest.raises(BudgetExceeded):
        call(pair(lab), "hi", configured(handler))
    assert lab.calls == []
    assert handler.reserved_usd == 0


@kinds
@surfaces
def test_the_output_cap_of_the_decision_is_sent_and_bounds_the_hold(lab: Lab, kind: str, call: Any) -> None:
    lab.script(Reply(text="words", input_tokens=40, output_tokens=60))
    if kind == "claude":
        model = budgeted_model(lab.claude(max_tokens=None), lab.claude("claude-haiku-4-5", max_tokens=None))
    else:
        made = lab.chat if kind == "chat" else lab.responses
        model = budgeted_model(made(BIG, max_tokens=None), made(SMALL, max_tokens=None))
    handler = BudgetCallbackHandler(Budget("$0.10"))
    call(model, "hi", configured(handler))
    (decision,) = handler.session.decisions()
    assert decision.output_clamped
    assert decision.bounded
    assert lab.calls[0].max_output_tokens == decision.output_cap
    agree(lab, handler)


def test_the_callers_cap_is_what_is_held_and_sent(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = pair(lab)
    model.invoke("hi", configured(handler))
    model.bind(max_tokens=20).invoke("hi", configured(handler))
    assert [decision.estimate.output_tokens for decision in handler.session.decisions()] == [500, 20]
    assert [call.max_output_tokens for call in lab.calls] == [500, 20]


def test_without_a_budget_it_is_the_dear_model(lab: Lab) -> None:
    model = pair(lab)
    assert model.invoke("hi").content == "ok"
    assert lab.models == [BIG]
    assert lab.calls[0].max_output_tokens == 500
    list(budgeted_model(lab.chat(stream_usage=None), lab.chat(SMALL)).stream("hi"))
    assert "stream_options" not in lab.calls[1].body


def test_it_brings_its_own_handler_and_minds_the_others_too(lab: Lab) -> None:
    own, callers, ambient = (BudgetCallbackHandler(Budget("$0.10")) for _ in range(3))
    model = pair(lab, handler=own)
    model.invoke("hi")
    model.invoke("hi", configured(own))
    with budget_scope(ambient):
        model.invoke("hi", configured(callers))
    assert [h.report().breakdown.llm.calls for h in (own, callers, ambient)] == [3, 1, 1]
    agree(lab, own)


def test_of_several_budgets_the_one_that_switches_decides_for_all(lab: Lab) -> None:
    poor, rich = BudgetCallbackHandler(Budget("$0.10")), BudgetCallbackHandler(Budget("$9.00"))
    poor.charge("before", "0.085")
    for handlers in ((poor, rich), (rich, poor)):
        pair(lab).invoke("hi", configured(*handlers))
        agree_on_models(lab, rich)
    assert lab.models == [SMALL, SMALL]
    assert [decision.name for decision in rich.session.decisions()] == [SMALL, BIG], "as it was asked"
    spent = [h.report().breakdown.llm for h in (poor, rich)]
    assert spent[0] == spent[1]
    assert list(spent[0].by_model) == [SMALL]
    assert lab.provider.bill_usd == spent[0].total


def test_of_several_caps_the_lowest_is_sent(lab: Lab) -> None:
    for order in (1, -1):
        handlers = [BudgetCallbackHandler(Budget("$9.00", call_max_output_tokens=most)) for most in (40, 70)][::order]
        model = budgeted_model(lab.chat(max_tokens=None), lab.chat(SMALL, max_tokens=None))
        model.invoke("hi", configured(*handlers))
        assert lab.calls[-1].max_output_tokens == 40


def test_sixteen_threads_that_share_it_never_share_a_choice(lab: Lab) -> None:
    lab.script(Reply(input_tokens=5, output_tokens=5))
    model = pair(lab)
    rich, poor = (BudgetCallbackHandler(Budget("$50.00")) for _ in range(2))
    poor.charge("before", "45.00")

    def one(number: int) -> bool:
        handler = poor if number % 2 else rich
        answer = model.invoke("hi", configured(handler))
        return bool(answer.response_metadata["model_name"].startswith(SMALL) == (handler is poor))

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(one, range(200))) == [True] * 200
    assert sorted(lab.models) == [BIG] * 100 + [SMALL] * 100
    for handler, name in ((rich, BIG), (poor, SMALL)):
        assert list(handler.report().breakdown.llm.by_model) == [name]
        assert handler.reserved_usd == 0


def test_so_do_tasks(lab: Lab) -> None:
    model = pair(lab)
    rich, poor = (BudgetCallbackHandler(Budget("$50.00")) for _ in range(2))
    poor.charge("before", "45.00")

    async def main() -> list[str]:
        calls = (model.ainvoke("hi", configured(poor if n % 2 else rich)) for n in range(60))
        return [answer.response_metadata["model_name"] for answer in await asyncio.gather(*calls)]

    names = asyncio.run(main())
    assert [name.startswith(SMALL) for name in names] == [bool(n % 2) for n in range(60)]


@kinds
def test_tools_are_bound_to_whichever_model_is_called(lab: Lab, kind: str) -> None:
    lab.script(caller_of("lookup", key="a"))
    handler = BudgetCallbackHandler(Budget("$0.10"))
    bound = pair(lab, kind).bind_tools([lookup], tool_choice="any")
    for _ in range(2):
        assert bound.invoke("hi", configured(handler)).tool_calls[0]["name"] == "lookup"
        handler.session.carry_over(Amounts(cost=85_000_000))
    assert len(set(lab.models)) == 2
    assert all(call.body["tools"] and call.body["tool_choice"] for call in lab.calls)


def test_tools_are_bound_in_the_form_of_each_provider(lab: Lab) -> None:
    lab.script(caller_of("lookup", key="a"))
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = budgeted_model(lab.claude("claude-sonnet-4-6"), lab.chat(SMALL), handler=handler).bind_tools([lookup])
    assert model.invoke("hi").tool_calls
    handler.charge("before", "0.085")
    assert model.invoke("hi").tool_calls
    assert lab.models == ["claude-sonnet-4-6", SMALL]
    assert ["input_schema" in call.body["tools"][0] for call in lab.calls] == [True, False]
    assert lab.calls[1].max_output_tokens == 500
    assert handler.report().breakdown.llm.total == lab.provider.bill_usd


class Place(BaseModel):
    """A place."""

    city: str


@kinds
@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_output_comes_of_both_models(lab: Lab, kind: str, include_raw: bool) -> None:
    lab.script(caller_of("Place", city="Rome"))
    handler, heard = BudgetCallbackHandler(Budget("$0.10")), Heard()
    structured = pair(lab, kind, handler=handler).with_structured_output(Place, include_raw=include_raw)
    for _ in range(2):
        answer = structured.invoke("where?", configured(heard))
        assert (answer["parsed"] if include_raw else answer) == Place(city="Rome")
        handler.session.carry_over(Amounts(cost=85_000_000))
    assert len(set(lab.models)) == 2
    assert heard.calls == (2, 2)


def test_a_batch_is_decided_on_call_by_call(lab: Lab) -> None:
    lab.script(Reply(input_tokens=100, output_tokens=1))
    handler = BudgetCallbackHandler(Budget(max_input_tokens=10_000))
    model = pair(lab, handler=handler, downgrade_at=0.05)
    model.batch(["hi"] * 12, {"max_concurrency": 1})
    assert lab.models == [BIG] * 5 + [SMALL] * 7
    asyncio.run(model.abatch(["hi"] * 3))
    assert lab.models[12:] == [SMALL] * 3


def test_messages_given_together_go_to_the_cheaper_model_together(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    handler.charge("before", "0.80")
    pair(lab, handler=handler).generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert lab.models == [SMALL, SMALL]
    agree_on_models(lab, handler)


def test_inside_a_chain_it_is_one_call(lab: Lab) -> None:
    handler, heard = BudgetCallbackHandler(Budget("$1.00")), Heard()
    chain = RunnableLambda(lambda x: x) | pair(lab)
    chain.invoke("hi", configured(handler, heard))
    assert (*heard.calls, len(lab.calls)) == (1, 1, 1)
    agree(lab, handler)


@pytest.mark.parametrize("steered", [False, True], ids=["callback", "middleware"])
@pytest.mark.parametrize("response_format", [None, Place], ids=["text", "structured"])
def test_an_agent_can_be_made_with_it(lab: Lab, steered: bool, response_format: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    place = caller_of("Place", city="Rome")
    lab.script(lambda request: Reply(text="Rome") if response_format is None else place)
    handler = BudgetCallbackHandler(Budget("$0.10"))
    handler.charge("before", "0.085")
    middleware = [BudgetMiddleware(handler)] if steered else []
    agent = agents.create_agent(
        budgeted_model(lab.chat("gpt-4o", max_tokens=None, profile={}), lab.chat(SMALL, max_tokens=None, profile={})),
        [lookup],
        middleware=middleware,
        response_format=response_format,
    )
    done = agent.invoke({"messages": [("user", "where?")]}, configured(handler))
    assert "Rome" in done["messages"][-1].content
    assert lab.models == [SMALL]
    assert lab.calls[0].max_output_tokens == handler.session.decisions()[-1].output_cap is not None
    agree_on_models(lab, handler)


def test_one_inside_another_calls_its_dear_model(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    nested = budgeted_model(pair(lab), lab.chat("gpt-4.1-nano"), handler=handler)
    nested.invoke("hi")
    handler.charge("before", "0.80")
    nested.invoke("hi")
    assert lab.models == [BIG, "gpt-4.1-nano"]


def test_the_cache_holds_answers_of_the_pair_and_costs_nothing(lab: Lab) -> None:
    cache, handler = InMemoryCache(), BudgetCallbackHandler(Budget("$1.00"))
    model = budgeted_model(lab.chat(cache=cache), lab.chat(SMALL), handler=handler)
    other = budgeted_model(lab.chat(cache=cache), lab.chat("gpt-4.1-nano"), handler=handler)
    bound = model.bind_tools([lookup]), model.bind_tools([lookup])
    for cached in (model, model, other, *bound):
        cached.invoke("hi")
    assert len(lab.calls) == 3
    agree(lab, handler)


def test_it_stands_in_the_dear_models_place_towards_callbacks(lab: Lab) -> None:
    told: list[Any] = []

    class Listens(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            told.append((serialized["kwargs"]["openai_api_base"], kwargs["tags"], kwargs["metadata"]["team"]))

    primary = lab.chat(callbacks=[Listens()], tags=["ours"], metadata={"team": "a"})
    handler = BudgetCallbackHandler(Budget("$1.00"))
    budgeted_model(primary, lab.chat(SMALL), handler=handler).invoke("hi")
    assert told == [(lab.provider.base_url, ["ours"], "a")]
    agree(lab, handler)


def test_it_waits_for_the_dear_models_rate_limiter(lab: Lab) -> None:
    class Limiter(InMemoryRateLimiter):
        asked = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            Limiter.asked += 1
            return True

    budgeted_model(lab.chat(rate_limiter=Limiter()), lab.chat(SMALL)).invoke("hi")
    assert Limiter.asked == 1


def test_a_model_that_cannot_stream_is_called_all_the_same(lab: Lab) -> None:
    class Whole(FakeListChatModel):
        model_name: str = "penny"
        _stream = BaseChatModel._stream  # as if it had none
        _astream = BaseChatModel._astream

    prices = {"penny": {"input": 0, "output": 0, "requests": "0.01", "max_output": 100}}
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=prices)
    handler.charge("before", "0.80")
    model = budgeted_model(lab.chat(), Whole(responses=["whole"]), handler=handler)
    assert [piece.content for piece in model.stream("hi")] == ["whole"]
    assert lab.calls == []
    assert handler.report().breakdown.llm.by_model["penny"].calls == 1


def test_where_one_of_them_takes_no_cap_neither_is_sent_one(lab: Lab) -> None:
    class Plain(FakeListChatModel):
        model_name: str = "penny"
        max_tokens: int = 900

    prices = {"penny": {"input": 0, "output": 1e-9, "max_output": 5_000}}
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=prices)
    model = budgeted_model(lab.chat(max_tokens=300), Plain(responses=["x"]), handler=handler)
    model.invoke("hi")
    assert handler.session.decisions()[0].estimate.output_tokens == 900
    assert lab.calls[0].max_output_tokens == 300


def test_what_both_can_do_is_what_it_says_it_can_do(lab: Lab) -> None:
    first = lab.chat(profile={"structured_output": True, "max_input_tokens": 9, "tool_calling": True, "name": "a"})
    second = lab.chat(SMALL, profile={"structured_output": False, "max_input_tokens": 7, "tool_calling": True})
    profile = {"structured_output": False, "max_input_tokens": 7, "tool_calling": True}
    assert budgeted_model(first, second).profile == profile


def test_tokens_are_counted_as_the_dear_model_counts_them(lab: Lab) -> None:
    model = pair(lab)
    model.primary.custom_get_token_ids = lambda text: [1] * 7
    assert model.get_num_tokens("hi") == 7
    counts = FakeListChatModel(responses=["ok"], custom_get_token_ids=lambda text: [1] * 7)
    assert budgeted_model(counts, lab.chat(SMALL)).get_num_tokens_from_messages([HumanMessage("hi")]) == 7


def test_made_by_its_class_it_has_the_same_settings(lab: Lab) -> None:
    made = budgeted_model(lab.chat(), lab.chat(SMALL))
    alike = type(made)(primary=made.primary, cheaper=made.cheaper)
    for name in ("downgrade_at", "add_fields", "keeps_cut"):
        assert getattr(alike, name) == getattr(made, name)


def test_it_is_known_by_both_of_its_models(lab: Lab) -> None:
    model = pair(lab)
    known = {"primary": model.primary._identifying_params, "cheaper": model.cheaper._identifying_params}
    assert model._identifying_params == known
    assert {known["primary"]["model_name"], known["cheaper"]["model_name"]} == {BIG, SMALL}
    assert model._llm_type == "budget-guard"


# --- what it refuses


def test_tools_that_the_dear_model_does_not_take_are_refused_when_they_are_bound(lab: Lab) -> None:
    model = budgeted_model(FakeListChatModel(responses=["x"]), lab.chat(SMALL))
    with pytest.raises(NotImplementedError):
        model.bind_tools([lookup])


def test_what_binding_tools_makes_must_be_a_binding(lab: Lab) -> None:
    class Chained(FakeListChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda given: given) | self

    with pytest.raises(TypeError, match=r"Chained\.bind_tools gives a RunnableSequence, not a RunnableBinding"):
        budgeted_model(Chained(responses=["x"]), lab.chat(SMALL)).bind_tools([lookup])


def test_it_takes_bare_chat_models_alone(lab: Lab) -> None:
    for models in ((lab.chat().bind(stop=["x"]), lab.chat(SMALL)), (lab.chat(), "gpt-4o-mini")):
        with pytest.raises(TypeError, match=r"is not a chat model: give the bare model, and bind tools to the result"):
            budgeted_model(*models)


def test_two_models_of_one_name_are_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="primary and cheaper are both 'gpt-4o': give two models"):
        budgeted_model(lab.chat(), lab.chat())


def test_what_to_do_with_a_cut_off_answer_is_one_of_two(lab: Lab) -> None:
    with pytest.raises(ValueError, match="on_cut_off='never' is not known: use 'raise' or 'keep'"):
        pair(lab, on_cut_off="never")


@pytest.mark.parametrize("at", [0, 1.1])
def test_a_senseless_fraction_is_refused(lab: Lab, at: Any) -> None:
    with pytest.raises(ValueError, match="must be a fraction above 0 and at most 1"):
        pair(lab, downgrade_at=at)


def test_a_cheaper_model_that_is_dearer_is_refused_at_the_first_call(lab: Lab) -> None:
    model = budgeted_model(lab.chat(SMALL), lab.chat(BIG))
    with pytest.raises(InvalidDowngradeError, match="is dearer than"):
        model.invoke("hi", configured(BudgetCallbackHandler(Budget("$1.00"))))
    assert lab.calls == []
