"""LangChain's messages in the words of each dialect: the same content, whoever's way of writing it down it is."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from budget_guard.wire import CHAT_COMPLETIONS, CONVERSE, GENERATE_CONTENT, MESSAGES, RESPONSES
from budget_guard_langchain.messages import as_sent, plain, without_kept

CHAT, RESP, CLAUDE, GEMINI, BEDROCK = (
    each.name for each in (CHAT_COMPLETIONS, RESPONSES, MESSAGES, GENERATE_CONTENT, CONVERSE)
)


def part(block: Any, dialect: str, message: type[BaseMessage] = HumanMessage) -> Any:
    """The one part that a message of *block* has in *dialect*."""
    (sent,) = as_sent([message([block])], dialect)
    (found,) = sent["parts" if dialect == GEMINI else "content"]
    return found


PICTURE = {"type": "image", "base64": "AAAA", "mime_type": "image/jpeg"}
FILE = {"type": "file", "base64": "AAAA"}
SOUND = {"type": "audio", "base64": "AAAA"}
FILM = {"type": "video", "base64": "AAAA"}


@pytest.mark.parametrize(
    ("block", "dialect", "expected"),
    [
        (
            {**PICTURE, "extras": {"detail": "low"}},
            CHAT,
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA", "detail": "low"}},
        ),
        (FILE, CHAT, {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}),
        (SOUND, CHAT, {"type": "input_audio", "input_audio": {"data": "AAAA"}}),
        (FILM, CHAT, {"type": "video", "input_audio": {"data": "AAAA"}}),
        (
            {**PICTURE, "detail": "high"},
            RESP,
            {"type": "input_image", "image_url": "data:image/jpeg;base64,AAAA", "detail": "high"},
        ),
        (FILE, RESP, {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}),
        (SOUND, RESP, {"type": "input_audio", "data": "AAAA"}),
        (
            PICTURE,
            CLAUDE,
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
        ),
        (
            FILE,
            CLAUDE,
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        ),
        (PICTURE, GEMINI, {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}}),
        (
            {**PICTURE, "media_resolution": "LOW"},
            GEMINI,
            {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}, "mediaResolution": "LOW"},
        ),
        (PICTURE, BEDROCK, {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}}),
        (FILE, BEDROCK, {"document": {"format": "pdf", "source": {"bytes": "AAAA"}}}),
        (FILM, BEDROCK, {"video": {"format": "mp4", "source": {"bytes": "AAAA"}}}),
        (SOUND, BEDROCK, {"audio": {"format": "wav", "source": {"bytes": "AAAA"}}}),
    ],
)
def test_what_a_block_carries_becomes_the_dialect_s_part(block: Any, dialect: str, expected: Any) -> None:
    assert part(block, dialect) == expected
    assert part({"type": "non_standard", "value": block}, dialect) == expected


ELSEWHERE = {"type": "file", "url": "https://e.example/a.pdf", "mime_type": "application/pdf"}


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (CHAT, ELSEWHERE),
        (RESP, {**ELSEWHERE, "type": "input_file"}),
        (CLAUDE, {**ELSEWHERE, "type": "document"}),
        (GEMINI, {"fileData": ELSEWHERE}),
        (BEDROCK, {"document": {"format": "pdf", "source": ELSEWHERE}}),
    ],
)
def test_what_is_somewhere_else_keeps_all_that_tells_where(dialect: str, expected: Any) -> None:
    assert part(ELSEWHERE, dialect) == expected


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
        {"type": "image", "base64": "AAAA"},
        {"type": "image", "data": "AAAA"},
        {"type": "image", "base64": "data:image/png;base64,AAAA"},
        {"type": "image", "source_type": "url", "source": "data:image/png;base64,AAAA"},
        {"type": "image", "url": "data:image/png;base64,AAAA"},
        {"type": "image_url", "image_url": "data:image/png;base64,AAAA"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AAAA"}},
        {"type": "media", "mime_type": "image/png", "data": "AAAA"},
        {"type": "file", "mime_type": "image/png", "file": {"file_data": "data:image/png;base64,AAAA"}},
        {"type": "file", "file_data": "data:image/png;base64,AAAA"},
    ],
)
def test_a_picture_is_one_however_it_is_written_down(block: dict[str, Any]) -> None:
    assert part(block, GEMINI) == {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "base64": "AAAA"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "media", "mime_type": "audio/wav", "data": "AAAA"},
    ],
)
def test_sound_is_sound_however_it_is_written_down(block: dict[str, Any]) -> None:
    assert part(block, CHAT) == {"type": "input_audio", "input_audio": {"data": "AAAA"}}


def test_a_source_that_is_no_url_is_not_taken_for_one() -> None:
    block = {"type": "image", "source_type": "id", "source": "data:image/png;base64,AAAA"}
    assert part(block, CHAT) == {**block, "type": "image_url"}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text-plain", "text": "a page"},
        {"type": "document", "source": {"type": "text", "data": "a page"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a page"}]}},
    ],
)
def test_a_document_of_text_is_text(block: dict[str, Any]) -> None:
    as_text = block["type"] == "text-plain"
    assert part(block, CLAUDE) == ({**block, "type": "text"} if as_text else block)
    assert part(block, GEMINI) == ({"text": block} if as_text else block)


@pytest.mark.parametrize(
    ("block", "dialect", "expected"),
    [
        ({"type": "text", "text": "hi"}, CHAT, {"type": "text", "text": "hi"}),
        ({"type": "text", "text": "hi"}, BEDROCK, {"text": {"type": "text", "text": "hi"}}),
        ("hi", CHAT, {"type": "text", "text": "hi"}),
        ("hi", GEMINI, {"text": "hi"}),
        ({"type": "output_text", "text": "hi"}, CHAT, {"type": "text", "text": "hi"}),
        ({"type": "tool_use", "id": "1"}, CHAT, {"type": "text", "id": "1"}),
        ({"type": "tool_use", "id": "1"}, CLAUDE, {"type": "tool_use", "id": "1"}),
        ({"type": "function_call", "id": "1"}, RESP, {"type": "function_call", "id": "1"}),
        ({"type": "function_call", "id": "1"}, GEMINI, {"text": {"type": "function_call", "id": "1"}}),
        ({"type": "reasoning", "reasoning": "hm"}, CHAT, {"type": "text", "reasoning": "hm"}),
        ({"type": "reasoning", "reasoning": "hm"}, RESP, {"type": "text", "reasoning": "hm"}),
        (
            {"type": "reasoning", "reasoning": "hm", "id": "rs_1"},
            RESP,
            {"type": "reasoning", "reasoning": "hm", "id": "rs_1"},
        ),
        ({"type": "reasoning", "id": "x"}, RESP, {"type": "reasoning", "id": "x"}),
        (
            {"type": "reasoning", "reasoning": "hm", "extras": {"encrypted_content": "xx"}},
            RESP,
            {
                "type": "reasoning",
                "reasoning": "hm",
                "extras": {"encrypted_content": "xx"},
                "encrypted_content": "xx",
            },
        ),
        ({"type": "hologram"}, RESP, {"type": "hologram"}),
        ({"type": "hologram"}, GEMINI, {"type": "hologram"}),
        ({"type": "non_standard", "value": "x"}, CHAT, {"type": "non_standard", "value": "x"}),
        ({"type": "hologram", "value": {"type": "text"}}, CHAT, {"type": "hologram", "value": {"type": "text"}}),
        ({"cachePoint": {"type": "default"}}, BEDROCK, {"cachePoint": {"type": "default"}}),
    ],
)
def test_text_stays_text_and_what_nobody_knows_stays_what_it_is(block: Any, dialect: str, expected: Any) -> None:
    assert part(block, dialect, AIMessage) == expected


CALL: dict[str, Any] = {"name": "f", "args": {"x": 1}, "id": "c1"}
CALLED = [("f", {"x": 1}, "c1")]


@pytest.mark.parametrize(
    ("message", "dialect", "expected"),
    [
        (HumanMessage("hi"), CHAT, {"role": "user", "content": "hi"}),
        (HumanMessage("hi"), GEMINI, {"role": "user", "parts": [{"text": "hi"}]}),
        (HumanMessage("hi"), BEDROCK, {"role": "user", "content": [{"text": "hi"}]}),
        (HumanMessage(""), GEMINI, {"role": "user", "parts": []}),
        (SystemMessage("hi", name="n"), CHAT, {"role": "system", "content": "hi", "name": "n"}),
        (SystemMessage("hi", name="n"), GEMINI, {"role": "system", "parts": [{"text": "hi"}, {"text": "n"}]}),
        (ToolMessage("hi", tool_call_id="c1"), CHAT, {"role": "tool", "content": "hi", "tool_call_id": "c1"}),
        (
            ToolMessage("hi", tool_call_id="c1"),
            BEDROCK,
            {"role": "tool", "content": [{"text": "hi"}, {"text": "c1"}]},
        ),
        (
            AIMessage("", tool_calls=[CALL]),
            CHAT,
            {"role": "assistant", "content": [{"type": "text", "text": CALLED}]},
        ),
        (
            AIMessage("ok", tool_calls=[CALL]),
            GEMINI,
            {"role": "assistant", "parts": [{"text": "ok"}, {"text": CALLED}]},
        ),
        (
            AIMessage("ok", additional_kwargs={"function_call": {"name": "f"}, "text": "t"}),
            CHAT,
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "ok"},
                    {"type": "text", "function_call": {"name": "f"}, "text": "t"},
                ],
            },
        ),
        (
            AIMessage("ok", additional_kwargs={"function_call": {"name": "f"}}),
            GEMINI,
            {"role": "assistant", "parts": [{"text": "ok"}, {"text": {"function_call": {"name": "f"}}}]},
        ),
        (
            AIMessage("ok", additional_kwargs={"parsed": 1, "refusal": "no", "tool_calls": []}),
            CHAT,
            {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
        ),
        (
            AIMessage("ok", additional_kwargs={"audio": {"id": "a"}}),
            CHAT,
            {"role": "assistant", "content": [{"type": "text", "text": "ok"}], "audio": {"id": "a"}},
        ),
        (
            AIMessage("ok", additional_kwargs={"audio": {"id": "a"}}),
            GEMINI,
            {"role": "assistant", "parts": [{"text": "ok"}, {"text": {"audio": {"id": "a"}}}]},
        ),
        (
            AIMessage("ok", additional_kwargs={"reasoning": {"type": "reasoning", "id": "rs_1"}}),
            RESP,
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "ok"}, {"type": "reasoning", "id": "rs_1"}],
            },
        ),
        (
            AIMessage("ok", additional_kwargs={"tool_outputs": [{"type": "web_search_call", "id": "ws_1"}]}),
            RESP,
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "ok"}, {"type": "web_search_call", "id": "ws_1"}],
            },
        ),
        (
            AIMessage("ok", additional_kwargs={"reasoning": {"id": "rs_1"}}),
            CHAT,
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "ok"},
                    {"type": "text", "reasoning": {"id": "rs_1"}, "text": ""},
                ],
            },
        ),
    ],
)
def test_all_of_a_message_is_there(message: BaseMessage, dialect: str, expected: Any) -> None:
    assert as_sent([message], dialect) == [expected]


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "text", "text": "hi"}]),
        HumanMessage("hi", additional_kwargs={"x": "y"}),
        HumanMessage("hi", name="n"),
        ToolMessage("hi", tool_call_id="c1"),
        AIMessage("hi", tool_calls=[CALL]),
    ],
)
def test_only_a_role_and_a_text_are_plain(message: BaseMessage) -> None:
    assert plain([HumanMessage("hi"), AIMessage("ho"), SystemMessage("s")]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "system", "content": "s"},
    ]
    assert plain([HumanMessage("hi"), message]) is None


def test_messages_before_an_answer_that_is_kept_are_not_sent() -> None:
    kept, newer = (AIMessage("a", response_metadata={"id": f"resp_{n}"}) for n in (1, 2))
    other, none = AIMessage("b", response_metadata={"id": "chatcmpl-1"}), AIMessage("c")
    first, last = HumanMessage("first"), HumanMessage("last")
    assert without_kept([first, kept, last]) == ([last], "resp_1")
    assert without_kept([kept, first, newer, last]) == ([last], "resp_2")
    assert without_kept([kept, other, none, last]) == ([other, none, last], "resp_1")
    assert without_kept([kept]) == ([], "resp_1")
    assert without_kept([first, other]) == ([first, other], None)
    told = HumanMessage("x", response_metadata={"id": "resp_9"})
    assert without_kept([first, told]) == ([first, told], None)
