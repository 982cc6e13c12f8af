"""What a call is held for is what its client sends: the effective request, read by the provider's dialect."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard_langchain.request import Asked, read_call, requests_of_texts

KEYS: dict[str, Any] = {"api_key": "none"}


class Seen(Exception):
    """Ends a call before it is sent."""


def asked(model: Any, messages: Any = "hi", **config: Any) -> Asked:
    """What a call of *model* is read as."""
    found: list[Asked] = []

    class Look(BaseCallbackHandler):
        raise_error = True
        run_inline = True

        def on_chat_model_start(
            self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
        ) -> None:
            found.append(read_call(serialized, messages[0], kwargs["metadata"], kwargs["invocation_params"]))
            raise Seen

    with pytest.raises(Seen):
        model.invoke(messages, {"callbacks": [Look()], **config})
    return found[0]


def openai(**options: Any) -> ChatOpenAI:
    given: dict[str, Any] = {"model": "gpt-4o-mini", **KEYS, **options}
    return ChatOpenAI(**given)


def claude(**options: Any) -> ChatAnthropic:
    given: dict[str, Any] = {"model": "claude-sonnet-4-5", **KEYS, **options}
    return ChatAnthropic(**given)


def gemini(**options: Any) -> ChatGoogleGenerativeAI:
    given: dict[str, Any] = {"model": "gemini-2.5-flash", "google_api_key": "none", **options}
    return ChatGoogleGenerativeAI(**given)


# The one that is merged last wins


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, {}),
        ({"n": 3}, {}),
        ({"max_tokens": 9}, {"max_completion_tokens": 700}),
        ({}, {"max_tokens": 800}),
        ({"extra_body": {"model": "gpt-4"}}, {}),
        ({"extra_body": {"model": "gpt-4"}}, {"extra_body": {"n": 4}}),  # the call's replaces the constructor's
        ({"extra_body": {"n": 8, "max_tokens": 5_000}}, {"n": 2}),
        ({"service_tier": "flex"}, {"extra_body": {"service_tier": "priority"}}),
        ({}, {"model": "gpt-4o", "service_tier": "priority"}),
        ({"use_responses_api": True, "max_tokens": 10}, {}),
        ({"use_responses_api": True, "max_tokens": 10}, {"extra_body": {"max_output_tokens": 4_000, "model": "o3"}}),
        ({"reasoning": {"effort": "low"}, "max_tokens": 77}, {}),
    ],
)
def test_openai_s_requests_are_read_as_they_are_sent(options: dict[str, Any], bound: dict[str, Any]) -> None:
    model: Any = openai(**options)
    payload = model._get_request_payload("hi", **bound)
    sent = {**payload, **payload.get("extra_body", {})}
    request = asked(model.bind(**bound)).request
    caps = [sent[name] for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if name in sent]
    assert request.model == sent["model"]
    assert request.choices == sent.get("n", 1)
    assert request.max_output_tokens == max(caps, default=None)
    assert request.tier == sent.get("service_tier")
    assert request.dialect == ("responses" if "input" in payload else "chat completions")


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({"max_tokens": 100}, {"max_tokens": 900}),
        ({"max_tokens": 100, "model_kwargs": {"speed": "fast"}}, {}),
        ({"inference_geo": "us", "max_tokens": 5}, {}),
        ({"max_tokens": 5}, {"extra_body": {"inference_geo": "us", "max_tokens": 6_000}}),
        ({"max_tokens": 5}, {"model": "claude-opus-4-8", "service_tier": "auto"}),
    ],
)
def test_anthropic_s_requests_are_read_as_they_are_sent(options: dict[str, Any], bound: dict[str, Any]) -> None:
    model: Any = claude(**options)
    payload = model._get_request_payload("hi", **bound)
    sent = {**payload, **payload.get("extra_body", {})}
    request = asked(model.bind(**bound)).request
    assert request.model == sent["model"]
    assert request.max_output_tokens == sent["max_tokens"]
    assert (request.speed, request.region) == (sent.get("speed"), sent.get("inference_geo"))
    assert request.tier == sent.get("service_tier")


def test_what_a_user_notes_for_tracing_changes_nothing() -> None:
    noted = {"ls_model_name": "gpt-4o-mini", "ls_max_tokens": 1, "ls_provider": "ollama"}
    for call in (
        asked(openai(model="gpt-4", max_tokens=50, metadata=noted)).call,
        asked(openai(model="gpt-4", max_tokens=50), metadata=noted).call,
    ):
        assert (call.model, call.max_output_tokens, call.provider) == ("gpt-4", 50, "openai")


def test_the_client_s_address_tells_the_provider_and_the_region() -> None:
    assert asked(openai(base_url="https://eu.api.openai.com/v1")).call[2] == "openai"
    assert asked(openai(base_url="https://eu.api.openai.com/v1")).call.region == "eu"
    assert asked(openai(base_url="https://api.x.ai/v1")).call.provider == "x-ai"
    assert asked(openai(base_url="https://gateway.example/v1")).call.provider is None
    azure: dict[str, Any] = {"azure_endpoint": "https://c.openai.azure.com", "api_version": "2025-04-01-preview"}
    assert asked(AzureChatOpenAI(azure_deployment="prod", **azure, **KEYS)).call[0:3:2] == ("prod", "azure")


def test_gemini_s_arguments_become_its_own_request() -> None:
    request = asked(gemini(max_output_tokens=50, n=2, response_modalities=["TEXT", "IMAGE"])).request
    assert (request.dialect, request.max_output_tokens, request.choices) == ("generateContent", 50, 2)
    assert request.modalities == {"image"}
    searching = asked(gemini().bind(tools=[{"google_search": {}}])).request
    assert searching.hosted_tools == ("web_search",)
    assert asked(gemini(cached_content="c/1")).request.prompt.opaque == ("content kept by the provider",)


def test_a_class_that_nobody_knows_is_priced_by_an_exact_known_name() -> None:
    class Own(BaseChatModel):
        model: str = "gpt-4o"

        @property
        def _llm_type(self) -> str:
            return "own"

        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            usage: Any = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
            return ChatResult(generations=[ChatGeneration(message=AIMessage("hi", usage_metadata=usage))])

    handler = BudgetCallbackHandler(Budget("$1.00"))
    Own().invoke("hi", {"callbacks": [handler]})
    assert handler.spent_usd * 10**9 == 100 * 2_500 + 10 * 10_000


# What is in a message


def png(width: int, height: int) -> str:
    """The base64 text of a picture of that size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk).decode()


