"""The output cap goes out in each provider's own parameter, and what the caller set is told from what was filled in."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_openai import AzureChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import SecretStr

from budget_guard_langchain.output_cap import can_cap, cap_set, with_cap, with_usage
from tests.integrations.langchain.agents import Lab

SENT = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "claude": "max_tokens"}


def model_of(lab: Lab, kind: str, **options: Any) -> Any:
    made: Any = {"chat": lab.chat, "responses": lab.responses, "claude": lab.claude}[kind](**options)
    return made


def sent_with(lab: Lab, model: Any, kwargs: dict[str, Any], cap: int) -> dict[str, Any]:
    """The request's body of a call that is capped."""
    model, kwargs = with_cap(model, kwargs, cap)
    model.invoke("hi", **kwargs)
    return dict(lab.calls[-1].body)


@pytest.mark.parametrize("kind", SENT)
def test_a_cap_is_sent_in_the_providers_parameter_and_in_no_other(lab: Lab, kind: str) -> None:
    body = sent_with(lab, model_of(lab, kind, max_tokens=None), {}, 77)
    names = [name for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if name in body]
    assert [(name, body[name]) for name in names] == [(SENT[kind], 77)]


@pytest.mark.parametrize("kind", SENT)
@pytest.mark.parametrize(("own", "sent"), [(50, 50), (90, 77)])
def test_the_callers_own_cap_stays_where_it_is_lower(lab: Lab, kind: str, own: int, sent: int) -> None:
    assert sent_with(lab, model_of(lab, kind, max_tokens=own), {}, 77)[SENT[kind]] == sent
    of_call = {"max_tokens" if kind == "claude" else "max_completion_tokens": own}
    assert sent_with(lab, model_of(lab, kind, max_tokens=None), of_call, 77)[SENT[kind]] == sent


@pytest.mark.parametrize("kind", SENT)
def test_a_cap_that_the_caller_set_is_known_wherever_it_set_it(lab: Lab, kind: str) -> None:
    assert cap_set(model_of(lab, kind, max_tokens=None), {}) is None
    assert cap_set(model_of(lab, kind, max_tokens=90), {}) == 90
    assert cap_set(model_of(lab, kind, max_tokens=90), {"max_tokens": 100}) == 100
    assert cap_set(model_of(lab, kind, max_tokens=None, model_kwargs={"max_output_tokens": 80}), {}) == 80


def test_what_claude_fills_in_by_itself_was_set_by_nobody(lab: Lab) -> None:
    for model in ("claude-haiku-4-5", "claude-unheard-of"):
        claude = lab.claude(model, max_tokens=None)
        assert claude.max_tokens is not None
        assert cap_set(claude, {}) is None


def test_a_body_of_the_callers_own_can_be_capped_by_nobody_else(lab: Lab) -> None:
    model = lab.chat(max_tokens=None, extra_body={"max_completion_tokens": 900})
    assert (can_cap(model), cap_set(model, {})) == (False, 900)


@pytest.mark.parametrize(("cap", "thinking"), [(9_000, 8_000), (8_000, 4_000), (2_048, 1_024)])
def test_a_thinking_budget_is_cut_down_to_fit_under_the_cap(lab: Lab, cap: int, thinking: int) -> None:
    asked = {"type": "enabled", "budget_tokens": 8_000}
    given: list[tuple[dict[str, Any], dict[str, Any]]] = [({"thinking": asked}, {}), ({}, {"thinking": asked})]
    for options, kwargs in given:
        claude = lab.claude(max_tokens=None, **options)
        body = sent_with(lab, claude, kwargs, cap)
        assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (cap, thinking)
        assert claude.thinking == options.get("thinking"), "the caller's model"


def test_there_is_no_thinking_under_a_cap_that_is_too_low_for_any(lab: Lab) -> None:
    claude = lab.claude(max_tokens=None, thinking={"type": "enabled", "budget_tokens": 8_000})
    assert sent_with(lab, claude, {}, 2_047)["thinking"] == {"type": "disabled"}
    adaptive = lab.claude(max_tokens=None, thinking={"type": "adaptive"})
    assert sent_with(lab, adaptive, {}, 100)["thinking"] == {"type": "adaptive"}


def test_other_members_of_a_family_have_its_parameter() -> None:
    key = SecretStr("none")
    azure = AzureChatOpenAI(azure_endpoint="https://x", api_key=key, api_version="2025-04-01-preview", model="gpt-4o")
    assert with_cap(azure, {}, 7)[1] == {"max_completion_tokens": 7}

    class ChatOther(BaseChatOpenAI):
        """What DeepSeek's and xAI's classes are."""

    other = ChatOther(model="deepseek-chat", api_key=key, max_tokens=9)
    assert with_cap(other, {}, 7)[1] == {"max_tokens": 7}
    assert cap_set(other, {}) == 9


def test_google_has_a_name_of_its_own_for_it() -> None:
    google = pytest.importorskip("langchain_google_genai")
    gemini = google.ChatGoogleGenerativeAI(model="gemini-2.5-flash", google_api_key="none")
    assert (can_cap(gemini), cap_set(gemini, {})) == (True, None)
    _, kwargs = with_cap(gemini, {}, 7)
    assert kwargs == {"max_output_tokens": 7}
    assert gemini._prepare_params(None, **kwargs).max_output_tokens == 7
    capped = google.ChatGoogleGenerativeAI(model="gemini-2.5-flash", google_api_key="none", max_output_tokens=5)
    assert (cap_set(capped, {}), with_cap(capped, {}, 7)[1]) == (5, {"max_output_tokens": 5})


def test_a_model_of_an_unknown_class_is_sent_no_cap() -> None:
    model = FakeListChatModel(responses=["a"])
    assert (can_cap(model), cap_set(model, {})) == (False, None)
    assert with_cap(model, {"n": 1}, 7) == (model, {"n": 1})


# --- usage


@pytest.mark.parametrize(
    ("options", "kwargs", "asked"),
    [
        ({"stream_usage": None}, {}, True),
        ({"stream_usage": False}, {}, False),
        ({"stream_usage": True}, {}, True),
        ({"stream_usage": None}, {"stream_usage": False}, False),
        ({"stream_usage": None, "model_kwargs": {"stream_options": {"include_obfuscation": True}}}, {}, False),
    ],
)
def test_a_stream_asks_for_its_usage_unless_the_caller_spoke(
    lab: Lab, options: dict[str, Any], kwargs: dict[str, Any], asked: bool
) -> None:
    model = lab.chat(**options)
    list(model.stream("hi", **with_usage(model, kwargs)))
    assert (lab.calls[0].body.get("stream_options") or {}).get("include_usage", False) is asked


def test_where_usage_comes_by_itself_nothing_asks_for_it(lab: Lab) -> None:
    for model in (lab.responses(stream_usage=None), lab.claude(), FakeListChatModel(responses=["a"])):
        assert with_usage(model, {}) == {}
