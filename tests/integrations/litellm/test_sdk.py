"""LiteLLM's SDK under a budget: completion, acompletion and a router of one's own."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import litellm
import openai
import pytest
from litellm.caching.caching import Cache

import budget_guard
from budget_guard import Budget, Decision, DowngradePolicy, Session
from budget_guard.integrations.litellm import (
    BudgetExceeded,
    BudgetGuard,
    BudgetStop,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
    acompletion,
    completion,
)
from budget_guard.testing import LocalProvider, Rates, Reply
from tests.integrations.frameworks import page

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients that LiteLLM keeps, on loops that have ended
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of LiteLLM's own models of answers
]

NAMES = ("dime", "cheap", "flaky", "limited", "drops", "empty", "silent", "filtered", "gated", "down")
DIME = Rates(input="0", output="10000")
RATES = {**dict.fromkeys(NAMES, DIME), "cheap": Rates(input="0", output="1000")}
PRICES: Any = {**dict.fromkeys(NAMES, (0, 10_000)), "cheap": (0, 1_000)}
MESSAGES = [{"role": "user", "content": "hi"}]
ASKS_THE_SAME_AGAIN = tuple(map(int, version("litellm").split(".")[:2])) < (1, 106)
"""Where a stream breaks that is not awaited, LiteLLM's router asks the same model again, and never a fallback."""


def replies(request: Any) -> Reply:
    wrong: dict[str, dict[str, Any]] = {
        "flaky": {"status": 500},
        "limited": {"status": 429},
        "drops": {"drop_after": 2},
        "empty": {"drop_after": 0},
        "silent": {"usage": "off", "output_tokens": 3},
        "gated": {"gate_chunks": True},
        "filtered": {
            "status": 400,
            "body": {
                "error": {
                    "message": "content policy: safety system",
                    "type": "invalid_request_error",
                    "code": "content_policy_violation",
                }
            },
        },
    }
    return Reply(**{"text": "x " * 10, "output_tokens": 10, **wrong.get(request.model, {})})


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(replies, prices=RATES) as running:
        yield running
    gc.collect()


@pytest.fixture
def session() -> Session:
    return session_of("$1.00")


def session_of(limit: str, **options: Any) -> Session:
    return Budget(limit, **{"max_wait_s": 0, **options}).session(per_million=PRICES)


def asked(provider: LocalProvider, model: str = "dime", **more: Any) -> dict[str, Any]:
    where = {"api_base": provider.base_url, "api_key": "none"}
    return {"model": f"openai/{model}", "messages": MESSAGES, "max_tokens": 10, **where, **more}


def router_of(guard: BudgetGuard, provider: LocalProvider, **more: Any) -> Any:
    if not hasattr(litellm.router.Router, "_completion"):
        with pytest.raises(NotImplementedError, match="litellm below"):
            guard.router(model_list=[])
        pytest.skip("the router of this version cannot be held, and says so")
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": provider.base_url, "api_key": "none"},
        }
        for name in NAMES
    ]
    return guard.router(model_list=models, disable_cooldowns=True, **{"num_retries": 0, "retry_after": 0, **more})


Ask = Callable[..., Any]


def by_function(guard: BudgetGuard, provider: LocalProvider, model: str = "dime", **more: Any) -> Any:
    return guard.completion(**asked(provider, model, **more))


def by_awaiting(guard: BudgetGuard, provider: LocalProvider, model: str = "dime", **more: Any) -> Any:
    return asyncio.run(_awaited(guard.acompletion(**asked(provider, model, **more))))


def by_router(guard: BudgetGuard, provider: LocalProvider, model: str = "dime", **more: Any) -> Any:
    options = {name: more.pop(name) for name in ("num_retries", "fallbacks") if name in more}
    return _read(router_of(guard, provider, **options).completion(model, MESSAGES, **{"max_tokens": 10, **more}))


def by_awaiting_router(guard: BudgetGuard, provider: LocalProvider, model: str = "dime", **more: Any) -> Any:
    options = {name: more.pop(name) for name in ("num_retries", "fallbacks") if name in more}

    async def ask() -> Any:
        asking = router_of(guard, provider, **options).acompletion(model, MESSAGES, **{"max_tokens": 10, **more})
        return await _awaited(asking)

    return asyncio.run(ask())


