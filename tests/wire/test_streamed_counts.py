"""What the counts of a stream come to that reports more than once, that breaks, or that reports too early.

Reports are cumulative: whatever comes last, the bill is never below what was told before. And what was told by an end
of one choice is no bill while others are still written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Answer,
    Dialect,
    endpoint,
)

HI: Any = [{"role": "user", "content": "Hi"}]
GOOGLE: Any = [{"parts": [{"text": "Hi"}]}]


def _openai(taken: int, made: int) -> dict[str, Any]:
    return {"prompt_tokens": taken, "completion_tokens": made}


def _choice(text: str, end: bool, index: int) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": "stop" if end else None}


class Streams(NamedTuple):
    """How a dialect streams."""

    dialect: Dialect
    path: str
    body: dict[str, Any]
    several: dict[str, Any]
    """What asks for two choices; empty where that cannot be asked for."""

    def event(
        self, text: str = "x", *, end: bool = False, index: int = 0, counts: tuple[int, int] | None = None
    ) -> Any:
        """One event that writes *text*, of a choice that may come to its *end*, with the *counts* so far."""
        if self.dialect is GENERATE_CONTENT:
            candidate = {
                "index": index,
                "content": {"parts": [{"text": text}]},
                **({"finishReason": "STOP"} if end else {}),
            }
            usage = counts and {"promptTokenCount": counts[0], "candidatesTokenCount": counts[1]}
            return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {})}
        if self.dialect is MESSAGES:
            usage = counts and {"input_tokens": counts[0], "output_tokens": counts[1]}
            return {"type": "message_delta", "delta": {"stop_reason": "end_turn" if end else None}, "usage": usage}
        if self.dialect is RESPONSES:
            usage = counts and {"input_tokens": counts[0], "output_tokens": counts[1]}
            kind = "response.completed" if end else "response.in_progress"
            return {"type": kind, "response": {"output": [{"type": "message"}], "usage": usage}}
        made = {"index": index, "text": text, "finish_reason": "stop" if end else None}
        choice = made if self.dialect is COMPLETIONS else _choice(text, end, index)
        return {"choices": [choice], **({"usage": _openai(*counts)} if counts else {})}

    def read(self, *events: Any, complete: bool = True, **fields: Any) -> Answer:
        """What a stream of *events* comes to, asked for with *fields*."""
        asked = self.dialect.read_request(endpoint("POST", "", self.path), {**self.body, **fields}, {})
        reader = self.dialect.stream(asked)
        for event in events:
            reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        return reader.close(complete=complete)


CHAT = Streams(CHAT_COMPLETIONS, "/v1/chat/completions", {"model": "m", "messages": HI, "stream": True}, {"n": 2})
TEXT = Streams(COMPLETIONS, "/v1/completions", {"model": "m", "prompt": "Hi", "stream": True}, {"n": 2})
GEMINI = Streams(
    GENERATE_CONTENT,
    "/v1beta/models/m:streamGenerateContent",
    {"contents": GOOGLE},
    {"generationConfig": {"candidateCount": 2}},
)
CLAUDE = Streams(MESSAGES, "/v1/messages", {"model": "m", "messages": HI, "max_tokens": 9, "stream": True}, {})
ANSWERS = Streams(RESPONSES, "/v1/responses", {"model": "m", "input": "Hi", "stream": True}, {})
ALL: Mapping[str, Streams] = {"chat": CHAT, "text": TEXT, "gemini": GEMINI, "claude": CLAUDE, "answers": ANSWERS}
each = pytest.mark.parametrize("name", ALL)
with_choices = pytest.mark.parametrize("name", [name for name, streams in ALL.items() if streams.several])


def counted(answer: Answer) -> tuple[int, int] | None:
    """The input and the output of an answer; None where the bound is to be booked."""
    return None if answer.usage is None else (answer.usage.input_tokens, answer.usage.output_tokens)


@each
@pytest.mark.parametrize("last", [(20, 3), (0, 3), (0, 0), (1, 8)])
def test_no_count_of_a_later_report_falls(name: str, last: tuple[int, int]) -> None:
    streams = ALL[name]

    answer = streams.read(streams.event(end=True, counts=(20, 8)), streams.event(end=True, counts=last))

    assert counted(answer) == (20, 8)


@each
def test_each_count_is_the_highest_that_was_told(name: str) -> None:
    """As where the first report has the input alone, and the last one the output."""
    streams = ALL[name]

    answer = streams.read(streams.event(end=True, counts=(20, 1)), streams.event(end=True, counts=(0, 90)))

    assert counted(answer) == (20, 90)


def test_what_a_later_report_leaves_out_was_told_before() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 700}}}
    later: Any = CLAUDE.event(end=True, counts=(5, 9))
    later["usage"] |= {"cache_read_input_tokens": 0, "cache_creation": None, "cache_creation_input_tokens": 0}

    usage = CLAUDE.read(start, later).usage

    assert usage is not None
    assert (usage.input, usage.cache_read, usage.output) == (5, 700, 9)


def test_details_are_merged_and_what_is_no_count_is_not_hidden() -> None:
    first: Any = CHAT.event(counts=(500, 5))
    first["usage"]["prompt_tokens_details"] = {"cached_tokens": 400, "audio_tokens": 7}
    last: Any = CHAT.event(end=True, counts=(500, 9))
    last["usage"]["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": 8}
    broken: Any = CHAT.event(counts=(500, -1))

    usage = CHAT.read(first, last).usage

    assert usage is not None
    assert (usage.input_tokens, usage.cache_read, usage.input_audio) == (908, 400, 8)
    assert counted(CHAT.read(last, broken)) is None


@with_choices
def test_the_end_of_one_choice_is_no_bill_while_another_one_is_written(name: str) -> None:
    streams = ALL[name]
    one = streams.event(end=True, counts=(5, 3))
    other = streams.event("more", index=1, counts=(5, 4))
    its_end = streams.event(end=True, index=1, counts=(5, 9))

    assert counted(streams.read(one, other, complete=False, **streams.several)) is None
    assert counted(streams.read(one, other, its_end, complete=False, **streams.several)) == (5, 9)
    assert counted(streams.read(one, complete=False)) == (5, 3)  # where one alone was asked for
    assert counted(streams.read(one, complete=True, **streams.several)) == (5, 3)  # a server that knows no more


@with_choices
def test_usage_so_far_is_no_bill_where_the_stream_breaks_before_the_last_report(name: str) -> None:
    streams = ALL[name]
    early, end = streams.event(counts=(5, 1)), streams.event(end=True)

    assert counted(streams.read(early, streams.event("more"), end, complete=False)) is None
    assert counted(streams.read(end, early, streams.event("more"), complete=False)) is None  # and wrote on


def test_usage_alone_ends_all_choices() -> None:
    for streams in (CHAT, TEXT):
        alone: Any = {"choices": [], "usage": _openai(5, 30)}
        assert counted(streams.read(streams.event(end=True), alone, complete=False, n=2)) == (5, 30)


def test_usage_within_a_message_is_no_bill_where_the_stream_breaks() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}
    within = CLAUDE.event(counts=(5, 3))

    assert counted(CLAUDE.read(start, within, complete=False)) is None
    assert counted(CLAUDE.read(start, within, {"type": "message_stop"}, complete=False)) == (5, 3)
    assert counted(CLAUDE.read(start, within, CLAUDE.event(end=True, counts=(5, 8)), complete=False)) == (5, 8)


@each
def test_an_error_that_is_null_is_none(name: str) -> None:
    streams = ALL[name]
    event = {**streams.event(end=True, counts=(5, 8)), "error": None}
    last: Any = {"choices": [], "error": None}

    assert counted(streams.read(event, last)) == (5, 8)
    assert counted(streams.read(event, {"error": {}, "type": "error"})) is None
