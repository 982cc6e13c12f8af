"""What a call is billed for: tiers, caches, reasoning, audio, several answers, hosted tools, and what is not billed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

import httpx
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import LLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from pydantic import BaseModel

from budget_guard import Allowance, Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.testing import DEFAULT_RATES, LocalProvider, Rates, Reply
from tests.builders import ZERO
from tests.integrations.langchain.agents import MODEL_SURFACES, MODELS, SURFACES, Lab, agree, configured

models = pytest.mark.parametrize("model_of", MODELS.values(), ids=MODELS)
known = pytest.mark.parametrize("model_of", [MODELS[kind] for kind in ("chat", "responses")], ids=["chat", "responses"])
"""Those whose longest answer is known."""
few_surfaces = pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
LONG = "four letters and so " * 200


@few_surfaces
@models
def test_cached_tokens_are_billed_as_cached(lab: Lab, model_of: Any, surface: str) -> None:
    lab.script(Reply(text="ok", input_tokens=1_000, output_tokens=50, cached_tokens=800))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](model_of(lab), LONG, configured(handler))
    agree(lab, handler)


@few_surfaces
@pytest.mark.parametrize("lifetime", ["5m", "1h"])
def test_tokens_written_to_a_cache_are_billed_by_their_lifetime(lab: Lab, lifetime: str, surface: str) -> None:
    written: Any = {"cache_write_tokens" if lifetime == "5m" else "cache_write_1h_tokens": 600}
    lab.script(Reply(text="ok", input_tokens=1_000, output_tokens=50, cached_tokens=100, **written))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    cached = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": lifetime}}
    SURFACES[surface](lab.claude(), [HumanMessage(content=[cached])], configured(handler))
    agree(lab, handler)


@pytest.mark.parametrize("where", ["message", "system", "tool", "call"])
def test_the_price_of_an_hour_in_a_cache_is_held_only_where_it_is_asked_for(lab: Lab, where: str) -> None:
    def held(ttl: str) -> int:
        hour: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": ttl}}
        text: list[Any] = [{"type": "text", "text": LONG, **(hour if where in ("message", "system") else {})}]
        message = SystemMessage(content=text) if where == "system" else HumanMessage(content=text)
        tool = {
            "name": "look",
            "description": "Look.",
            "input_schema": {"type": "object", "properties": {}},
            **(hour if where == "tool" else {}),
        }
        handler = BudgetCallbackHandler(Budget("$1.00"))
        model = lab.claude().bind_tools([tool])
        asked = [message, HumanMessage("and?")]
        model.invoke(asked, configured(handler), **(hour if where == "call" else {}))
        return handler.session.decisions()[0].estimate.cost

    assert held("1h") > held("5m") * 1.1


@few_surfaces
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_reasoning_is_billed_as_output(lab: Lab, kind: str, surface: str) -> None:
    lab.script(Reply(text="ok", input_tokens=1_000, output_tokens=300, reasoning_tokens=250))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](MODELS[kind](lab, "gpt-5"), LONG, configured(handler))
    agree(lab, handler)


@pytest.fixture
def tiered() -> Iterator[Lab]:
    """A provider that sells three tiers, at the prices that the bundled table knows."""
    tiers = {
        "flex": Rates(input="0.625", cache_read="0.0625", output="5"),
        "priority": Rates(input="2.50", cache_read="0.25", output="20"),
    }
    gpt = DEFAULT_RATES["gpt-5"]
    rates = Rates(input=gpt.input, cache_read=gpt.cache_read, output=gpt.output, tiers=tiers)
    with LocalProvider(prices={"gpt-5": rates}) as provider:
        lab = Lab(provider)
        yield lab
        lab.close()


@few_surfaces
@pytest.mark.parametrize(
    ("asked", "served"), [("flex", None), ("priority", None), (None, "priority"), ("auto", "flex")]
)
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_the_service_tier_that_served_the_call_is_billed(
    tiered: Lab, kind: str, asked: str | None, served: str | None, surface: str
) -> None:
    tiered.script(
        Reply(
            text="ok", input_tokens=1_000, output_tokens=90, cached_tokens=400, reasoning_tokens=40, service_tier=served
        )
    )
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](MODELS[kind](tiered, "gpt-5", service_tier=asked), LONG, configured(handler))
    agree(tiered, handler)


def test_a_service_tier_without_a_known_price_is_refused(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(Exception, match="service_tier 'scale'"):
        lab.chat(service_tier="scale").invoke("hi", configured(handler))
    assert lab.calls == []


@pytest.mark.parametrize("surface", ["invoke", "ainvoke", "generate", "agenerate"])
def test_several_answers_are_held_and_billed_as_one_call(lab: Lab, surface: str) -> None:
    lab.script(Reply(text="ok", output_tokens=100))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    MODEL_SURFACES[surface](lab.chat(n=3, max_tokens=200), "hi", configured(handler))
    agree(lab, handler)
    assert handler.session.decisions()[0].estimate.output_tokens == 600


@pytest.mark.parametrize("surface", ["invoke", "batch", "ainvoke", "abatch"])
@models
def test_an_answer_out_of_langchains_cache_costs_nothing(lab: Lab, model_of: Any, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(5):
            SURFACES[surface](model_of(lab), "hi", configured(handler))
    finally:
        set_llm_cache(None)
    assert len(lab.calls) == 1
    agree(lab, handler)
    assert handler.report().breakdown.llm.calls == 1


@few_surfaces
def test_searches_of_the_providers_own_tool_are_billed(lab: Lab, surface: str) -> None:
    lab.script(Reply(text="ok", input_tokens=1_000, output_tokens=50, web_searches=2))
    allowance = Allowance(input_tokens=5_000, hosted_tool_calls=3)
    handler = BudgetCallbackHandler(Budget("$1.00", allowance=allowance))
    model = lab.responses().bind_tools([{"type": "web_search"}])
    SURFACES[surface](model, "hi", configured(handler))
    agree(lab, handler)


@pytest.mark.parametrize("kind", ["responses", "claude"])
def test_a_hosted_tool_without_an_allowance_is_refused(lab: Lab, kind: str) -> None:
    tool = {"type": "web_search"} if kind == "responses" else {"type": "web_search_20250305", "name": "web_search"}
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(UnboundedCallError, match="web_search"):
        MODELS[kind](lab).bind_tools([tool]).invoke("hi", configured(handler))
    assert lab.calls == []


@models
def test_an_image_without_an_allowance_is_refused_and_with_one_held(lab: Lab, model_of: Any) -> None:
    image = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}
    message = HumanMessage(content=[{"type": "text", "text": "what is it?"}, image])
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(UnboundedCallError, match="an image"):
        model_of(lab).invoke([message], configured(handler))
    assert lab.calls == []
    handler = BudgetCallbackHandler(Budget("$1.00", allowance=Allowance(input_tokens=3_000)))
    model_of(lab).invoke([message], configured(handler))
    agree(lab, handler)
    assert handler.session.decisions()[0].estimate.input_tokens > 3_000


class Answer(BaseModel):
    """What is asked for."""

    text: str


@pytest.mark.parametrize("surface", ["invoke", "ainvoke"])
def test_structured_output_is_held_with_its_schema(lab: Lab, surface: str) -> None:
    lab.script(Reply(text='{"text": "ok"}'))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](lab.chat().with_structured_output(Answer), "hi", configured(handler))
    agree(lab, handler)
    plain = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](lab.chat(), "hi", configured(plain))
    with_schema, without = (h.session.decisions()[0].estimate.input_tokens for h in (handler, plain))
    assert with_schema > without


# The output cap


@pytest.mark.parametrize(
    ("options", "at_call", "cap"),
    [
        ({"max_tokens": 300}, {}, 300),
        ({"max_tokens": 300}, {"max_tokens": 100}, 300),  # nobody knows which of the two is sent
        ({"max_tokens": None}, {"max_tokens": 100}, 100),
        ({"max_tokens": None}, {"max_completion_tokens": 100}, 100),
    ],
)
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_the_models_own_cap_is_what_is_held(
    lab: Lab, kind: str, options: dict[str, Any], at_call: dict[str, Any], cap: int
) -> None:
    lab.script(Reply(text="ok", output_tokens=1_000))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    MODELS[kind](lab, **options).invoke("hi", configured(handler), **at_call)
    agree(lab, handler)
    (decision,) = handler.session.decisions()
    assert (decision.estimate.output_tokens, decision.bounded, decision.output_cap) == (cap, True, None)


@known
def test_without_a_cap_the_models_own_maximum_is_held(lab: Lab, model_of: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$0.40"))
    model_of(lab, max_tokens=None).invoke("hi", configured(handler))
    agree(lab, handler)
    decision = handler.session.decisions()[0]
    assert (decision.bounded, decision.output_cap, decision.estimate.output_tokens) == (True, None, 16_384)


@known
def test_where_that_does_not_fit_all_that_is_left_is_held_and_the_user_is_warned_once(lab: Lab, model_of: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$0.10"))
    with pytest.warns(RuntimeWarning, match="Nothing caps the output") as warned:
        for _ in range(3):
            model_of(lab, max_tokens=None).invoke("hi", configured(handler))
    assert len(warned) == 1
    agree(lab, handler)
    for decision in handler.session.decisions():
        assert (decision.bounded, decision.output_cap) == (False, None)
        assert Decimal("0.09") < decision.estimate.cost_usd <= Decimal("0.10")


@models
def test_a_strict_budget_refuses_a_call_without_a_cap(lab: Lab, model_of: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$0.10", unbounded="deny"))
    with pytest.raises(UnboundedCallError, match="no output cap can be sent"):
        model_of(lab, max_tokens=None).invoke("hi", configured(handler))
    assert lab.calls == []
    model_of(lab).invoke("hi", configured(handler))
    agree(lab, handler)


# Text models


class Parrot(LLM):
    """A text model that says nothing of its usage."""

    model: str = "dime"
    asked: list[str]

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        self.asked.append(prompt)
        return prompt

    @property
    def _llm_type(self) -> str:
        return "parrot"


PRICES: dict[str, Any] = {"dime": {"input": 0, "output": 0, "requests": "0.10", "max_output": 100}}
PRICES["Parrot"] = PRICES["dime"]  # without its model's name, the class's
TEXT_SURFACES: dict[str, Any] = {
    **{
        name: SURFACES[name] for name in ("invoke", "stream", "batch", "ainvoke", "astream", "abatch", "astream_events")
    },
    "generate": lambda model, input, config: model.generate([input], callbacks=config["callbacks"]),
}


@pytest.mark.parametrize("surface", TEXT_SURFACES)
def test_a_text_model_is_held_and_booked_as_an_estimate_where_it_says_nothing(surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$0.30"), pricing=PRICES)
    model = Parrot(asked=[])
    for _ in range(3):
        TEXT_SURFACES[surface](model, "hi", configured(handler))
    with pytest.raises(BudgetExceeded):
        TEXT_SURFACES[surface](model, "hi", configured(handler))
    assert len(model.asked) == 3
    assert (handler.spent_usd, handler.reserved_usd) == (handler.report().uncertain, ZERO) == (Decimal("0.30"), ZERO)


@pytest.mark.parametrize("surface", ["batch", "abatch"])
def test_a_batch_of_texts_is_sent_whole_or_not_at_all(surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$0.30"), pricing=PRICES)
    model: Any = Parrot(asked=[])
    texts = ["a", "b", "c", "d"]
    with pytest.raises(BudgetExceeded):
        if surface == "batch":
            model.batch(texts, configured(handler))
        else:
            SURFACES["ainvoke"](_Batch(model, texts), None, configured(handler))
    assert model.asked == []
    assert (handler.spent_usd, handler.reserved_usd) == (ZERO, ZERO)


class _Batch:
    def __init__(self, model: Any, texts: list[str]) -> None:
        self.model, self.texts = model, texts

    async def ainvoke(self, _: Any, config: Any) -> Any:
        return await self.model.abatch(self.texts, config)


def test_the_usage_of_a_text_model_is_read_from_its_output() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    params = {"model_name": "gpt-4o", "max_tokens": 100}
    handler.on_llm_start({}, ["hi"], run_id=run_id, invocation_params=params)
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "total_tokens": 110,
        "prompt_tokens_details": {"cached_tokens": 40},
    }
    result = LLMResult(generations=[[Generation(text="ok")]], llm_output={"token_usage": usage})
    handler.on_llm_end(result, run_id=run_id)
    assert handler.spent_usd * 10**9 == 60 * 2_500 + 40 * 1_250 + 10 * 10_000
    assert handler.reserved_usd == 0


@pytest.mark.parametrize("told", [True, False])
def test_texts_that_are_sent_in_one_request_are_billed_once(told: bool) -> None:
    """LangChain tells their usage with the first of them, and nothing with the others."""
    handler = BudgetCallbackHandler(Budget("$1.00"))
    params, run_ids = {"model_name": "gpt-4o", "max_tokens": 100}, [uuid4() for _ in range(3)]
    for run_id in run_ids:
        handler.on_llm_start({}, ["hi"], run_id=run_id, invocation_params=params, batch_size=3)
    held = handler.reserved_usd
    usage = {"prompt_tokens": 30, "completion_tokens": 60} if told else {}
    generations = [[Generation(text="ok")] for _ in run_ids]
    result = LLMResult(generations=generations, llm_output={"token_usage": usage})
    for run_id, part in zip(run_ids, result.flatten(), strict=True):
        handler.on_llm_end(part, run_id=run_id)
    assert handler.reserved_usd == 0
    if told:
        assert handler.spent_usd * 10**9 == 30 * 2_500 + 60 * 10_000
    else:
        assert handler.spent_usd == handler.report().uncertain == held


@pytest.mark.parametrize(("texts", "is_billed"), [(1, False), (3, True)])
def test_texts_that_are_sent_one_by_one_may_have_been_answered_before_one_cannot_be_sent(
    texts: int, is_billed: bool
) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    params, run_ids = {"model_name": "gpt-4o", "max_tokens": 100, "_type": "vllm"}, [uuid4() for _ in range(texts)]
    for run_id in run_ids:
        handler.on_llm_start({}, ["hi"], run_id=run_id, invocation_params=params, batch_size=texts)
    held = handler.reserved_usd
    for run_id in run_ids:
        handler.on_llm_error(httpx.ConnectError("nobody is there"), run_id=run_id)
    assert handler.reserved_usd == 0
    assert handler.spent_usd == handler.report().uncertain == (held if is_billed else 0)


# What no local provider bills


def test_audio_is_billed_as_audio() -> None:
    price: Any = {"input": 1e-6, "output": 2e-6, "input_audio": 1e-5, "output_audio": 2e-5, "max_output": 1_000}
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing={"singer": price})
    run_id = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, metadata={"ls_model_name": "singer"})
    message = AIMessage(
        "ok",
        usage_metadata={
            "input_tokens": 100,
            "output_tokens": 50,
            "total_tokens": 150,
            "input_token_details": {"audio": 30},
            "output_token_details": {"audio": 20},
        },
    )
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)
    assert handler.spent_usd * 10**9 == 70 * 1_000 + 30 * 10_000 + 30 * 2_000 + 20 * 20_000


def test_a_free_variant_costs_nothing_though_its_answer_names_the_model_that_costs() -> None:
    prices = {"meta/llama:free": (0, 0), "meta/llama": (1e-6, 1e-6)}
    handler, run_id = BudgetCallbackHandler(Budget("$1.00"), pricing=prices), uuid4()
    handler.on_chat_model_start(
        {"kwargs": {"openai_api_base": "https://openrouter.ai/api/v1"}},
        [[HumanMessage("hi")]],
        run_id=run_id,
        metadata={"ls_model_name": "meta/llama:free"},
        invocation_params={"model": "meta/llama:free", "_type": "openai-chat", "max_tokens": 50},
    )
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0}
    told: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    message = AIMessage("ok", usage_metadata=told, response_metadata={"token_usage": usage, "model_name": "meta/llama"})
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)
    assert handler.spent_usd == 0
    assert list(handler.report().breakdown.llm.by_model) == ["meta/llama:free"]


# Whose prices count


@pytest.mark.parametrize(
    ("constructor", "metadata", "refused"),
    [
        ({}, {"ls_provider": "openai"}, False),
        ({"openai_api_base": "https://my-gateway.example/v1"}, {"ls_provider": "openai"}, False),
        ({"openai_api_base": "https://api.deepseek.com"}, {"ls_provider": "openai"}, True),
        ({"base_url": "http://localhost:11434"}, {"ls_provider": "ollama"}, True),
        ({}, {"ls_provider": "ollama"}, True),
        ({}, {}, False),
    ],
)
def test_a_models_price_is_that_of_whoever_is_asked(constructor: Any, metadata: Any, refused: bool) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))

    def start() -> None:
        handler.on_chat_model_start(
            {"kwargs": constructor},
            [[HumanMessage("hi")]],
            run_id=uuid4(),
            metadata={"ls_model_name": "gpt-4o-mini", **metadata},
        )

    if refused:
        with pytest.raises(UnknownPriceError):
            start()
    else:
        start()
        assert handler.reserved_usd > 0


def test_an_answer_of_nothing_tells_no_usage() -> None:
    from budget_guard_langchain.response import Reply as Answered

    nothing = Answered(LLMResult(generations=[]))
    assert nothing.read().usage is None
    assert (nothing.text, nothing.finish, nothing.model) == ("", None, None)