PICTURE = png(512, 512)
WAYS: list[dict[str, Any]] = [
    {"type": "image", "base64": PICTURE, "mime_type": "image/png"},
    {"type": "image", "source_type": "base64", "data": PICTURE, "mime_type": "image/png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    {"type": "image_url", "image_url": f"data:image/png;base64,{PICTURE}"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
]
MODELS: list[Any] = [
    openai(model="gpt-4o"),
    openai(model="gpt-4o", use_responses_api=True),
    claude(max_tokens=9),
    gemini(),
]


@pytest.mark.parametrize("way", range(len(WAYS)))
@pytest.mark.parametrize("model", MODELS, ids=["chat", "responses", "messages", "gemini"])
def test_a_picture_of_visible_size_is_weighed_however_it_is_written_down(model: Any, way: int) -> None:
    request = asked(model, [HumanMessage([{"type": "text", "text": "what?"}, WAYS[way]])]).request
    assert not request.prompt.unweighed
    assert "vision" in request.needs
    assert 100 < request.prompt.text < 4_000  # and not by the bytes of its base64 text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "url": "https://example.com/x.png"},
        {"type": "image", "file_id": "file-1"},
        {"type": "file", "file_id": "file-1"},
        {"type": "file", "url": "https://example.com/x.pdf", "mime_type": "application/pdf"},
        {"type": "audio", "url": "https://example.com/x.wav"},
        {"type": "video", "base64": "AAAA", "mime_type": "video/mp4"},
        {"type": "video", "url": "https://example.com/x.mp4"},
        {"type": "text-plain", "file_id": "file-1"},
        {"type": "media", "file_uri": "gs://x", "mime_type": "video/mp4"},
        {"type": "container_upload", "file_id": "file-1"},
        {"type": "hologram", "depth": 3},
        {"type": "non_standard", "value": {"type": "hologram"}},
    ],
    ids=lambda block: block["type"],
)
@pytest.mark.parametrize("model", MODELS, ids=["chat", "responses", "messages", "gemini"])
def test_what_cannot_be_weighed_is_opaque(model: Any, block: dict[str, Any]) -> None:
    assert asked(model, [HumanMessage([block])]).request.prompt.unweighed


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]),
        HumanMessage(["hi", {"type": "text", "text": "there"}]),
        HumanMessage([{"type": "text-plain", "text": "a page", "mime_type": "text/plain"}]),
        SystemMessage([{"type": "text", "text": "Be brief."}]),
        AIMessage([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "ok"}]),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "ok"}]),
        AIMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}]),
        AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}]),
        AIMessage([{"type": "server_tool_call", "id": "1", "name": "web_search", "args": {"query": "q"}}]),
        AIMessage("ok", additional_kwargs={"reasoning_content": "hm", "refusal": None}),
        ToolMessage("rain", tool_call_id="1"),
        ToolMessage([{"type": "text", "text": "rain"}], tool_call_id="1"),
    ],
)
@pytest.mark.parametrize("model", MODELS, ids=["chat", "responses", "messages", "gemini"])
def test_text_in_every_form_is_weighed(model: Any, message: BaseMessage) -> None:
    prompt = asked(model, [HumanMessage("hi"), message]).request.prompt
    assert not prompt.unweighed
    assert not prompt.opaque