async def _awaited(asking: Any) -> Any:
    answer = await asking
    if isinstance(answer, litellm.CustomStreamWrapper):
        return [piece async for piece in answer]
    return answer


def _read(answer: Any) -> Any:
    return list(answer) if isinstance(answer, litellm.CustomStreamWrapper) else answer


WAYS: dict[str, Ask] = {
    "completion": lambda guard, provider, model="dime", **more: _read(by_function(guard, provider, model, **more)),
    "acompletion": by_awaiting,
    "router": by_router,
    "router, awaited": by_awaiting_router,
}


@pytest.fixture(params=list(WAYS))
def ask(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_litellms_own_and_booked_exactly(
    provider: LocalProvider, session: Session, ask: Ask, stream: bool
) -> None:
    answer = ask(BudgetGuard(session), provider, stream=stream)

    if stream:
        assert "".join(piece.choices[0].delta.content or "" for piece in answer).split() == ["x"] * 10
        assert not any(getattr(piece, "usage", None) for piece in answer)  # nobody asked for it
    else:
        assert isinstance(answer, litellm.ModelResponse) and answer.usage.completion_tokens == 10
    assert session.spent_usd == provider.bill_usd == Decimal("0.1")
    assert session.reserved_usd == 0
    assert session.report().unpriced_calls == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_dollar_pays_for_ten_dimes_and_the_eleventh_is_not_sent(
    provider: LocalProvider, session: Session, ask: Ask, stream: bool
) -> None:
    guard = BudgetGuard(session)
    for _ in range(10):
        ask(guard, provider, stream=stream)

    with pytest.raises(BudgetExceeded) as stopped:
        ask(guard, provider, stream=stream)

    stop = stopped.value
    assert len(provider.calls) == 10
    assert isinstance(stop, budget_guard.BudgetExceeded) and isinstance(stop, openai.OpenAIError)
    assert stop.decision_id and stop.dimension == "max_cost_usd"
    assert pickle.loads(pickle.dumps(stop)).decision_id == stop.decision_id


def test_of_a_hundred_at_once_ten_are_sent_in_threads(provider: LocalProvider, session: Session) -> None:
    guard = BudgetGuard(session)

    def one(_: int) -> bool:
        try:
            guard.completion(**asked(provider))
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(one, range(100))) == 10
    assert provider.bill_usd == session.spent_usd == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_hundred_at_once_ten_are_sent_on_a_loop(
    provider: LocalProvider, session: Session, stream: bool
) -> None:
    guard, router = BudgetGuard(session), router_of(BudgetGuard(session), provider)

    async def one(i: int) -> bool:
        try:
            if i % 2:
                await _awaited(guard.acompletion(**asked(provider, stream=stream)))
            else:
                await _awaited(router.acompletion("dime", MESSAGES, max_tokens=10, stream=stream))
        except BudgetExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*map(one, range(100)))) == 10
    assert provider.bill_usd == session.spent_usd == 1
    assert session.reserved_usd == 0


def test_each_retry_and_each_fallback_is_held(provider: LocalProvider, session: Session, ask: Ask) -> None:
    fallbacks: Any = ["openai/cheap"] if ask in (WAYS["completion"], WAYS["acompletion"]) else [{"flaky": ["cheap"]}]

    ask(BudgetGuard(session), provider, "flaky", num_retries=2, fallbacks=fallbacks)

    assert [call.model for call in provider.calls] == ["flaky", "flaky", "flaky", "cheap"]
    assert session.spent_usd == Decimal("0.31")  # a 500 may have been billed
    assert session.reserved_usd == 0


def test_retries_end_where_the_budget_does(provider: LocalProvider, ask: Ask) -> None:
    session = session_of("$0.25")

    with pytest.raises(BudgetStop):
        ask(BudgetGuard(session), provider, "flaky", num_retries=5)

    assert len(provider.calls) == 2
    assert session.spent_usd == Decimal("0.2")


def test_a_fallback_that_fits_answers_where_the_first_model_does_not(provider: LocalProvider, ask: Ask) -> None:
    session = session_of("$0.05")
    fallbacks: Any = ["openai/cheap"] if ask in (WAYS["completion"], WAYS["acompletion"]) else [{"dime": ["cheap"]}]

    ask(BudgetGuard(session), provider, fallbacks=fallbacks)

    assert [call.model for call in provider.calls] == ["cheap"]


