"""Answers that were made without the guard are booked once, by what they say; nothing is booked as $0 in silence."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from budget_guard import Budget, BudgetExceeded, BudgetRevoked, Session, UnknownPriceError
from budget_guard.testing import LocalProvider, Rates, Reply
from tests.integrations.clients.support import (
    CLAUDE,
    GPT,
    MESSAGES,
    agree,
    ask,
    ask_claude,
    async_claude,
    async_open_ai,
    claude,
    open_ai,
)

Shape = Callable[[LocalProvider], Any]
EMBEDDING, COMMAND, INSTRUCT = "text-embedding-3-small", "command-r-08-2024", "gpt-3.5-turbo-instruct"
GEMINI = "gemini-2.5-flash"
REPLY = Reply(text='{"n": 1}', input_tokens=1_000, output_tokens=500, cached_tokens=300)


class Number(BaseModel):
    n: int


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(REPLY, prices={EMBEDDING: Rates(input="0.02", output=0)}) as running:
        yield running


def post(provider: LocalProvider, path: str, **body: Any) -> httpx.Response:
    with httpx.Client(base_url=provider.root_url, headers={"authorization": "Bearer x"}) as http:
        return http.post(path, json=body)


def without_request(response: httpx.Response) -> httpx.Response:
    """The same answer, as something that keeps answers gives it back: nobody knows what was asked."""
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)


def gemini(provider: LocalProvider) -> Any:
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key="x", http_options={"base_url": provider.root_url})
    try:
        return client.models.generate_content(model=GEMINI, contents="Hi")
    finally:
        client.close()


def message_of_langchain(provider: LocalProvider, **options: Any) -> Any:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    return chat(model=GPT, base_url=provider.base_url, api_key="x", **options).invoke("Hi")


def claude_of_langchain(provider: LocalProvider) -> Any:
    chat = pytest.importorskip("langchain_anthropic").ChatAnthropic
    return chat(model_name=CLAUDE, base_url=provider.root_url, api_key="x").invoke("Hi")


def structured_of_langchain(provider: LocalProvider) -> Any:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    model = chat(model=GPT, base_url=provider.base_url, api_key="x")
    return model.with_structured_output(Number, include_raw=True, method="json_mode").invoke("json: hi")


def of_instructor(provider: LocalProvider) -> Any:
    made = Number(n=1)
    object.__setattr__(made, "_raw_response", ask(open_ai(provider)))  # as instructor does
    return made


SHAPES: dict[str, Shape] = {
    "ChatCompletion": lambda p: ask(open_ai(p)),
    "ParsedChatCompletion": lambda p: open_ai(p).chat.completions.parse(
        model=GPT, messages=MESSAGES, response_format=Number
    ),
    "raw ChatCompletion": lambda p: open_ai(p).chat.completions.with_raw_response.create(model=GPT, messages=MESSAGES),
    "dict of ChatCompletion": lambda p: ask(open_ai(p)).model_dump(),
    "Response": lambda p: open_ai(p).responses.create(model=GPT, input="Hi"),
    "ParsedResponse": lambda p: open_ai(p).responses.parse(model=GPT, input="Hi", text_format=Number),
    "dict of Response": lambda p: open_ai(p).responses.create(model=GPT, input="Hi").model_dump(mode="json"),
    "Completion": lambda p: open_ai(p).completions.create(model=INSTRUCT, prompt="Hi"),
    "embeddings": lambda p: open_ai(p).embeddings.create(model=EMBEDDING, input="Hi"),
    "dict of embeddings": lambda p: open_ai(p).embeddings.create(model=EMBEDDING, input="Hi").model_dump(),
    "Message": lambda p: ask_claude(claude(p)),
    "raw Message": lambda p: claude(p).messages.with_raw_response.create(
        model=CLAUDE, messages=MESSAGES, max_tokens=1_000
    ),
    "dict of Message": lambda p: ask_claude(claude(p)).to_dict(),
    "GenerateContentResponse": gemini,
    "dict of GenerateContentResponse": lambda p: gemini(p).model_dump(),
    "AIMessage": message_of_langchain,
    "AIMessage of Responses": lambda p: message_of_langchain(p, use_responses_api=True),
    "AIMessage of Claude": claude_of_langchain,
    "AIMessage beside what was parsed": structured_of_langchain,
    "instructor's": of_instructor,
    "httpx.Response": lambda p: post(p, "/v1/chat/completions", model=GPT, messages=MESSAGES),
    "httpx.Response of no request": lambda p: without_request(
        post(p, "/v1/chat/completions", model=GPT, messages=MESSAGES)
    ),
    "JSON of Claude": lambda p: post(p, "/v1/messages", model=CLAUDE, messages=MESSAGES, max_tokens=99).json(),
    "JSON of Gemini": lambda p: post(
        p, f"/v1beta/models/{GEMINI}:generateContent", contents=[{"parts": [{"text": "Hi"}]}]
    ).json(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_booked_as_billed_handed_back_and_booked_once(provider: LocalProvider, shape: str) -> None:
    session = Budget("$5.00").session()
    answer = SHAPES[shape](provider)

    assert session.wrap(answer) is answer
    assert provider.bill_usd > 0
    agree(provider, session)
    session.wrap(answer)
    asyncio.run(session.awrap(answer))
    agree(provider, session)
    assert session.report().unpriced_calls == 0
    assert session.report().breakdown.llm.calls == 1


def test_an_answer_that_names_no_model_is_booked_by_the_name_given(provider: LocalProvider) -> None:
    session = Budget("$5.00").session()
    cohere = post(provider, "/v2/chat", model=COMMAND, messages=MESSAGES).json()
    with pytest.raises(UnknownPriceError):
        Budget("$5.00").session().wrap(cohere)

    assert session.wrap(cohere, model=COMMAND, agent="Researcher") is cohere
    agree(provider, session)
    assert session.report().by_agent["Researcher"].total == provider.bill_usd


@pytest.mark.parametrize("shape", ["ChatCompletion", "Response", "Message", "embeddings", "raw ChatCompletion"])
def test_an_answer_that_the_guard_has_booked_is_not_booked_again(provider: LocalProvider, shape: str) -> None:
    session = Budget("$5.00").session()
    plain, plain_claude = open_ai(provider), claude(provider)
    client, of_claude = session.guard(plain), session.guard(plain_claude)
    made: dict[str, Callable[[], Any]] = {
        "ChatCompletion": lambda: ask(client),
        "Response": lambda: client.responses.create(model=GPT, input="Hi"),
        "Message": lambda: ask_claude(of_claude),
        "embeddings": lambda: client.embeddings.create(model=EMBEDDING, input="Hi"),
        "raw ChatCompletion": lambda: client.chat.completions.with_raw_response.create(model=GPT, messages=MESSAGES),
    }

    session.wrap(made[shape]())
    agree(provider, session)


def test_in_another_session_than_the_guards_it_is_booked() -> None:
    with LocalProvider(REPLY) as provider:
        guarded, other = Budget("$5.00").session(), Budget("$5.00").session()
        other.wrap(ask(guarded.guard(open_ai(provider))))
        agree(provider, guarded, other)


def test_a_message_of_a_guarded_model_is_booked_once(provider: LocalProvider) -> None:
    handlers = pytest.importorskip("budget_guard.integrations.langchain")
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    handler = handlers.BudgetCallbackHandler(Budget("$5.00"))
    model = chat(model=GPT, base_url=provider.base_url, api_key="x", callbacks=[handler])

    handler.session.wrap(model.invoke("Hi"))
    agree(provider, handler.session)


def test_a_thousand_ids_are_known_and_memory_stays_bounded() -> None:
    session = Budget("$5.00").session()
    for i in range(1_100):
        session.note_answer(f"id-{i}")
    answer = {"id": "id-500", "object": "chat.completion", "model": GPT, "choices": [], "usage": {}}

    assert session.wrap(answer) is answer
    assert session.report().breakdown.llm.calls == 0
    with pytest.raises(UnknownPriceError):
        session.wrap({**answer, "id": "id-0"})


# --- what is no answer


def test_a_coroutine_is_refused_unsent_and_awrap_takes_it(provider: LocalProvider) -> None:
    session = Budget("$5.00").session()

    async def run() -> None:
        async with async_open_ai(provider) as client, async_claude(provider) as of_claude:
            await all_of_them(client, of_claude)

    async def all_of_them(client: openai.AsyncOpenAI, of_claude: anthropic.AsyncAnthropic) -> None:
        with pytest.raises(TypeError, match="awrap"):
            session.wrap(cast(object, client.chat.completions.create(model=GPT, messages=MESSAGES)))
        assert (len(provider.calls), session.report().unpriced_calls) == (0, 0)
        answer = await session.awrap(client.chat.completions.create(model=GPT, messages=MESSAGES))
        assert answer.choices[0].message.content == REPLY.text
        raw = await session.awrap(client.chat.completions.with_raw_response.create(model=GPT, messages=MESSAGES))
        assert raw.status_code == 200
        async with client.chat.completions.with_streaming_response.create(model=GPT, messages=MESSAGES) as response:
            with pytest.raises(TypeError, match="awrap"):
                session.wrap(response)
            assert await session.awrap(response) is response
        message = await session.awrap(of_claude.messages.create(model=CLAUDE, messages=MESSAGES, max_tokens=100))
        assert message.usage.output_tokens == 100

    asyncio.run(run())
    gc.collect()
    agree(provider, session)


def streams(provider: LocalProvider) -> Iterator[Any]:
    yield ask(open_ai(provider), stream=True)
    yield open_ai(provider).responses.create(model=GPT, input="Hi", stream=True)
    yield ask_claude(claude(provider), stream=True)
    yield (chunk for chunk in "abc")
    yield open_ai(provider).chat.completions.with_raw_response.create(model=GPT, messages=MESSAGES, stream=True)


def test_a_stream_is_refused_and_counted_as_unpriced(provider: LocalProvider) -> None:
    session = Budget("$5.00").session()
    count = 0
    for stream in streams(provider):
        count += 1
        with pytest.raises(TypeError, match=r"session\.guard\(client\)"):
            session.wrap(stream)
        assert session.report().unpriced_calls == count
    assert session.report().breakdown.llm.calls == 5
    with pytest.raises(TypeError, match=r"session\.guard\(client\)"):
        asyncio.run(session.awrap(iter("abc")))


@pytest.mark.parametrize("value", [None, "text", b"", 3, [1], {"a": 1}, {}, object(), Number(n=1), Number, len])
def test_anything_else_is_refused_naming_charge_and_nothing_is_booked(value: Any) -> None:
    session = Budget("$5.00").session()
    with pytest.raises(TypeError, match="charge"):
        session.wrap(value)
    with pytest.raises(TypeError, match="charge"):
        asyncio.run(session.awrap(value))
    assert session.report().breakdown.llm.calls == 0


@pytest.mark.parametrize(("status", "unpriced"), [(429, 0), (400, 0), (500, 1)])
def test_a_refusal_costs_nothing_and_a_failure_is_unpriced(status: int, unpriced: int) -> None:
    with LocalProvider(Reply(status=status)) as provider:
        session = Budget("$5.00").session()
        response = post(provider, "/v1/chat/completions", model=GPT, messages=MESSAGES)
        if unpriced:
            with pytest.raises(UnknownPriceError) as caught:
                session.wrap(response)
            assert caught.value.value is response
        else:
            assert session.wrap(response) is response
        assert session.report().unpriced_calls == unpriced


# --- what it does not say


def without(answer: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {name: value for name, value in {**answer, **changed}.items() if value is not ...}


CHAT = {
    "id": "c1",
    "object": "chat.completion",
    "model": GPT,
    "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
UNKNOWN = {
    "no usage": without(CHAT, usage=...),
    "usage of nothing": without(CHAT, usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "usage that is none": without(CHAT, usage=None),
    "a model without a price": without(CHAT, model="unheard-of"),
    "no model": without(CHAT, model=...),
    "a message without usage": {"type": "message", "id": "m1", "model": CLAUDE, "content": []},
}


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_priced_is_counted_and_raised_with_the_answer(what: str, awaits: bool) -> None:
    session = Budget("$5.00").session()
    answer = UNKNOWN[what]

    with pytest.raises(UnknownPriceError) as caught:
        asyncio.run(session.awrap(answer)) if awaits else session.wrap(answer)
    assert caught.value.value is answer
    assert "To allow it" in str(caught.value)
    report = session.report()
    assert (report.unpriced_calls, report.breakdown.llm.calls) == (1, 1)
    assert report.terminated_by == "unknown_price"
    assert session.wrap(answer) is answer  # it is counted


@pytest.mark.parametrize(
    "budget",
    [
        Budget("$5.00", mode="advisory_estimate"),
        Budget("$5.00", mode="actuals_only"),
        Budget("$5.00", unpriced="allow"),
    ],
    ids=str,
)
@pytest.mark.parametrize("what", UNKNOWN)
def test_where_nothing_is_promised_it_is_counted_alone(what: str, budget: Budget) -> None:
    session = budget.session()
    assert session.wrap(UNKNOWN[what]) is UNKNOWN[what]
    assert session.report().unpriced_calls == 1


def test_without_a_dollar_limit_a_price_is_not_asked_for_and_usage_is() -> None:
    session = Budget(max_total_tokens=1_000).session()
    session.wrap(UNKNOWN["a model without a price"])
    assert session.committed.total_tokens == 15
    with pytest.raises(UnknownPriceError):
        session.wrap({**UNKNOWN["no usage"], "id": "c2"})


# --- past the limit


@pytest.mark.parametrize("awaits", [False, True])
def test_past_the_limit_it_is_booked_and_the_stop_carries_the_answer(provider: LocalProvider, awaits: bool) -> None:
    session = Budget("$0.0001").session()
    answer = ask(open_ai(provider))

    with pytest.raises(BudgetExceeded) as caught:
        asyncio.run(session.awrap(answer)) if awaits else session.wrap(answer)
    assert caught.value.value is answer
    agree(provider, session)
    assert session.wrap(answer) is answer  # it is booked


def test_after_a_revocation_it_is_booked_and_raises_with_the_answer(provider: LocalProvider) -> None:
    session = Budget("$5.00").session()
    session.revoke("compromised")
    answer = ask(open_ai(provider))

    with pytest.raises(BudgetRevoked, match="compromised") as caught:
        session.wrap(answer)
    assert caught.value.value is answer
    agree(provider, session)


def test_an_answer_that_could_not_be_booked_can_be_wrapped_again(provider: LocalProvider) -> None:
    from budget_guard import LedgerUnavailable, MemoryLedger

    class Broken(MemoryLedger):
        broken = True

        def charge(self, *arguments: Any, **options: Any) -> Any:
            if self.broken:
                raise LedgerUnavailable(detail="gone")
            return super().charge(*arguments, **options)

    ledger = Broken()
    session = Budget("$5.00").session(ledger=ledger)
    answer = ask(open_ai(provider))
    with pytest.raises(LedgerUnavailable) as caught:
        session.wrap(answer)
    assert caught.value.value is answer
    ledger.broken = False
    session.wrap(answer)
    agree(provider, session)


def test_many_threads_that_wrap_one_answer_book_it_once(provider: LocalProvider) -> None:
    from budget_guard.testing.ledger_contract import race

    session = Budget("$5.00").session()
    answer = ask(open_ai(provider))
    race([lambda: session.wrap(answer)] * 30)
    agree(provider, session)


def test_a_cheaper_tier_and_a_figure_of_the_provider_are_booked() -> None:
    session = Budget("$5.00").session()
    session.wrap(without(CHAT, usage={**CHAT["usage"], "cost": 0.5}, id="gen-1", model="openai/gpt-4o"))  # type: ignore[dict-item]
    assert session.spent_usd == Decimal("0.5")
    assert session.report().from_provider == Decimal("0.5")


def test_the_types_of_the_sdks_are_what_is_tested_here(provider: LocalProvider) -> None:
    assert isinstance(ask(open_ai(provider)), openai.types.chat.ChatCompletion)
    assert isinstance(ask_claude(claude(provider)), anthropic.types.Message)


def test_a_session_of_another_kind_is_not_touched(provider: LocalProvider) -> None:
    one, other = Budget("$5.00").session(), Budget("$5.00").session()
    answer = ask(open_ai(provider))
    one.wrap(answer), other.wrap(answer)
    agree(provider, one, other)
    assert isinstance(one, Session)


def _response(content: bytes, path: str = "/v1/chat/completions", status: int = 200, **headers: str) -> httpx.Response:
    request = httpx.Request("POST", f"https://llm.example{path}")
    return httpx.Response(status, content=content, request=request, headers=headers)


def test_a_response_of_an_http_library_that_is_no_answer_is_refused() -> None:
    session = Budget("$1").session()
    with pytest.raises(TypeError, match="cannot be read as JSON: JSONDecodeError"):
        session.wrap(_response(b"{"))
    with pytest.raises(TypeError, match="endpoint that no model answers at"):
        session.wrap(_response(b'{"odd": 1}', "/v1/odd"))
    assert session.spent_usd == 0


class _Dumps:
    """An object whose `model_dump` takes no arguments."""

    def model_dump(self) -> dict[str, Any]:
        return {
            "object": "chat.completion",
            "id": "chatcmpl-1",
            "model": GPT,
            "choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}],
            "usage": {"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010},
        }


def test_an_object_with_a_dump_of_its_own_and_embeddings_without_usage_are_read() -> None:
    session = Budget("$1").session()
    session.wrap(_Dumps())
    assert session.report().breakdown.llm.calls == 1 and session.spent_usd > 0
    vectors = {"object": "list", "model": EMBEDDING, "data": [{"object": "embedding", "embedding": [0.5], "index": 0}]}
    with pytest.raises(UnknownPriceError):
        session.wrap(vectors)
    assert session.report().unpriced_calls == 1
