"""The local provider speaks OpenAI's older endpoints, Azure's paths, and Cohere's Chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest
from openai import AzureOpenAI, OpenAI

from budget_guard.testing import LocalProvider, Rates, Reply, ToolCall

Serve: TypeAlias = Callable[..., tuple[LocalProvider, OpenAI]]
HI: Any = [{"role": "user", "content": "hi"}]
INSTRUCT, COMMAND, EMBEDDING = "gpt-3.5-turbo-instruct", "command-r-08-2024", "text-embedding-3-small"
EMBEDDING_RATES = {EMBEDDING: Rates(input="0.02", output=0)}


def test_completions_carry_text_and_usage_streamed_or_not(serve: Serve) -> None:
    provider, client = serve(Reply(text="hello there", input_tokens=10, output_tokens=5))
    whole = client.completions.create(model=INSTRUCT, prompt="hi")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("hello there", "stop")
    assert whole.usage and whole.usage.total_tokens == 15
    asked: Any = {"include_usage": True}
    chunks = list(client.completions.create(model=INSTRUCT, prompt="hi", stream=True, stream_options=asked))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "hello there"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [15]
    assert provider.bill_nano == 2 * (10 * 1_500 + 5 * 2_000)


def test_completions_have_a_cap_of_16_unless_they_are_given_one(serve: Serve) -> None:
    provider, client = serve(Reply(text="1234" * 50))
    assert client.completions.create(model=INSTRUCT, prompt="hi").choices[0].text == "1234" * 16
    assert client.completions.create(model=INSTRUCT, prompt="hi", max_tokens=20).choices[0].finish_reason == "length"
    assert [call.usage.output for call in provider.calls] == [16, 20]


@pytest.mark.parametrize(("n", "best_of", "output"), [(2, None, 20), (1, 4, 40), (3, 2, 30)])
def test_every_candidate_is_billed_whether_it_is_shown_or_not(
    serve: Serve, n: int, best_of: int | None, output: int
) -> None:
    provider, client = serve(Reply(output_tokens=5))
    options: Any = {"best_of": best_of} if best_of else {}
    answer = client.completions.create(model=INSTRUCT, prompt=["a", "b"], n=n, **options)
    assert len(answer.choices) == 2 * n
    assert provider.calls[0].usage.output == output


@pytest.mark.parametrize(
    ("prompt", "tokens"), [("12345678", 2), (["1234", "5678"], 2), ([1, 2, 3], 3), ([[1, 2], [3]], 3), ("", 1)]
)
def test_prompts_weigh_their_text_or_their_tokens(serve: Serve, prompt: Any, tokens: int) -> None:
    provider, client = serve(prices=EMBEDDING_RATES)
    client.completions.create(model=INSTRUCT, prompt=prompt)
    client.embeddings.create(model=EMBEDDING, input=prompt)
    assert [call.usage.input for call in provider.calls] == [tokens] * 2


def test_embeddings_have_no_output(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=1_000), prices=EMBEDDING_RATES)
    answer = client.embeddings.create(model=EMBEDDING, input=["a", "b"], dimensions=3)
    assert [item.embedding for item in answer.data] == [[0.5] * 3] * 2
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (1_000, 1_000)
    floats = client.embeddings.create(model=EMBEDDING, input="a", encoding_format="float")
    assert floats.data[0].embedding == [0.5] * 4
    assert [call.usage.output_tokens for call in provider.calls] == [0, 0]
    assert provider.bill_nano == 2 * 20_000


def test_azure_names_the_deployment_in_the_path(serve: Serve) -> None:
    provider, _ = serve(Reply(model="gpt-4o-2024-08-06", input_tokens=100, output_tokens=40))
    with AzureOpenAI(
        azure_endpoint=provider.root_url, api_version="2024-10-21", api_key="none", max_retries=0
    ) as client:
        answer = client.chat.completions.create(model="prod-chat", messages=HI)
        client.responses.create(model="prod-chat", input="hi")
        client.completions.create(model="prod-chat", prompt="hi", max_tokens=50)
        client.embeddings.create(model="prod-chat", input="hi")
    assert answer.model == "gpt-4o-2024-08-06"
    assert [call.endpoint for call in provider.calls] == ["chat_completions", "responses", "completions", "embeddings"]
    assert {(call.model, call.served_model) for call in provider.calls} == {("prod-chat", "gpt-4o-2024-08-06")}
    assert provider.calls[0].path == "/openai/deployments/prod-chat/chat/completions"
    assert provider.calls[0].cost_nano == 100 * 2_500 + 40 * 10_000


@pytest.mark.parametrize("prefix", ["", "/v1beta/openai", "/api/v1", "/openai/v1"])
def test_a_compatible_endpoint_may_have_any_prefix(serve: Serve, prefix: str) -> None:
    provider, client = serve()
    elsewhere = client.with_options(base_url=provider.root_url + prefix)
    assert elsewhere.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.content == "ok"


def ask_cohere(provider: LocalProvider, **body: Any) -> httpx.Response:
    return httpx.post(f"{provider.root_url}/v2/chat", json={"model": COMMAND, "messages": HI, **body})


def test_cohere_tells_billed_units_and_tokens(serve: Serve) -> None:
    provider, _ = serve(Reply(text="hello there", input_tokens=10, output_tokens=5))
    answer = ask_cohere(provider).json()
    assert answer["message"]["content"] == [{"type": "text", "text": "hello there"}]
    assert answer["finish_reason"] == "COMPLETE"
    assert answer["usage"]["billed_units"] == {"input_tokens": 10, "output_tokens": 5}
    assert answer["usage"]["tokens"] == {"input_tokens": 10, "output_tokens": 5}
    assert "model" not in answer
    assert provider.bill_nano == 10 * 150 + 5 * 600


def test_cohere_streams_typed_events(serve: Serve) -> None:
    calls = [ToolCall("search", {"q": "a"}, id="c1")]
    provider, _ = serve(Reply(text="Looking.", tool_calls=calls, chunks=2, input_tokens=10, output_tokens=5))
    response = ask_cohere(provider, stream=True)
    told = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line[:5] == "data:"]
    names = [line.removeprefix("event: ") for line in response.text.splitlines() if line[:6] == "event:"]
    assert names == [event["type"] for event in told]
    assert names == [
        "message-start",
        "content-start",
        "content-delta",
        "content-delta",
        "content-end",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "message-end",
    ]
    assert told[-1]["delta"]["finish_reason"] == "TOOL_CALL"
    assert told[-1]["delta"]["usage"]["billed_units"] == {"input_tokens": 10, "output_tokens": 5}


def test_cohere_reads_the_request_in_neutral_words(serve: Serve) -> None:
    provider, _ = serve(Reply(text="1234" * 50))
    tools = [{"type": "function", "function": {"name": "search"}}]
    answer = ask_cohere(provider, max_tokens=7, tools=tools, tool_choice="NONE", temperature=0.5)
    assert answer.json()["finish_reason"] == "MAX_TOKENS"
    (call,) = provider.calls
    assert (call.endpoint, call.tools, call.tool_choice) == ("cohere_chat", ("search",), "none")
    assert (call.max_output_tokens, call.temperature, call.usage.output) == (7, 0.5, 7)


def test_cohere_refuses_in_its_own_words(serve: Serve) -> None:
    provider, _ = serve(Reply(status=429, text="slow down"))
    assert ask_cohere(provider).json() == {"message": "slow down"}