def test_retries_of_litellms_module_and_of_its_clients_are_not_made_unseen(
    provider: LocalProvider, session: Session, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "num_retries", 1)

    with pytest.raises(openai.OpenAIError):
        ask(BudgetGuard(session), provider, "flaky")

    assert session.spent_usd == Decimal("0.1") * len(provider.calls)  # as many as were held


@pytest.mark.parametrize("model", ["limited", "down"])
def test_what_was_never_billed_is_given_back(provider: LocalProvider, session: Session, model: str) -> None:
    more = {"api_base": "http://127.0.0.1:9/v1"} if model == "down" else {}

    with pytest.raises(openai.APIError):
        BudgetGuard(session).completion(**asked(provider, model, **more))

    assert session.spent_usd == session.reserved_usd == 0


def test_a_content_filter_may_have_been_billed(provider: LocalProvider, session: Session) -> None:
    with pytest.raises(openai.OpenAIError):
        BudgetGuard(session).completion(**asked(provider, "filtered"))

    assert session.spent_usd == Decimal("0.1")


@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_litellm_makes_up_is_no_bill(
    provider: LocalProvider, session: Session, ask: Ask, stream: bool
) -> None:
    ask(BudgetGuard(session), provider, "silent", stream=stream)

    assert session.spent_usd == Decimal("0.1") > provider.bill_usd


def test_a_stream_that_drops_is_booked_at_its_bound(provider: LocalProvider, session: Session, ask: Ask) -> None:
    with pytest.raises(Exception, match=r"."):
        ask(BudgetGuard(session), provider, "drops", stream=True)

    assert session.spent_usd == Decimal("0.1") >= provider.bill_usd
    assert session.reserved_usd == 0


@pytest.mark.parametrize("way", ["router", "router, awaited"])
def test_a_router_that_goes_on_where_a_stream_broke_pays_for_both(
    provider: LocalProvider, session: Session, way: str
) -> None:
    if way == "router" and ASKS_THE_SAME_AGAIN:
        pytest.skip("see the next test")
    ask = WAYS[way]

    ask(BudgetGuard(session), provider, "empty", stream=True, fallbacks=[{"empty": ["dime"]}])

    assert [call.model for call in provider.calls] == ["empty", "dime"]
    assert session.spent_usd == Decimal("0.2") >= provider.bill_usd
    assert session.reserved_usd == 0


@pytest.mark.skipif(not ASKS_THE_SAME_AGAIN, reason="from 1.106 on it goes on, as the test before shows")
def test_a_router_that_asks_again_where_a_stream_broke_without_end_is_ended_by_the_budget(
    provider: LocalProvider, session: Session
) -> None:
    with pytest.raises(BudgetStop):
        by_router(BudgetGuard(session), provider, "empty", stream=True, fallbacks=[{"empty": ["dime"]}])

    assert [call.model for call in provider.calls] == ["empty"] * 10
    assert session.spent_usd == 1 >= provider.bill_usd
    assert session.reserved_usd == 0


@pytest.mark.parametrize("how", ["close", "drop", "never"])
def test_a_stream_that_nobody_reads_to_its_end_is_settled(provider: LocalProvider, session: Session, how: str) -> None:
    stream: Any = BudgetGuard(session).completion(**asked(provider, stream=True))
    if how != "never":
        next(stream)
    if how == "close":
        stream.close()
    del stream
    gc.collect()

    assert session.reserved_usd == 0
    assert session.spent_usd >= provider.bill_usd


@pytest.mark.parametrize("how", ["close", "break", "cancel"])
async def test_a_stream_that_is_left_on_a_loop_is_settled(provider: LocalProvider, session: Session, how: str) -> None:
    async def read() -> None:
        stream: Any = await BudgetGuard(session).acompletion(**asked(provider, "gated", stream=True))
        async for _ in stream:
            if how != "cancel":
                break
        if how == "close":
            await stream.aclose()

    reading = asyncio.ensure_future(read())
    await provider.await_calls(1)
    provider.release_chunk(2)
    if how == "cancel":
        await asyncio.sleep(0)
        reading.cancel()
    with pytest.raises(asyncio.CancelledError) if how == "cancel" else _nothing():
        await reading
    gc.collect()
    for _ in range(50):
        await asyncio.sleep(0)

    assert session.reserved_usd == 0
    assert session.spent_usd >= provider.bill_usd


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_near_the_end_a_cheaper_model_is_called(provider: LocalProvider, ask: Ask) -> None:
    session = session_of("$1.00", downgrade=DowngradePolicy(to="cheap", at=0.05))
    guard = BudgetGuard(session)

    for _ in range(2):
        ask(guard, provider)

    assert [call.model for call in provider.calls] == ["dime", "cheap"]
    assert session.spent_usd == provider.bill_usd


