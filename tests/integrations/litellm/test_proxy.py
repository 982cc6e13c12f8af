"""LiteLLM's proxy, `litellm --config`, with `proxy_guard` among its callbacks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from budget_guard.protocol import PROTOCOL_HEADERS
from tests.integrations.litellm.support import ALICE, BOB, BODIES, MESSAGES, TOKEN, Guarded, asked

ROUTES = list(BODIES)
FORMS = [(route, stream) for route in ROUTES for stream in (False, True)]


def usage_alone(answer: httpx.Response) -> list[Any]:
    """The usages that a streamed answer of Chat Completions tells."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [found for line in lines if (found := json.loads(line).get("usage"))]


@pytest.mark.parametrize(("route", "stream"), FORMS)
def test_of_a_hundred_dimes_at_once_ten_are_spent_of_a_dollar(guarded: Guarded, route: str, stream: bool) -> None:
    run = f"hundred-{route}-{stream}"
    guarded.asked_of_provider()

    statuses = guarded.proxy.all_at_once(100, route, run, stream=stream)

    assert statuses == Counter({200: 10, 402: 90})
    assert guarded.asked_of_provider() == ["dime"] * 10
    assert guarded.booked(run) == ("1", "0")


@pytest.mark.parametrize(("route", "stream"), FORMS)
def test_an_answer_says_what_was_decided_and_its_record_what_was_booked(
    guarded: Guarded, route: str, stream: bool
) -> None:
    answer = guarded.proxy.post(route, run=f"one-{route}-{stream}", stream=stream)

    assert answer.status_code == 200
    assert answer.headers["x-budget-decision"] == "allow"
    assert answer.headers["x-run-id"] == f"one-{route}-{stream}"
    assert answer.headers["x-budget-remaining-usd"] == "0.9"
    record = guarded.record(answer)
    assert (record["state"], record["cost_usd"], record["uncertain"]) == ("committed", "0.1", False)
    assert record["principals"] == {"user": "master", "key": "key-of-master", "team": "team"}


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_own_models_are_booked_by_their_own_usage(guarded: Guarded, stream: bool) -> None:
    for route in ("chat", "messages"):
        answer = guarded.proxy.post(route, run=f"claude-{stream}", stream=stream, model="claude")

        assert answer.status_code == 200
        record = guarded.record(answer)
        assert (record["state"], record["cost_usd"], record["uncertain"]) == ("committed", "0.1", False)
    assert guarded.booked(f"claude-{stream}") == ("0.2", "0")