def test_what_openai_keeps_is_opaque() -> None:
    kept = AIMessage("ok", response_metadata={"id": "resp_1"})
    follows = openai(use_responses_api=True, use_previous_response_id=True)
    assert asked(follows, [HumanMessage("a"), kept, HumanMessage("b")]).request.prompt.opaque == (
        "history kept by the provider",
    )
    thought = AIMessage([{"type": "reasoning", "id": "rs_1", "summary": []}])
    assert asked(openai(use_responses_api=True), [thought]).request.reasoning_ids == ("rs_1",)
    sent, kept_aside = (
        asked(openai(use_responses_api=True), [AIMessage([{"type": "reasoning", "id": "rs_1", "summary": [], **more}])])
        for more in ({"encrypted_content": "x" * 4_000}, {"extras": {"encrypted_content": "x" * 4_000}})
    )
    assert kept_aside.request.reasoning_ids == sent.request.reasoning_ids
    assert kept_aside.request.prompt.unweighed == sent.request.prompt.unweighed
    spoken = AIMessage("", additional_kwargs={"audio": {"id": "audio_1"}})
    assert asked(openai(model="gpt-audio"), [spoken]).request.prompt.unweighed


def test_tools_and_what_costs_besides_tokens_are_read() -> None:
    assert asked(openai().bind(tools=[{"type": "web_search"}])).request.hosted_tools == ("web_search",)
    assert asked(openai().bind(tools=[{"type": "quantum_annealer"}])).request.hosted_tools == ("quantum_annealer",)
    searched = openai().bind(extra_body={"web_search_options": {}})
    assert asked(searched).request.hosted_tools == ("web_search",)
    assert asked(openai().bind(extra_body={"plugins": [{"id": "web"}]})).request.prompt.opaque
    assert asked(openai().bind(extra_body={"models": ["gpt-4"]})).call.alternatives == ("gpt-4",)
    assert asked(openai().bind(extra_body={"new_thing": {"depth": 9}})).call.prompt.opaque == (
        "the parameter new_thing",
    )
    assert asked(openai().bind(extra_body={"new_thing": 9})).call.prompt.opaque == ()


def test_equal_arguments_are_read_once_and_messages_every_time() -> None:
    class Shape(BaseModel):
        x: int

    first, second = asked(openai(), "hi").call, asked(openai(), "hi there, how are you?").call
    assert first.kind == second.kind
    assert first.prompt.text < second.prompt.text
    plain, shaped = asked(openai()).call, asked(openai().bind(response_format=Shape)).call
    assert plain.prompt.base < shaped.prompt.base
    assert asked(openai(max_tokens=5)).call.max_output_tokens == 5
    assert asked(openai(max_tokens=6)).call.max_output_tokens == 6


@pytest.mark.parametrize(
    ("kind", "size", "texts", "requests"),
    [("openai", 2, 4, 2), ("openai", None, 20, 1), ("openai", None, 21, 2), ("own", None, 3, 3), ("own", None, 1, 1)],
)
def test_texts_are_sent_in_so_many_requests(kind: str, size: int | None, texts: int, requests: int) -> None:
    assert requests_of_texts({"kwargs": {"batch_size": size}}, {"_type": kind}, texts) == requests


@pytest.mark.parametrize(
    ("arguments", "cap"),
    [
        ({}, 100),
        ({"max_tokens": 50}, 50),
        ({"inferenceConfig": {"maxTokens": 70}}, 70),
        ({"max_tokens": 300}, 300),
        ({"inferenceConfig": {"maxTokens": 7_000}}, 7_000),
    ],
)
def test_the_cap_of_bedrock_s_class_is_that_of_the_call_or_else_its_own(arguments: dict[str, Any], cap: int) -> None:
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    written: dict[str, Any] = {"name": "ChatBedrockConverse", "kwargs": {"model_id": model, "max_tokens": 100}}
    params = {"model": model, "_type": "amazon_bedrock_converse_chat", "stop": None, **arguments}

    assert read_call(written, [HumanMessage("hi")], {"ls_max_tokens": 7}, params).call.max_output_tokens == cap