def test_an_output_cap_is_sent_where_there_is_none(provider: LocalProvider, session: Session, ask: Ask) -> None:
    ask(BudgetGuard(session), provider, "cheap", max_tokens=None)

    assert 0 < (provider.calls[-1].max_output_tokens or 0) <= 1_000


def test_calls_that_are_not_chat_are_refused_by_a_guarded_router(provider: LocalProvider, session: Session) -> None:
    router = router_of(BudgetGuard(session), provider)

    with pytest.raises(UnboundedCallError):
        router.embedding("dime", "x")

    assert provider.calls == []


def test_a_model_without_a_price_is_not_called(provider: LocalProvider, session: Session, ask: Ask) -> None:
    with pytest.raises((UnknownPriceError, openai.BadRequestError)):
        ask(BudgetGuard(session), provider, "unpriced")

    assert provider.calls == []


def test_functions_of_the_module_spend_from_the_current_session(provider: LocalProvider, session: Session) -> None:
    with session:
        completion(**asked(provider))
    asyncio.run(acompletion(**asked(provider), guard=session))

    assert session.spent_usd == Decimal("0.2")
    with pytest.raises(TypeError, match="no session is open"):
        completion(**asked(provider))


def test_a_guarded_client_below_counts_nothing_twice(provider: LocalProvider, session: Session) -> None:
    client = session.guard(openai.OpenAI(base_url=provider.base_url, api_key="none", max_retries=0))

    BudgetGuard(session).completion(**asked(provider, client=client))

    assert session.spent_usd == provider.bill_usd == Decimal("0.1")
    assert session.report().breakdown.llm.calls == 1


def test_an_answer_out_of_litellms_cache_costs_nothing(
    provider: LocalProvider, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "cache", Cache())
    guard = BudgetGuard(session)

    for _ in range(3):
        guard.completion(**asked(provider), caching=True)

    assert len(provider.calls) == 1
    assert session.spent_usd == Decimal("0.1")


def test_embeddings_are_held_as_well(provider: LocalProvider, session: Session) -> None:
    where = {"api_base": provider.base_url, "api_key": "none"}
    guard: Any = BudgetGuard(Budget("$0.001").session(per_million={"embed": (1, 0)}))

    guard.embedding("openai/embed", "x", **where)
    with pytest.raises(BudgetExceeded):
        guard.embedding("openai/embed", "word " * 1_000, **where)

    assert len(provider.calls) == 1


def test_what_is_asked_wrongly_says_so(provider: LocalProvider, session: Session) -> None:
    guard = BudgetGuard(session)

    with pytest.raises(ValueError, match="retry_policy"):
        guard.completion(**asked(provider), retry_policy={})
    with pytest.raises(ValueError, match="stream=True"):
        guard.text_completion(model="openai/dime", prompt="x", stream=True)
    with pytest.raises(TypeError, match=r'BudgetGuard\(Budget\("\$5.00"\)\)'):
        BudgetGuard("$5.00")  # type: ignore[arg-type]


async def test_a_ledger_that_is_not_there_is_not_asked_again_and_again(
    provider: LocalProvider, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[object] = []

    async def fails(call: object, **_: object) -> Decision:
        asked_for.append(call)
        raise budget_guard.LedgerUnavailable(detail="Redis is gone")

    monkeypatch.setattr(session, "aauthorize", fails)
    router = router_of(BudgetGuard(session), provider, num_retries=3)

    with pytest.raises(LedgerUnavailable):
        await router.acompletion("dime", MESSAGES, max_tokens=10)

    assert len(asked_for) == 1
    assert provider.calls == []


def test_the_page_is_true() -> None:
    page(str(Path(__file__).parents[3] / "docs" / "litellm.md"))