def test_a_request_without_a_run_gets_one_of_its_own(guarded: Guarded) -> None:
    one, other = guarded.proxy.post("chat"), guarded.proxy.post("chat")

    assert one.headers["x-run-id"] != other.headers["x-run-id"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_problem_itself_and_the_provider_hears_nothing(
    guarded: Guarded, route: str, stream: bool
) -> None:
    run = f"full-{route}-{stream}"
    assert guarded.proxy.all_at_once(10, "chat", run) == Counter({200: 10})
    guarded.asked_of_provider()

    answer = guarded.proxy.post(route, run=run, stream=stream)

    assert answer.status_code == 402
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-should-retry"] == "false"
    said = answer.json()
    assert said["code"] == said["error"]["code"] == "run_ceiling_reached"
    assert said["budget"]["remaining_usd"] == answer.headers["x-budget-remaining-usd"] == "0"
    assert guarded.asked_of_provider() == []
    assert guarded.record(answer)["decision"] == "block"
    names = {name.lower() for name in PROTOCOL_HEADERS}
    assert names - answer.headers.keys() == {
        *("x-budget-reservation-id", "x-budget-requested-model", "x-budget-selected-model", "x-budget-output-clamped")
    }


def test_each_retry_and_each_fallback_is_held_by_itself(guarded: Guarded) -> None:
    guarded.asked_of_provider()

    answer = guarded.proxy.post("chat", run="retries", model="shaky", num_retries=2)

    assert answer.status_code == 200
    assert guarded.asked_of_provider() == ["flaky", "flaky", "flaky", "cheap"]
    assert guarded.booked("retries") == ("0.31", "0")  # a 500 may have been billed
    assert guarded.record(answer)["selected"] == "cheap"


def test_retries_that_do_not_fit_are_not_made(guarded: Guarded) -> None:
    assert guarded.proxy.all_at_once(8, "chat", "few") == Counter({200: 8})
    guarded.asked_of_provider()

    answer = guarded.proxy.post("chat", run="few", model="flaky", num_retries=5)

    assert answer.status_code == 402
    assert guarded.asked_of_provider() == ["flaky", "flaky"]
    assert guarded.booked("few") == ("1", "0")


def test_a_client_of_litellms_own_retries_nothing_unseen(guarded: Guarded) -> None:
    guarded.asked_of_provider()

    answer = guarded.proxy.post("chat", run="unseen", model="retrying")

    assert answer.status_code == 500
    assert len(guarded.asked_of_provider()) == 1
    assert guarded.booked("unseen") == ("0.1", "0")


def test_fallbacks_are_a_ladder_whose_cheaper_rung_fits(guarded: Guarded) -> None:
    assert guarded.proxy.all_at_once(9, "chat", "ladder") == Counter({200: 9})
    assert guarded.proxy.post("chat", run="ladder", model="cheap").status_code == 200
    guarded.asked_of_provider()

    answers = [guarded.proxy.post("chat", run="ladder", model="ladder") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert guarded.asked_of_provider() == ["cheap", "cheap"]
    assert answers[0].headers["x-budget-decision"] == "allow"
    assert guarded.booked("ladder") == ("0.93", "0")


def test_where_no_rung_fits_the_client_gets_the_problem(guarded: Guarded) -> None:
    assert guarded.proxy.all_at_once(10, "chat", "no-rung") == Counter({200: 10})

    answer = guarded.proxy.post("chat", run="no-rung", model="ladder")

    assert (answer.status_code, answer.json()["code"]) == (402, "run_ceiling_reached")


@pytest.mark.parametrize(("model", "status"), [("limited", 429), ("down", 500)])
def test_what_was_never_billed_is_given_back(guarded: Guarded, model: str, status: int) -> None:
    answer = guarded.proxy.post("chat", run=f"back-{model}", model=model)

    assert answer.status_code == status
    assert "x-budget-decision" in answer.headers
    assert guarded.booked(f"back-{model}") == ("0", "0")


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_without_usage_is_booked_at_its_bound(guarded: Guarded, route: str) -> None:
    answer = guarded.proxy.post(route, run=f"silent-{route}", model="silent")

    assert answer.status_code == 200
    record = guarded.record(answer)
    assert (record["cost_usd"], record["uncertain"]) == ("0.1", True)
    assert guarded.booked(f"silent-{route}") == ("0.1", "0")


@pytest.mark.parametrize("route", ROUTES)
def test_usage_that_litellm_makes_up_for_a_stream_is_no_bill(guarded: Guarded, route: str) -> None:
    answer = guarded.proxy.post(route, run=f"made-up-{route}", model="silent", stream=True)

    assert answer.status_code == 200
    record = guarded.record(answer)
    assert (record["cost_usd"], record["uncertain"]) == ("0.1", True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude", "dime"])
def test_usage_that_a_provider_told_is_booked_on_every_route(guarded: Guarded, model: str, stream: bool) -> None:
    for route in ROUTES:
        answer = guarded.proxy.post(route, run=f"told-{model}-{stream}", model=model, stream=stream)

        record = guarded.record(answer)
        assert (record["cost_usd"], record["uncertain"]) == ("0.1", False), route


def test_usage_is_asked_for_and_kept_from_who_did_not_ask(guarded: Guarded) -> None:
    plain = guarded.proxy.post("chat", run="asks", stream=True)
    wanted = guarded.proxy.post("chat", run="asks", stream=True, stream_options={"include_usage": True})

    assert usage_alone(plain) == [] and "[DONE]" in plain.text
    assert [found["completion_tokens"] for found in usage_alone(wanted)] == [16]
    assert guarded.provider.calls[-2].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_that_the_provider_drops_is_booked_at_its_bound(guarded: Guarded, route: str) -> None:
    answer = guarded.proxy.post(route, run=f"drops-{route}", model="drops", stream=True)

    record = guarded.record(answer)
    assert (record["state"], record["cost_usd"], record["uncertain"]) == ("committed", "0.1", True)
    assert guarded.booked(f"drops-{route}") == ("0.1", "0")


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_that_the_client_closes_is_settled(guarded: Guarded, route: str) -> None:
    run = f"closed-{route}"
    path, body = asked(route, stream=True, model="gated")
    before = len(guarded.provider.calls)
    read = threading.Event()

    def release() -> None:
        guarded.provider.wait_for_calls(before + 1)
        guarded.provider.release_chunk(2)
        assert read.wait(10)
        with suppress(RuntimeError):  # the provider has seen the client go, and LiteLLM with it
            guarded.provider.release_chunk(100)

    releasing = threading.Thread(target=release)
    releasing.start()
    with httpx.stream("POST", guarded.proxy.url + path, json=body, headers={**TOKEN, "x-run-id": run}) as answer:
        assert answer.status_code == 200
        next(answer.iter_lines())
    read.set()
    releasing.join()

    settled = guarded.settled(run)

    assert settled == ("0.1", "0")


def test_a_json_call_whose_client_goes_is_booked_exactly(guarded: Guarded) -> None:
    path, body = asked("chat", model="cheap", max_tokens=64)
    before = len(guarded.provider.calls)
    with guarded.provider.paused():
        client = httpx.Client(timeout=httpx.Timeout(5, read=0.5))
        with client, pytest.raises(httpx.ReadTimeout):
            client.post(guarded.proxy.url + path, json=body, headers={**TOKEN, "x-run-id": "gone"})
        guarded.provider.wait_for_calls(before + 1)

    assert guarded.settled("gone") == ("0.01", "0")  # 16 tokens of the 64 that were held


def test_an_output_cap_goes_out_where_nobody_set_one(guarded: Guarded) -> None:
    path, _ = asked("chat")
    answer = httpx.post(
        guarded.proxy.url + path,
        json={"model": "cheap", "messages": MESSAGES},
        headers={**TOKEN, "x-run-id": "capped"},
        timeout=60,
    )

    assert answer.status_code == 200
    assert guarded.provider.calls[-1].max_output_tokens == guarded.record(answer)["effective_max_output_tokens"]


LONG = "word " * 400
"""A text that costs more than a dollar where input costs something."""
ROLE = {"role": "user", "content": LONG}
AFTER_IT_IS_HELD: dict[str, tuple[str, dict[str, Any]]] = {
    "a cap that is left out": ("chat", {"additional_drop_params": ["max_tokens"]}),
    "a cap of Responses that is left out": ("responses", {"additional_drop_params": ["max_output_tokens"]}),
    "a cap of Messages that is left out": ("messages", {"model": "claude", "additional_drop_params": ["max_tokens"]}),
    "a cap in an extra body that may be left out": (
        "chat",
        {"max_tokens": None, "extra_body": {"max_tokens": 16}, "additional_drop_params": ["extra_body"]},
    ),
    "a cap in an extra body that is left out of it": (
        "chat",
        {"max_tokens": None, "extra_body": {"max_tokens": 16}, "additional_drop_params": ["max_tokens"]},
    ),
    "a cap in an extra body that Claude is not sent": (
        "chat",
        {"model": "claude", "max_tokens": 300, "extra_body": {"max_tokens": 16}},
    ),
    "the same on Messages": ("messages", {"model": "claude", "max_tokens": 300, "extra_body": {"max_tokens": 16}}),
    "a count in an extra body that Gemini is not sent": (
        "chat",
        {"model": "gemini-dime", "n": 11, "extra_body": {"n": 1}},
    ),
    "a provider that takes no cap": ("chat", {"model": "capless"}),
    "a provider that does not know this cap": (
        "chat",
        {"model": "one-cap", "max_tokens": None, "max_completion_tokens": 16},
    ),
    "a provider's own name of the cap": ("chat", {"model": "gemini-dime", "max_output_tokens": 3_000}),
    "the same where it is translated": ("messages", {"model": "gemini-dime", "max_output_tokens": 3_000}),
    "a provider's own count of answers": ("chat", {"model": "gemini-dime", "candidate_count": 11}),
    "another deployment": ("chat", {"model": "cheap", "deployment_id": "dime", "max_tokens": 200}),
    "another deployment on a route that may not mind it": (
        "messages",
        {"model": "cheap", "deployment_id": "dime", "max_tokens": 200},
    ),
    "a base model of the caller's": ("chat", {"base_model": "cheap", "max_tokens": 200}),
    "a public name of the caller's on Messages": (
        "messages",
        {"model": "claude", "metadata": {"model_group": "prod-cheap"}, "max_tokens": 200},
    ),
    "a public name of the caller's on Responses": (
        "responses",
        {"metadata": {"model_group": "prod-cheap"}, "max_output_tokens": 200},
    ),
    "a system prompt": ("chat", {"model": "reads", "litellm_system_prompt": LONG}),
    "messages between those of one role": (
        "chat",
        {
            "model": "reads",
            "ensure_alternating_roles": True,
            "user_continue_message": ROLE,
            "messages": [{"role": "assistant", "content": "a"}] * 2,
        },
    ),
    "Claude's own system prompt": ("chat", {"model": "claude-reads", "system": LONG}),
    "what Gemini keeps": ("chat", {"model": "gemini-reads", "cached_content": "cachedContents/1"}),
}
"""What LiteLLM makes of a call once it is held: each would cost more than a dollar."""


@pytest.mark.parametrize("what", AFTER_IT_IS_HELD)
def test_what_litellm_makes_of_a_call_after_it_is_held_is_held_before(guarded: Guarded, what: str) -> None:
    route, fields = AFTER_IT_IS_HELD[what]
    guarded.asked_of_provider()

    answer = guarded.proxy.post(route, **fields)

    assert answer.status_code in (402, 422), answer.text
    assert guarded.asked_of_provider() == []


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({"temperature": 0.5, "additional_drop_params": ["temperature"]}, "dime"),
        ({"max_output_tokens": 8}, "dime"),
        ({"max_tokens": None, "extra_body": {"max_tokens": 16}}, "dime"),
        ({"model": "claude", "extra_body": {"metadata": {"user_id": "u"}}}, "claude-dime"),
        ({"model": "gemini-dime", "max_tokens": None, "max_output_tokens": 16}, "gemini-dime"),
        ({"model": "alternates", "messages": MESSAGES * 2}, "dime"),
        ({"litellm_system_prompt": "Be nice."}, "dime"),
        ({"model": "one-cap"}, "dime"),
    ],
)
def test_what_costs_no_more_by_it_is_asked_as_it_was(guarded: Guarded, fields: dict[str, Any], called: str) -> None:
    guarded.asked_of_provider()

    answer = guarded.proxy.post("chat", **fields)

    assert answer.status_code == 200, answer.text
    assert guarded.asked_of_provider() == [called]
    assert guarded.record(answer)["cost_usd"] == "0.1"


def test_a_cap_by_a_providers_own_name_is_sent_by_litellms_as_well(guarded: Guarded) -> None:
    guarded.proxy.post("chat", max_tokens=None, max_output_tokens=5)

    assert guarded.provider.calls[-1].usage.output == 5


def test_embeddings_are_held_by_their_input(guarded: Guarded) -> None:
    asking: dict[str, Any] = {"url": f"{guarded.proxy.url}/v1/embeddings", "headers": {**TOKEN, "x-run-id": "embeds"}}

    answer = httpx.post(**asking, json={"model": "embed", "input": "x"}, timeout=60)
    refused = httpx.post(**asking, json={"model": "embed", "input": "word " * 1_000}, timeout=60)

    assert answer.status_code == 200, answer.text
    assert guarded.record(answer)["uncertain"] is False
    assert (refused.status_code, refused.json()["code"]) == (402, "run_ceiling_reached")


def test_a_model_without_a_price_is_refused(guarded: Guarded) -> None:
    answer = guarded.proxy.post("chat", run="unpriced", model="unpriced")

    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_price")


def test_a_structure_that_nobody_knows_is_refused(guarded: Guarded) -> None:
    answer = guarded.proxy.post("chat", run="opaque", extra_body={"frobnicate": {"much": True}})

    assert (answer.status_code, answer.json()["code"]) == (422, "unbounded_call")


def test_a_run_belongs_to_who_began_it(guarded: Guarded) -> None:
    mine = guarded.proxy.post("chat", run="of-alice", headers=ALICE)

    foreign = guarded.proxy.post("chat", run="of-alice", headers=BOB)

    assert mine.status_code == 200
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_run")
    assert foreign.headers["x-budget-decision"] == "block"


def test_a_call_belongs_to_who_asks_whatever_it_is_called(guarded: Guarded) -> None:
    """LiteLLM takes the id of a call from its caller."""
    named = {"x-litellm-call-id": "one-for-all"}
    with guarded.provider.paused(), ThreadPoolExecutor(3) as asking:
        answers = [
            asking.submit(guarded.proxy.post, "chat", run=run, headers={**who, **named})
            for run, who in (("a-one", ALICE), ("b-one", BOB), ("b-one", BOB))
        ]
        guarded.provider.wait_for_calls(len(guarded.provider.calls) + 3)
        guarded.provider.resume()

        assert [answer.result().status_code for answer in answers] == [200] * 3
    assert all("x-budget-decision-id" in answer.result().headers for answer in answers)
    assert (guarded.settled("a-one"), guarded.settled("b-one")) == (("0.1", "0"), ("0.2", "0"))


def test_a_record_is_shown_to_whose_it_is(guarded: Guarded) -> None:
    answer = guarded.proxy.post("chat", run="record-of-alice", headers=ALICE)
    url = f"{guarded.proxy.url}/budget/decisions/{answer.headers['x-budget-decision-id']}"

    assert httpx.get(url, headers=ALICE).json()["run_id"] == "record-of-alice"
    assert httpx.get(url, headers={"x-api-key": "sk-alice"}).status_code == 200
    assert httpx.get(url, headers=BOB).status_code == 404
    assert httpx.get(url).status_code == httpx.get(url, headers={"authorization": "Bearer x"}).status_code == 401
    assert httpx.post(url, headers=ALICE).json()["code"] == "not_found"


@pytest.mark.parametrize("run", ["../x", "a b", "x" * 200])
def test_a_run_id_that_is_no_name_is_refused(guarded: Guarded, run: str) -> None:
    answer = guarded.proxy.post("chat", run=run)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_run_id")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1/content"),
        ("POST", "/v1/rerank"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("POST", "/openai/v1/chat/completions"),
        ("POST", "/anthropic/v1/messages"),
        ("POST", "/bedrock/model/x/converse"),
        ("POST", "/vertex_ai/v1/projects/p/locations/l/publishers/google/models/m:generateContent"),
        ("POST", "/v1/threads/t/runs"),
    ],
)
def test_what_is_not_held_is_not_passed_on(guarded: Guarded, method: str, path: str) -> None:
    guarded.asked_of_provider()

    answer = httpx.request(method, guarded.proxy.url + path, headers=TOKEN, json={"model": "dime", "input": "x"})

    assert (answer.status_code, answer.json()["code"]) == (501, "not_metered")
    assert guarded.asked_of_provider() == []


@pytest.mark.parametrize("path", ["/v1/models", "/health/liveliness", "/model/info", "/"])
def test_what_costs_nothing_passes(guarded: Guarded, path: str) -> None:
    assert httpx.get(guarded.proxy.url + path, headers=TOKEN).status_code == 200


def test_health_checks_of_litellm_are_held_as_well(guarded: Guarded) -> None:
    guarded.asked_of_provider()

    answer = httpx.get(f"{guarded.proxy.url}/health", params={"model": "cheap"}, headers=TOKEN, timeout=60)

    assert answer.status_code == 200 and answer.json()["healthy_count"] == 1, answer.text
    assert guarded.asked_of_provider() == ["cheap"]


def test_nothing_is_left_open_once_all_is_answered(guarded: Guarded) -> None:
    """What is held in the end is nothing, and no less was booked than the provider billed."""
    spent, held = guarded.in_all()

    assert held == 0
    assert spent >= guarded.provider.bill_usd > 0
