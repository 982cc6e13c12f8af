"""Requests at a price that the user names, and parameters that the user admits."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

import httpx2
import openai

from budget_guard import Allowance, Budget, BudgetExceeded, Session, UnboundedCallError
from budget_guard.testing import LocalProvider
from tests.integrations.clients.support import agree, ask, open_ai
from tests.integrations.clients.walk import http_of

IMAGES = {"/images/generations": "0.04"}
MADE = {"created": 1, "data": [{"b64_json": "eA=="}]}


class Maker:
    """A provider of pictures that answers with *status*, or raises."""

    def __init__(self, status: int = 200, error: Exception | None = None) -> None:
        self.status, self.error = status, error
        self.sent: list[str] = []
        self.held: list[Decimal] = []
        self.session: Session | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(f"{request.method} {request.url.path}")
        if self.session is not None:
            self.held.append(self.session.reserved_usd)
        if self.error is not None:
            raise self.error
        return httpx2.Response(self.status, json=MADE if self.status < 300 else {"error": {"message": "no"}})

    def client(self, **options: Any) -> openai.OpenAI:
        http = http_of(openai).Client(transport=http_of(openai).MockTransport(self))
        return openai.OpenAI(api_key="x", max_retries=0, http_client=http, **options)

    def async_client(self) -> openai.AsyncOpenAI:
        async def answer(request: httpx2.Request) -> httpx2.Response:
            return self(request)

        http = http_of(openai).AsyncClient(transport=http_of(openai).MockTransport(answer))
        return openai.AsyncOpenAI(api_key="x", max_retries=0, http_client=http)


def session_of(maker: Maker, budget: str = "$1", **options: Any) -> Session:
    session = Budget(budget, allowance=Allowance(requests=IMAGES), **options).session()
    maker.session = session
    return session


def draw(client: openai.OpenAI) -> Any:
    return client.images.generate(prompt="x", model="gpt-image-1")


def test_a_request_at_a_known_price_is_held_before_it_is_sent_and_booked_after() -> None:
    maker = Maker()
    session = session_of(maker)
    assert draw(session.guard(maker.client(), agent="painter")).data[0].b64_json == "eA=="
    assert maker.sent == ["POST /v1/images/generations"] and maker.held == [Decimal("0.04")]
    assert session.spent_usd == Decimal("0.04") and session.reserved_usd == 0
    report = session.report()
    assert [(tool, line.total) for tool, line in report.breakdown.tools.by_tool.items()] == [
        ("/images/generations", Decimal("0.04"))
    ]
    assert report.by_agent["painter"].total == Decimal("0.04")


async def test_of_the_async_client_as_well() -> None:
    maker = Maker()
    session = session_of(maker, "$0.10")
    async with session.guard(maker.async_client()) as client:
        results = await asyncio.gather(
            *[client.images.generate(prompt="x", model="gpt-image-1") for _ in range(20)], return_exceptions=True
        )
    assert len(maker.sent) == 2 and sum(isinstance(each, BudgetExceeded) for each in results) == 18
    assert session.spent_usd == Decimal("0.08") and session.reserved_usd == 0


@pytest.mark.parametrize(("error", "spent"), [(httpx2.ConnectError("no"), "0"), (httpx2.ReadTimeout("late"), "0.04")])
async def test_one_that_is_not_answered_is_booked_unless_it_was_never_sent(error: Exception, spent: str) -> None:
    class Failing(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            raise error

    session = session_of(Maker())
    client = openai.AsyncOpenAI(
        api_key="x",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=Failing()),
        base_url="https://api.openai.com/v1",
    )
    async with session.guard(client) as guarded:
        with pytest.raises(openai.APIConnectionError):
            await guarded.images.generate(prompt="x", model="gpt-image-1")
    assert (session.spent_usd, session.reserved_usd) == (Decimal(spent), Decimal(0))


def test_of_many_threads_at_once_no_more_are_sent_than_the_budget_pays_for() -> None:
    maker = Maker()
    session = session_of(maker)
    client = session.guard(maker.client())
    stops: list[BudgetExceeded] = []

    def work() -> None:
        try:
            draw(client)
        except BudgetExceeded as stop:
            stops.append(stop)

    threads = [threading.Thread(target=work) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(maker.sent) == 25 and len(stops) == 35
    assert all(isinstance(stop, openai.OpenAIError) and stop.decision_id for stop in stops)
    assert session.spent_usd == 1 and session.reserved_usd == 0


@pytest.mark.parametrize(
    ("maker", "booked"),
    [
        (Maker(429), "0"),
        (Maker(400), "0"),
        (Maker(500), "0.04"),
        (Maker(error=httpx2.ConnectError("no")), "0"),
        (Maker(error=httpx2.ReadTimeout("late")), "0.04"),
    ],
)
def test_what_was_not_answered_is_booked_as_its_outcome_says(maker: Maker, booked: str) -> None:
    session = session_of(maker)
    with pytest.raises(openai.OpenAIError):
        draw(session.guard(maker.client()))
    assert len(maker.sent) == 1
    assert session.spent_usd == Decimal(booked) and session.reserved_usd == 0


def test_the_path_is_matched_whole_and_a_name_in_braces_is_any() -> None:
    maker = Maker()
    prices = {"/threads/{id}/runs": "0.10"}
    session = Budget("$1", allowance=Allowance(requests=prices)).session()
    client = session.guard(maker.client())
    client.post("/threads/t1/runs", cast_to=object)
    for path in ("/threads/runs", "/threads/a/b/runs", "/threads/t1/runs/r1/steps", "/of/threads/t1/runs"):
        with pytest.raises(UnboundedCallError, match="allowance=Allowance"):
            client.post(path, cast_to=object)
    client.get("/threads/t1/runs", cast_to=object)
    assert maker.sent == ["POST /v1/threads/t1/runs", "GET /v1/threads/t1/runs"]
    assert session.spent_usd == Decimal("0.10")


def test_an_azure_deployment_stands_before_the_path() -> None:
    maker = Maker()
    http = http_of(openai).Client(transport=http_of(openai).MockTransport(maker))
    azure = openai.AzureOpenAI(
        api_key="x", api_version="2024-10-21", azure_endpoint="https://me.openai.azure.com", http_client=http
    )
    session = session_of(maker)
    session.guard(azure).images.generate(prompt="x", model="pictures")
    assert maker.sent == ["POST /openai/deployments/pictures/images/generations"]
    assert session.spent_usd == Decimal("0.04")


def test_guarded_in_two_sessions_both_must_name_a_price_and_the_highest_counts() -> None:
    maker = Maker()
    parent = Budget("$1", allowance=Allowance(requests={"/images/generations": "0.05"})).session()
    child = session_of(maker)
    draw(child.guard(parent.guard(maker.client())))
    assert [each.spent_usd for each in (parent, child)] == [Decimal("0.05")] * 2
    with pytest.raises(UnboundedCallError):
        draw(Budget("$1").session().guard(child.guard(maker.client())))
    assert len(maker.sent) == 1


def test_a_guarded_http_client_below_counts_it_once() -> None:
    maker = Maker()
    session = session_of(maker)
    http = session.guard(http_of(openai).Client(transport=http_of(openai).MockTransport(maker)))
    draw(session.guard(openai.OpenAI(api_key="x", max_retries=0, http_client=http)))
    assert maker.held == [Decimal("0.04")] and session.spent_usd == Decimal("0.04")


def test_a_price_by_request_for_what_is_held_by_its_tokens_is_a_mistake() -> None:
    session = Budget("$1", allowance=Allowance(requests={"/chat/completions": "0.04"})).session()
    with pytest.raises(ValueError, match=r"allowance\.requests\['/chat/completions'\].*pricing="):
        session.guard(openai.OpenAI(api_key="x"))


# Parameters


def test_a_structure_that_nobody_knows_is_refused_unless_it_is_named(provider: LocalProvider) -> None:
    more: dict[str, Any] = {"extra_body": {"novelty": {"effort": 5}}}
    with pytest.raises(UnboundedCallError, match=r"parameter novelty.*Allowance\(parameters=\('novelty',\)\)"):
        ask(Budget("$1").session().guard(open_ai(provider)), **more)
    assert provider.calls == []
    session = Budget("$1", allowance=Allowance(parameters=("novelty",))).session()
    ask(session.guard(open_ai(provider)), **more)
    agree(provider, session)
    with pytest.raises(UnboundedCallError, match="novelty"):  # every budget has to admit it
        ask(Budget("$1").session().guard(session.guard(open_ai(provider))), **more)


def test_a_plain_value_that_nobody_knows_passes_with_one_warning(
    provider: LocalProvider, recwarn: pytest.WarningsRecorder
) -> None:
    session = Budget("$1").session()
    client = session.guard(open_ai(provider))
    with pytest.warns(RuntimeWarning, match=r"'novelty_of_a_number'.*Allowance\(parameters=") as told:
        for _ in range(3):
            ask(client, extra_body={"novelty_of_a_number": 5})
    assert len(told) == 1
    named = Budget("$1", allowance=Allowance(parameters=("named_number",))).session()
    ask(named.guard(open_ai(provider)), extra_body={"named_number": 5})
    assert not recwarn.list
    agree(provider)
