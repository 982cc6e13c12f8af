"""The body that LangChain's clients send, put together of what callbacks are told."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel

from budget_guard.wire import CHAT_COMPLETIONS, RESPONSES
from budget_guard_langchain import request as requests
from budget_guard_langchain.request import Asked, endpoint_at, is_responses, read_call, requests_of_texts, tool_names

HI = [HumanMessage("hi")]
SAID = {"role": "user", "content": "hi"}


class Shape(BaseModel):
    x: int


SHAPE = Shape.model_json_schema()


def openai_body(params: dict[str, Any], constructor: dict[str, Any] | None = None) -> dict[str, Any]:
    dialect, body = requests._openai(HI, params, constructor or {}, "m")
    assert dialect is (RESPONSES if "input" in body else CHAT_COMPLETIONS)
    return body


@pytest.mark.parametrize(
    ("params", "body"),
    [
        ({"temperature": 0, "seed": None, "_type": "openai-chat", "stop": ["x"]}, {"temperature": 0}),
        ({"response_format": Shape}, {"response_format": SHAPE}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"text_format": Shape}, {"response_format": SHAPE}),
        ({"response_format": {"a": 1}, "text_format": Shape}, {"response_format": {"a": 1}}),
        ({"n": 2, "extra_body": {"n": 3, "messages": []}}, {"n": 3, "messages": []}),
        ({"extra_body": "no mapping"}, {}),
    ],
)
def test_what_is_sent_to_chat_completions(params: dict[str, Any], body: dict[str, Any]) -> None:
    assert openai_body(params) == {"model": "m", "messages": [SAID], **body}


@pytest.mark.parametrize(
    ("params", "constructor", "body"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 7}, {}, {"max_output_tokens": 7}),
        ({"max_tokens": None}, {}, {}),
        ({"response_format": Shape}, {}, {"text": {"format": {"type": "json_schema", "schema": SHAPE}}}),
        (
            {"text_format": Shape, "text": {"verbosity": "low"}},
            {},
            {"text": {"verbosity": "low", "format": {"type": "json_schema", "schema": SHAPE}}},
        ),
        ({"text": {"verbosity": "low"}}, {}, {"text": {"verbosity": "low"}}),
        ({"extra_body": {"input": "else"}}, {}, {"input": "else"}),
        ({"n": 1, "extra_body": {"n": 2}}, {}, {"n": 2}),
    ],
)
def test_what_is_sent_to_responses(params: dict[str, Any], constructor: dict[str, Any], body: dict[str, Any]) -> None:
    assert openai_body(params, {"use_responses_api": True, **constructor}) == {"model": "m", "input": [SAID], **body}


@pytest.mark.parametrize(
    ("params", "constructor", "expected"),
    [
        ({}, {}, False),
        ({}, {"use_responses_api": True}, True),
        ({"reasoning": {"effort": "low"}}, {"use_responses_api": False}, False),
        ({"reasoning": {"effort": "low"}}, {"use_responses_api": None}, True),
        ({"reasoning": None}, {}, False),
        ({}, {"output_version": "responses/v1"}, True),
        ({}, {"output_version": "v1"}, False),
        ({}, {"use_previous_response_id": True}, True),
        ({"tools": [{"type": "function", "function": {}}]}, {}, False),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, {}, True),
        ({"tools": [{"name": "f"}]}, {}, False),
    ],
)
def test_the_api_that_the_client_calls(params: dict[str, Any], constructor: dict[str, Any], expected: bool) -> None:
    assert is_responses(params, constructor) is expected


def test_a_rule_of_the_client_s_that_fails_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base = pytest.importorskip("langchain_openai.chat_models.base")
    monkeypatch.setattr(base, "_model_prefers_responses_api", lambda name: name == "picky", raising=False)
    assert is_responses({"model_name": "picky"}, {})
    assert not is_responses({"model_name": "gpt-4o"}, {})
    monkeypatch.setattr(base, "_model_prefers_responses_api", lambda: True)
    assert not is_responses({"model_name": "picky"}, {})
    monkeypatch.delattr(base, "_model_prefers_responses_api")
    assert not is_responses({"model_name": "picky"}, {})


@pytest.mark.parametrize(
    ("params", "constructor", "body"),
    [
        ({"max_tokens": 5, "temperature": None}, {}, {"max_tokens": 5}),
        ({"max_tokens": 5, "model_kwargs": {"max_tokens": 9}}, {}, {"max_tokens": 9}),
        ({"max_tokens": 9, "model_kwargs": {"max_tokens": 5}}, {}, {"max_tokens": 9}),
        ({"model_kwargs": {"max_tokens": 5, "speed": "fast"}}, {}, {"max_tokens": 5, "speed": "fast"}),
        ({"inference_geo": "eu"}, {"inference_geo": "us"}, {"inference_geo": "us"}),
        ({"inference_geo": "eu"}, {}, {"inference_geo": "eu"}),
        ({}, {"mcp_servers": [{"url": "u"}], "container": None}, {"mcp_servers": [{"url": "u"}]}),
        ({"response_format": Shape}, {}, {"output_config": {"format": SHAPE}}),
        (
            {"response_format": Shape, "output_config": {"effort": "low"}},
            {},
            {"output_config": {"effort": "low", "format": SHAPE}},
        ),
        ({"max_tokens": 5, "extra_body": {"max_tokens": 6}}, {}, {"max_tokens": 6}),
    ],
)
def test_what_is_sent_to_anthropic(params: dict[str, Any], constructor: dict[str, Any], body: dict[str, Any]) -> None:
    asked = requests._anthropic([SystemMessage("Be brief."), *HI], params, constructor, "m")
    assert asked == {"model": "m", "system": [{"type": "text", "text": "Be brief."}], "messages": [SAID], **body}


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("params", "constructor", "body"),
    [
        ({"n": 2, "max_output_tokens": 5}, {}, {"candidateCount": 2, "maxOutputTokens": 5}),
        ({"candidate_count": 3}, {}, {"candidateCount": 3}),
        ({"generation_config": {"topK": 3}, "max_tokens": 7}, {}, {"topK": 3, "maxOutputTokens": 7}),
        ({"response_modalities": ["IMAGE"]}, {}, {"responseModalities": ["IMAGE"]}),
        ({"response_schema": Shape}, {}, {"responseSchema": SHAPE}),
        ({"response_json_schema": {"a": 1}}, {}, {"responseSchema": {"a": 1}}),
    ],
)
def test_what_is_sent_to_gemini(params: dict[str, Any], constructor: dict[str, Any], body: dict[str, Any]) -> None:
    asked = requests._google(HI, params, constructor, "m")
    nothing: dict[str, Any] = {
        "candidateCount": None,
        "maxOutputTokens": None,
        "responseModalities": [],
        "responseSchema": None,
    }
    assert asked == {
        "model": "m",
        "generationConfig": {**nothing, **body},
        "tools": [],
        "cachedContent": None,
        "serviceTier": None,
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    }


def test_what_else_may_cost_at_gemini() -> None:
    class Tool(BaseModel):
        google_search: dict[str, Any] | None = None
        url_context: dict[str, Any] | None = None

    tools = [FUNCTION, {"name": "f"}, {"google_search": {"a": 1}}, print, Tool(google_search={"x": 1})]
    asked = requests._google(
        HI, {"tools": tools, "service_tier": "flex", "extra_body": {"x": 1}}, {"cached_content": "c"}, "m"
    )
    assert asked["tools"] == [
        {"functionDeclarations": [FUNCTION]},
        {"functionDeclarations": [{"name": "f"}]},
        {"google_search": {"a": 1}},
        {"functionDeclarations": [print]},
        {"google_search": {"x": 1}},
    ]
    assert (asked["serviceTier"], asked["cachedContent"], asked["x"]) == ("flex", "c", 1)
    assert requests._google(HI, {"cached_content": "of the call"}, {"cached_content": "c"}, "m")["cachedContent"] == (
        "of the call"
    )


@pytest.mark.parametrize(
    ("params", "constructor", "body"),
    [
        ({}, {}, {}),
        ({"service_tier": "flex"}, {"service_tier": "priority"}, {"serviceTier": "flex"}),
        ({}, {"service_tier": "priority"}, {"serviceTier": "priority"}),
        ({"serviceTier": {"type": "x"}, "service_tier": "y"}, {}, {"serviceTier": {"type": "x"}}),
        ({"guardrails": {"g": 1}}, {}, {"guardrailConfig": {"g": 1}}),
        ({"guardrails": {"g": 1}, "guardrail_config": {"g": 2}}, {}, {"guardrailConfig": {"g": 2}}),
        ({}, {"performance_config": {"latency": "optimized"}}, {"performanceConfig": {"latency": "optimized"}}),
        ({"additional_model_request_fields": {"a": 1}}, {}, {"additionalModelRequestFields": {"a": 1}}),
        ({"tools": [{"name": "f"}]}, {}, {"toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]}}),
        ({"tools": [FUNCTION, print]}, {}, {"toolConfig": {"tools": [{"toolSpec": FUNCTION}, {"toolSpec": print}]}}),
        ({"toolConfig": {"tools": [{"cachePoint": {}}]}}, {}, {"toolConfig": {"tools": [{"cachePoint": {}}]}}),
        ({"max_tokens": 5}, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 5}}),
        ({"inferenceConfig": {"maxTokens": 5}}, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 5}}),
        ({}, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 9}}),
    ],
)
def test_what_is_sent_to_bedrock(params: dict[str, Any], constructor: dict[str, Any], body: dict[str, Any]) -> None:
    assert requests._converse(HI, params, constructor, "m") == {
        "modelId": "m",
        "inferenceConfig": {"maxTokens": None},
        "toolConfig": {"tools": []},
        "guardrailConfig": None,
        "additionalModelRequestFields": {},
        "performanceConfig": None,
        "serviceTier": None,
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        **body,
    }


@pytest.mark.parametrize(
    ("params", "metadata", "body"),
    [
        ({"n": 2, "temperature": 1, "tools": []}, {}, {"n": 2}),
        ({"num_predict": 5}, {}, {"max_tokens": 5}),
        ({"num_predict": 5, "max_new_tokens": 8}, {"ls_max_tokens": 7}, {"max_tokens": 8}),
        ({}, {"ls_max_tokens": 7}, {"max_tokens": 7}),
        ({"json_schema": Shape}, {}, {"response_format": SHAPE}),
        ({"model_kwargs": {"n": 3, "timeout": 1}, "extra_body": {"n": 4}}, {}, {"n": 4}),
    ],
)
def test_what_a_class_that_nobody_knows_may_send(
    params: dict[str, Any], metadata: dict[str, Any], body: dict[str, Any]
) -> None:
    assert requests._body_of_any(params, metadata, "m") == {"model": "m", **body}


@pytest.mark.parametrize(
    ("serialized", "metadata", "params", "name"),
    [
        ({"name": "Chat"}, {"ls_model_name": "l"}, {"model": "m", "model_name": "n"}, "m"),
        ({"name": "Chat"}, {"ls_model_name": "l"}, {"model": "", "model_name": "n"}, "n"),
        ({"name": "Chat"}, {"ls_model_name": "l"}, {"model_id": "i", "azure_deployment": "d"}, "i"),
        ({"name": "Chat"}, {"ls_model_name": "l"}, {"azure_deployment": "d"}, "d"),
        ({"name": "Chat"}, {"ls_model_name": "l"}, {}, "l"),
        ({"name": "Chat"}, {"ls_model_name": 3}, {}, "Chat"),
        (None, {}, {}, "unknown"),
    ],
)
def test_the_name_of_the_model(serialized: Any, metadata: Any, params: Any, name: str) -> None:
    assert read_call(serialized, HI, metadata, params).call.model == name


@pytest.mark.parametrize(
    ("address", "own", "version", "provider"),
    [
        (None, "openai", "", "openai"),
        (None, None, "", None),
        ("https://api.openai.com/v1", None, "", "openai"),
        ("https://llm.example/v1", "openai", "", None),
        ("https://llm.example/v1", "anthropic", "", None),
        ("https://llm.example/v1", "groq", "", "groq"),
        ("https://me.openai.azure.com", None, "2024-10-21", "azure"),
    ],
)
def test_the_provider_by_the_address(address: str | None, own: str | None, version: str, provider: str | None) -> None:
    assert endpoint_at(address, own, version).provider == provider


def test_azure_s_version_is_asked_for_once() -> None:
    for address in ("https://me.openai.azure.com", "https://me.openai.azure.com?api-version=1"):
        assert endpoint_at(address, None, "1") == endpoint_at("https://me.openai.azure.com?api-version=1", None, "")


def asked(*, kwargs: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **params: Any) -> Asked:
    written = {"name": "ChatOpenAI", "kwargs": kwargs or {}}
    return read_call(written, HI, metadata or {}, {"_type": "openai-chat", "model": "gpt-4o", **params})


def test_the_provider_is_that_of_the_client_or_of_its_address() -> None:
    assert asked().request.provider == "openai"
    assert asked(_type="azure-openai-chat").request.provider == "azure"
    assert asked(metadata={"ls_provider": "groq"}).request.provider == "openai"  # a user may note anything there
    assert asked(_type="other", metadata={"ls_provider": "groq"}).request.provider == "groq"
    of_aws, groq = {"region_name": "eu-west-1"}, {"base_url": "https://api.groq.com/openai/v1"}
    converse = "amazon_bedrock_converse_chat"
    assert asked(kwargs=of_aws, _type=converse, metadata={"ls_provider": "x"}).request.provider == "aws"
    assert asked(kwargs=of_aws | groq).request.provider == "groq"
    deployed = {"azure_endpoint": "https://me.openai.azure.com", "openai_api_version": "2024-10-21"}
    assert asked(kwargs=deployed, _type="azure-openai-chat").request.provider == "azure"


def test_calls_with_the_same_arguments_differ_where_what_they_were_read_by_does() -> None:
    one = asked()
    assert one.request.dialect == "chat completions"
    assert asked(kwargs={"use_responses_api": True}).request.dialect == "responses"
    assert asked(kwargs={"output_version": "responses/v1"}).request.dialect == "responses"
    assert asked(metadata={"lc_agent_name": "a", "langgraph_node": "n"}).call.agent == "a"
    assert asked(metadata={"langgraph_node": "n"}).call.agent == "n"
    assert asked().call.agent is None
    assert asked(max_tokens=5).call.max_output_tokens == 5
    assert asked(model="gpt-4o-mini").call.model == "gpt-4o-mini"
    again = asked()
    assert again == one
    assert again.call.prompt == again.request.prompt


def test_what_is_remembered_of_arguments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_MOST_KNOWN", 3)
    requests._known.clear()
    for cap in range(1, 10):
        assert asked(max_tokens=cap).call.max_output_tokens == cap
        assert 0 < len(requests._known) <= 3


@pytest.mark.parametrize("field", ["previous_response_id", "cached_content"])
def test_what_the_provider_keeps_is_opaque_once(field: str) -> None:
    kept: dict[str, Any] = {field: "x"}
    prompt = asked(_type="other", **kept).request.prompt
    assert len(prompt.opaque) == len(set(prompt.opaque)) == 1
    assert prompt.conversation == 0
    assert asked(_type="other", **dict.fromkeys(kept)).request.prompt.opaque == ()


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        (None, []),
        ([{"name": "a"}, FUNCTION], ["a", "f"]),
        ([{"type": "web_search"}, {"name": 3}, "x"], []),
    ],
)
def test_the_tools_that_a_model_is_offered(tools: Any, names: list[str]) -> None:
    assert list(tool_names({"tools": tools})) == names


@pytest.mark.parametrize(
    ("serialized", "params", "texts", "requests_sent"),
    [
        (None, {"_type": "openai"}, 41, 3),
        (None, {"_type": "azure"}, 40, 2),
        ({"kwargs": {"batch_size": 10}}, {"_type": "openai"}, 21, 3),
        ({"kwargs": {"batch_size": 0}}, {"_type": "openai"}, 21, 2),
        ({"kwargs": {"batch_size": 1}}, {"_type": "openai"}, 3, 3),
        ({"kwargs": {"batch_size": "9"}}, {"_type": "openai"}, 21, 2),
        (None, {}, 3, 3),
        (None, {}, 1, 1),
        (None, {}, 0, 1),
        (None, {}, "3", 1),
        (None, {}, 2, 2),
    ],
)
def test_texts_go_in_so_many_requests(serialized: Any, params: Any, texts: Any, requests_sent: int) -> None:
    assert requests_of_texts(serialized, params, texts) == requests_sent
