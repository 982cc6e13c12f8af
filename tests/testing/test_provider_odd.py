"""The local provider says whatever its script wants, and bills what the script says is true."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, TypeAlias

import httpx
import openai
import pytest
from openai import OpenAI

from budget_guard.testing import Attempts, HostedCall, LocalProvider, ProviderRequest, Rates, Reply
from budget_guard.units.usage import Usage

Serve: TypeAlias = Callable[..., tuple[LocalProvider, OpenAI]]
Post: TypeAlias = Callable[..., httpx.Response]
HI: Any = [{"role": "user", "content": "hi"}]
ASKED: Any = {"include_usage": True}
USED = Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40)
BILL_NANO = 100 * 2_500 + 40 * 10_000

BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"model": "gpt-4o", "messages": HI},
    "/v1/completions": {"model": "gpt-4o", "prompt": "hi", "max_tokens": 100},
    "/v1/responses": {"model": "gpt-4o", "input": "hi"},
    "/v1/messages": {"model": "gpt-4o", "messages": HI, "max_tokens": 100},
    "/v1beta/models/gpt-4o:generateContent": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "/model/gpt-4o/converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "/v2/chat": {"model": "gpt-4o", "messages": HI},
}
USAGE_FIELDS = {"/v1beta/models/gpt-4o:generateContent": "usageMetadata"}


@pytest.fixture
def post(serve: Serve) -> Iterator[Post]:
    """Start a provider with a script, and post a body to a path of it."""
    with httpx.Client() as client:

        def send(script: Any, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
            provider, _ = serve(script)
            response = client.post(provider.root_url + path, json={**BODIES.get(path, {}), **body})
            response.extensions["provider"] = provider
            return response

        yield send


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/v1/chat/completions", {"n": -8}),
        ("/v1/chat/completions", {"n": 0}),
        ("/v1/completions", {"n": -8}),
        ("/v1/completions", {"best_of": -8}),
        ("/v1beta/models/gpt-4o:generateContent", {"generationConfig": {"candidateCount": -8}}),
    ],
)
def test_fewer_answers_than_one_are_refused_and_billed_nothing(post: Post, path: str, counts: dict[str, Any]) -> None:
    response = post(USED, path, **counts)
    assert response.status_code == 400
    assert "at least 1" in response.text
    assert bill_of(response) == 0


def bill_of(response: httpx.Response) -> Any:
    return response.extensions["provider"].bill_nano


def chat(client: OpenAI, **body: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HI, **body})


def events(response: httpx.Response) -> list[Any]:
    """JSON of all server-sent events."""
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in data]


# Usage


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("raw", [{}, {"total_tokens": -1}, [1], 0, None, {"prompt_tokens": None, "x": {"y": 1e30}}])
def test_raw_usage_is_sent_as_it_is_and_does_not_change_the_bill(post: Post, path: str, raw: Any) -> None:
    response = post(Reply(usage=raw, input_tokens=100, output_tokens=40), path)
    assert response.json()[USAGE_FIELDS.get(path, "usage")] == raw
    assert bill_of(response) == BILL_NANO


@pytest.mark.parametrize("path", BODIES)
def test_usage_can_be_left_out_or_null(post: Post, path: str) -> None:
    name = USAGE_FIELDS.get(path, "usage")
    assert name not in post(Reply(usage="off"), path).json()
    assert post(Reply(usage="missing"), path).json()[name] is None


@pytest.mark.parametrize("path", BODIES)
def test_a_function_makes_usage_out_of_the_true_one(post: Post, path: str) -> None:
    told = post(Reply(usage=lambda true: dict.fromkeys(true, 0)), path).json()[USAGE_FIELDS.get(path, "usage")]
    assert told and set(told.values()) == {0}


def test_a_function_for_usage_that_fails_is_a_failing_script(openai_client: OpenAI) -> None:
    def usage(true: dict[str, Any]) -> Any:
        return true["not there"]

    with pytest.raises(RuntimeError, match="not there"), LocalProvider(Reply(usage=usage)) as provider:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError):
                chat(openai_client.with_options(base_url=provider.base_url), stream=stream, stream_options=ASKED)
        assert provider.bill_nano == 0


def test_a_providers_own_cost_and_other_fields_stand_beside_the_true_usage(post: Post) -> None:
    usage = post(Reply(usage_extra={"cost": 0.95, "cost_in_usd_ticks": 7}, input_tokens=9)).json()["usage"]
    assert (usage["cost"], usage["cost_in_usd_ticks"], usage["prompt_tokens"]) == (0.95, 7, 9)


def test_a_stream_of_raw_usage_carries_it_where_the_true_one_would_be(serve: Serve) -> None:
    raw = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}
    _, client = serve(Reply(usage=raw))
    chunks = list(chat(client, stream=True, stream_options=ASKED))
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [9]
    response: Any = list(client.responses.create(model="gpt-4o", input="hi", stream=True))[-1]
    assert response.response.usage.total_tokens == 9


def test_usage_in_every_chunk_grows_with_the_answer_asked_for_or_not(serve: Serve) -> None:
    provider, client = serve(Reply(text="abcdefgh", output_tokens=40, input_tokens=7, stream_usage="every"))
    told = [chunk.usage.completion_tokens for chunk in chat(client, stream=True)]
    assert told == [0, 10, 20, 30, 40, 40]
    prompts = [chunk.usage.prompt_tokens for chunk in chat(client, stream=True, stream_options=ASKED)]
    assert prompts == [7] * 7
    assert [call.usage.output for call in provider.calls] == [40, 40]


def test_usage_in_the_chunk_with_the_finish_reason_needs_no_asking(serve: Serve) -> None:
    _, client = serve(Reply(stream_usage="finish"))
    for options in ({}, {"stream_options": ASKED}):
        chunks = list(chat(client, stream=True, **options))
        assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_messages_tell_usage_first_and_after_each_chunk(post: Post) -> None:
    reply = Reply(text="abcd", chunks=2, output_tokens=4, stream_usage="every", opening_usage={"input_tokens": 0})
    told = events(post(reply, "/v1/messages", stream=True))
    assert told[0]["message"]["usage"] == {"input_tokens": 0}
    deltas = [(event["usage"]["output_tokens"], event["delta"]["stop_reason"]) for event in told if "usage" in event]
    assert deltas == [(2, None), (4, None), (4, "end_turn")]


# What else an answer says


def test_the_answer_may_name_another_model_tier_and_id_than_are_billed(post: Post) -> None:
    lie = {"id": "mine", "model": "gpt-4o-mini", "service_tier": "flex", "citations": ["a"]}
    response = post(Reply(extra=lie, omit=("system_fingerprint",), input_tokens=100, output_tokens=40))
    told = response.json()
    assert (told["id"], told["model"], told["service_tier"], told["citations"]) == (
        "mine",
        "gpt-4o-mini",
        "flex",
        ["a"],
    )
    assert "system_fingerprint" not in told
    assert bill_of(response) == BILL_NANO


def test_extra_fields_are_in_every_chunk_and_in_the_streamed_response(post: Post) -> None:
    reply = Reply(extra={"x": 1}, omit=("model",))
    chunks = events(post(reply, stream=True))
    assert {chunk["x"] for chunk in chunks} == {1} and not any("model" in chunk for chunk in chunks)
    final = events(post(reply, "/v1/responses", stream=True))[-1]["response"]
    assert final["x"] == 1 and "model" not in final
    assert events(post(reply, "/v1/messages", stream=True))[0]["message"]["x"] == 1


def test_a_continued_response_with_an_id_of_its_own_is_remembered(serve: Serve) -> None:
    provider, client = serve([Reply(id="resp_mine", input_tokens=100, output_tokens=30), Reply()])
    client.responses.create(model="gpt-4o", input="hi")
    client.responses.create(model="gpt-4o", input="1234", previous_response_id="resp_mine")
    assert provider.calls[1].usage.input == 131


def test_message_fields_reach_the_message_streamed_or_not(post: Post) -> None:
    note = {"annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}]}
    reply = Reply(message_extra=note)
    assert post(reply).json()["choices"][0]["message"]["annotations"] == note["annotations"]
    deltas = [chunk["choices"][0]["delta"] for chunk in events(post(reply, stream=True))]
    assert [delta for delta in deltas if "annotations" in delta] == [note]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/chat/completions", lambda body: body["choices"][0]["finish_reason"]),
        ("/v1/messages", lambda body: body["stop_reason"]),
        ("/v1/responses", lambda body: body["incomplete_details"]["reason"]),
        ("/v1beta/models/gpt-4o:generateContent", lambda body: body["candidates"][0]["finishReason"]),
        ("/model/gpt-4o/converse", lambda body: body["stopReason"]),
        ("/v2/chat", lambda body: body["finish_reason"]),
    ],
)
def test_a_finish_reason_that_is_not_neutral_is_sent_as_it_is(post: Post, path: str, told: Any) -> None:
    assert told(post(Reply(finish_reason="pause_turn"), path).json()) == "pause_turn"


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
def test_a_response_may_end_with_any_status(post: Post, status: str) -> None:
    reply = Reply(finish_reason=status)
    assert post(reply, "/v1/responses").json()["status"] == status
    final = events(post(reply, "/v1/responses", stream=True))[-1]
    assert (final["type"], final["response"]["status"]) == (f"response.{status}", status)


def test_sound_and_pictures_are_told_and_billed_by_their_own_rates(serve: Serve) -> None:
    reply = Reply(
        input_tokens=100,
        cached_tokens=20,
        cached_audio_tokens=5,
        input_audio_tokens=30,
        input_image_tokens=10,
        output_tokens=50,
        reasoning_tokens=5,
        output_audio_tokens=20,
        output_image_tokens=15,
    )
    prices = Rates(input=1, output=2, input_audio=10, cache_audio=3, input_image=4, output_audio=20, output_image=30)
    provider, client = serve([reply, reply, Reply(input_audio_tokens=1)], prices={"m": prices})
    usage = chat(client, model="m").usage
    assert (usage.prompt_tokens_details.audio_tokens, usage.completion_tokens_details.audio_tokens) == (35, 20)
    assert usage.prompt_tokens_details.image_tokens == 10
    assert client.responses.create(model="m", input="hi").usage
    used = provider.calls[0].usage
    assert used == Usage(
        input=40,
        cache_read=15,
        cache_audio=5,
        input_audio=30,
        input_image=10,
        output=10,
        reasoning=5,
        output_audio=20,
        output_image=15,
    )
    cost = 40 + 15 + 5 * 3 + 30 * 10 + 10 * 4 + (10 + 5) * 2 + 20 * 20 + 15 * 30
    assert [call.cost_nano for call in provider.calls] == [cost * 1_000] * 2
    chat(client, messages=[{"role": "user", "content": "hello"}])
    assert provider.calls[2].cost_nano is None  # gpt-4o has no rate for sound


def test_hosted_tools_are_items_whose_fees_depend_on_what_they_did(serve: Serve) -> None:
    hosted = [
        HostedCall("web_search"),
        HostedCall("web_search", action="open_page"),
        HostedCall("web_search", status="failed"),
        HostedCall("file_search", status="failed"),
        HostedCall("file_search"),
        HostedCall("code_interpreter"),
        HostedCall("code_interpreter"),
        HostedCall("code_interpreter", fields={"container_id": "cntr_other"}),
        HostedCall("image_generation", fields={"quality": "high"}),
        HostedCall("mcp"),
    ]
    provider, client = serve(Reply(input_tokens=0, output_tokens=0, hosted=hosted))
    *items, _ = client.responses.create(model="gpt-4o", input="hi").output
    assert [item.type for item in items] == [f"{call.kind}_call" for call in hosted]
    searches: Any = items[:3]
    assert [item.action.type for item in searches] == ["search", "open_page", "search"]
    assert [item.status for item in searches] == ["completed", "completed", "failed"]
    picture: Any = items[8]
    assert picture.quality == "high"
    streamed: Any = list(client.responses.create(model="gpt-4o", input="hi", stream=True))
    assert [event.item.type for event in streamed if event.type == "response.output_item.done"][:-1] == [
        item.type for item in items
    ]
    assert sum(event.type == "response.web_search_call.completed" for event in streamed) == 2
    usage = provider.calls[0].usage
    assert (usage.web_search, usage.other) == (1, (("code_interpreter", 2), ("file_search", 1)))
    assert provider.calls[0].cost_nano == 10_000_000 + 2 * 30_000_000 + 2_500_000


def test_a_hosted_tool_without_a_fee_has_no_known_cost(serve: Serve) -> None:
    provider, client = serve(Reply(hosted=[HostedCall("x_search", billed=True)]))
    chat(client)
    assert provider.calls[0].cost_nano is None


def test_hosted_tools_are_blocks_of_a_message(post: Post) -> None:
    hosted = [HostedCall("web_search"), HostedCall("web_search", status="failed"), HostedCall("web_fetch")]
    body = post(Reply(hosted=hosted), "/v1/messages").json()
    assert [block["type"] for block in body["content"]] == [
        *("server_tool_use", "web_search_tool_result") * 2,
        "server_tool_use",
        "web_fetch_tool_result",
        "text",
    ]
    assert body["content"][3]["content"]["type"] == "web_search_tool_result_error"
    assert body["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 1}


def test_compaction_iterations_are_billed_on_top_of_the_totals(serve: Serve, post: Post) -> None:
    compaction = {
        "type": "compaction",
        "input_tokens": 1_000,
        "output_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
    }
    iterations = [compaction, {"type": "message", "input_tokens": 10, "output_tokens": 5}]
    reply = Reply(input_tokens=10, output_tokens=5, iterations=iterations)
    response = post(reply, "/v1/messages", model="claude-haiku-4-5")
    usage = response.json()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["iterations"]) == (10, 5, iterations)
    assert bill_of(response) == 1_010 * 1_000 + 105 * 5_000 + 20 * 1_250 + 10 * 2_000 + 5 * 100


# The bill


def test_the_bill_is_what_the_script_says(serve: Serve) -> None:
    by_length = Reply(bill=lambda body: Decimal("0.01") * len(body["messages"]), usage={})
    provider, client = serve([Reply(bill="0.02"), by_length, Reply(bill=0)])
    for messages in (HI, HI * 3, HI):
        chat(client, messages=messages, model="unpriced")
    assert [call.cost_nano for call in provider.calls] == [20_000_000, 30_000_000, 0]
    assert provider.bill_usd == Decimal("0.05")


def test_a_bill_is_rounded_up_to_the_nano(serve: Serve) -> None:
    provider, client = serve(Reply(bill="0.0000000011"))
    chat(client)
    assert provider.bill_nano == 2


@pytest.mark.parametrize("bill", ["free", -1, float("nan")])
def test_a_bill_that_is_no_amount_is_refused(bill: Any) -> None:
    with pytest.raises(ValueError, match="bill"):
        Reply(bill=bill)


def test_a_bill_function_that_fails_is_a_failing_script(openai_client: OpenAI) -> None:
    reply = Reply(bill=lambda body: body["not there"])
    with pytest.raises(RuntimeError, match="not there"), LocalProvider(reply) as provider:
        with pytest.raises(openai.InternalServerError):
            chat(openai_client.with_options(base_url=provider.base_url))
        assert provider.bill_nano == 0


@pytest.mark.parametrize(
    ("reply", "nano"),
    [
        (Reply(status=500), 0),
        (Reply(status=500, generated=True, input_tokens=100, output_tokens=40), BILL_NANO),
        (Reply(status=400, bill="0.001"), 1_000_000),
        (Reply(status=500, generated=True, bill=1), 1_000_000_000),
    ],
)
def test_an_error_can_be_billed(post: Post, reply: Reply, nano: int) -> None:
    response = post(reply)
    assert (response.status_code, bill_of(response)) == (reply.status, nano)
    (call,) = response.extensions["provider"].calls
    assert call.outcome == "refused"


def test_an_answer_can_be_free(post: Post) -> None:
    response = post(Reply(generated=False))
    assert (response.status_code, bill_of(response)) == (200, 0)


def test_a_call_that_is_dropped_costs_what_the_script_says(serve: Serve) -> None:
    provider, client = serve(Reply(drop_after=1, bill="0.5"))
    with pytest.raises(openai.APIConnectionError):
        list(chat(client, stream=True))
    assert provider.bill_usd == Decimal("0.5")


def test_a_fee_for_each_call_and_for_each_call_that_searches(serve: Serve) -> None:
    rates = Rates(input=0, output=0, request=5, search_call=35)
    provider, client = serve([Reply(), Reply(web_searches=3)], prices={"m": rates})
    chat(client, model="m")
    chat(client, model="m")
    assert [call.cost_nano for call in provider.calls] == [5_000_000, 40_000_000]


# Errors


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": "content_filter"}}, "application/json"),
        ("<html>Bad gateway</html>", "text/html; charset=utf-8"),
        ("upstream timed out", "text/plain"),
        (b"\x00\xff", "application/octet-stream"),
        ("", "text/plain"),
    ],
)
@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("stream", [False, True])
def test_any_body_can_be_sent_with_any_status(post: Post, body: Any, kind: str, status: int, stream: bool) -> None:
    response = post(Reply(status=status, body=body), stream=stream)
    assert (response.status_code, response.headers["content-type"]) == (status, kind)
    sent = json.dumps(body).encode() if isinstance(body, dict) else body if isinstance(body, bytes) else body.encode()
    assert response.content == sent
    assert (bill_of(response) > 0) == (status == 200)


def test_headers_are_added_changed_and_left_out(post: Post) -> None:
    headers = {"Retry-After": None, "retry-after-ms": "20", "x-should-retry": "false", "content-type": "text/x"}
    response = post(Reply(status=429, headers=headers))
    assert "retry-after" not in response.headers
    assert response.headers["retry-after-ms"] == "20"
    assert response.headers["content-type"] == "text/x"
    assert post(Reply(headers={"x-more": "1"}), stream=True).headers["x-more"] == "1"


def test_a_redirect_leads_to_the_next_reply(serve: Serve) -> None:
    provider, client = serve([Reply(status=307), Reply(text="here")])
    assert chat(client).choices[0].message.content == "here"
    assert [call.status for call in provider.calls] == [307, 200]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/chat/completions", lambda told: told["error"]["message"]),
        ("/v1/responses", lambda told: told["message"]),
        ("/v1/messages", lambda told: told["error"]["message"]),
        ("/v2/chat", lambda told: told["delta"]["error"]),
    ],
)
def test_a_stream_ends_with_an_error_in_the_words_of_its_wire(post: Post, path: str, found: Any) -> None:
    reply = Reply(text="abcdefgh", input_tokens=100, output_tokens=40, error_after=2, status=529)
    response = post(reply, path, stream=True)
    assert response.status_code == 200
    assert "The server had an error" in found(events(response)[-1])
    (call,) = response.extensions["provider"].calls
    assert (call.outcome, call.usage.output) == ("failed", 20)


def test_the_real_client_raises_an_error_of_mid_stream(serve: Serve) -> None:
    own = {"error": {"message": "overloaded", "type": "server_error"}}
    _, client = serve([Reply(error_after=1), Reply(error_after=9, body=own)])
    with pytest.raises(openai.APIError, match="server had an error"):
        list(chat(client, stream=True))
    with pytest.raises(openai.APIError, match="overloaded"):
        list(chat(client, stream=True))


def test_an_error_object_with_status_200_is_billed(post: Post) -> None:
    response = post(Reply(error_after=0, input_tokens=100, output_tokens=40))
    assert response.status_code == 200 and "error" in response.json()
    assert bill_of(response) == BILL_NANO


def test_raw_events_take_the_place_of_the_stream(serve: Serve) -> None:
    said: Any = {"id": "x", "choices": [{"index": 0, "delta": {"content": "raw"}}]}
    provider, client = serve(Reply(events=[said, {"id": "x", "choices": []}], output_tokens=40, gate_chunks=True))
    stream = chat(client, stream=True)
    provider.release_chunk(2)
    assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices] == ["raw"]
    assert provider.calls[0].usage.output == 40
    assert chat(client).choices[0].message.content == "ok"


def test_an_empty_stream_is_one(post: Post) -> None:
    assert post(Reply(events=[]), stream=True).content == b""
    assert post(Reply(events=["[DONE]"]), stream=True).content == b"data: [DONE]\n\n"


# Attempts


def test_each_call_goes_through_its_own_attempts(serve: Serve) -> None:
    script = Attempts(Reply(status=500, headers={"retry-after-ms": "1"}), Reply(status=429, retry_after_s=0), Reply())
    provider, client = serve(script)
    retrying = client.with_options(max_retries=2)
    for _ in range(2):
        assert chat(retrying).choices[0].message.content == "ok"
    assert [call.status for call in provider.calls] == [500, 429, 200] * 2
    assert [call.attempt for call in provider.calls] == [0, 1, 2] * 2


def test_without_a_word_from_the_client_equal_bodies_are_attempts_of_one_call(serve: Serve) -> None:
    provider, _ = serve(Attempts(Reply(status=500), Reply()))
    with httpx.Client(base_url=provider.root_url) as client:
        bodies = [{"model": "gpt-4o", "messages": [{"role": "user", "content": text}]} for text in ("a", "b", "a", "b")]
        statuses = [client.post("/v1/chat/completions", json=body).status_code for body in bodies]
    assert statuses == [500, 500, 200, 200]


def test_attempts_without_a_reply_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Attempts()


# Bytes


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("chunk_bytes", [None, 7])
def test_answers_are_compressed_streamed_or_not(serve: Serve, encoding: Any, chunk_bytes: int | None) -> None:
    provider, client = serve(Reply(text="héllo", encoding=encoding, chunk_bytes=chunk_bytes))
    assert chat(client).choices[0].message.content == "héllo"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == "héllo"
    with (
        httpx.Client() as raw,
        raw.stream("POST", f"{provider.base_url}/chat/completions", json=BODIES["/v1/chat/completions"]) as response,
    ):
        assert response.headers["content-encoding"] == encoding
        unpack = gzip.decompress if encoding == "gzip" else zlib.decompress
        assert b"content" in unpack(b"".join(response.iter_raw()))


def test_a_compressed_stream_passes_its_gates_chunk_by_chunk(serve: Serve) -> None:
    provider, client = serve(Reply(text="abcd", chunks=2, gate_chunks=True, encoding="gzip"))
    stream = chat(client, stream=True)
    provider.release_chunk()
    texts = (chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)
    assert next(texts) == "ab"
    provider.release_chunk()
    assert next(texts) == "cd"
    stream.close()


@pytest.mark.parametrize("stream", [False, True])
def test_bodies_are_cut_into_pieces_at_any_byte(serve: Serve, stream: bool) -> None:
    provider, client = serve(Reply(text="né" * 9, chunk_bytes=7))
    body, url = {**BODIES["/v1/chat/completions"], "stream": stream}, f"{provider.base_url}/chat/completions"
    with httpx.Client() as raw, raw.stream("POST", url, json=body) as response:
        assert max(map(len, response.iter_raw())) <= 7
    got = chat(client, stream=stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in got) if stream else got.choices[0].message.content
    assert text == "né" * 9


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_events_end_lines_as_the_reply_wants(serve: Serve, post: Post, newline: Any) -> None:
    reply = Reply(text="a", newline=newline)
    content = post(reply, stream=True).content
    assert content.endswith(f"data: [DONE]{newline * 2}".encode())
    assert (b"\n" in content) == ("\n" in newline)
    _, client = serve(reply)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)) == "a"


def test_a_comment_comes_before_each_chunk(serve: Serve, post: Post) -> None:
    reply = Reply(text="abcd", chunks=2, comment="PROCESSING")
    assert post(reply, stream=True).content.count(b": PROCESSING\n\n") == 2
    _, client = serve(reply)
    assert len(list(chat(client, stream=True))) == 4


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_stream_can_be_cut_at_any_byte(serve: Serve, path: str) -> None:
    provider, _ = serve(Reply(text="ab", chunks=2, output_tokens=2))
    body = {**BODIES[path], "stream": True}
    with httpx.Client(base_url=provider.root_url) as client:
        size = len(client.post(path, json=body).content)
        for offset in (0, 1, size // 3, size // 2, size - 1):
            provider.reset(Reply(text="ab", chunks=2, output_tokens=2, drop_bytes=offset))
            received = b""
            with pytest.raises(httpx.RemoteProtocolError), client.stream("POST", path, json=body) as response:
                for piece in response.iter_raw():
                    received += piece
            provider.wait_until_idle()
            assert len(received) == offset
            assert provider.calls[0].outcome == "dropped"
            assert provider.calls[0].usage.output <= 2
        assert provider.calls[0].usage.output == 2
        provider.reset(Reply(text="ab", chunks=2, drop_bytes=10**6))
        assert client.post(path, json=body).is_success
        assert provider.calls[0].outcome == "completed"


def test_a_whole_answer_cut_in_its_body_is_billed_whole(serve: Serve) -> None:
    provider, client = serve(Reply(drop_bytes=20, input_tokens=100, output_tokens=40))
    with pytest.raises(openai.APIConnectionError):
        chat(client)
    provider.wait_until_idle()
    assert (provider.calls[0].outcome, provider.bill_nano) == ("dropped", BILL_NANO)


def test_a_whole_answer_that_is_cut_off_after_its_end_is_whole(post: Post) -> None:
    response = post(Reply(body="12345", drop_bytes=5))
    assert response.text == "12345"
    assert response.extensions["provider"].calls[0].outcome == "completed"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("chunk_bytes", {"chunk_bytes": 0}),
        ("usage", {"usage": "none"}),
        ("drop_bytes", {"drop_bytes": -1}),
        ("cached_audio_tokens", {"cached_audio_tokens": 1}),
        ("output_tokens", {"output_tokens": 1, "output_audio_tokens": 2}),
        ("input_tokens", {"input_tokens": 1, "input_image_tokens": 2}),
        ("status", {"status": 301}),
    ],
)
def test_a_reply_that_cannot_be_is_refused_by_name(field: str, given: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Reply(**given)


def test_a_path_that_is_not_served_is_not_found(post: Post) -> None:
    assert post(Reply(), "/v1/images/generations", model="m").status_code == 404


def test_the_request_tells_path_query_and_attempt(serve: Serve) -> None:
    seen: list[ProviderRequest] = []

    def script(request: ProviderRequest) -> Reply:
        seen.append(request)
        return Reply()

    provider, _ = serve(script)
    httpx.post(f"{provider.root_url}/gateway/v1/chat/completions?key=secret", json=BODIES["/v1/chat/completions"])
    assert (seen[0].path, seen[0].query, seen[0].attempt) == ("/gateway/v1/chat/completions", "key=secret", 0)
    assert "secret" not in repr(seen[0])
