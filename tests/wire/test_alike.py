"""Events that are told by their bytes are read as if they were parsed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from budget_guard.wire import CHAT_COMPLETIONS, MESSAGES, RESPONSES, Dialect, StreamReader
from budget_guard.wire.alike import alike
from budget_guard.wire.reader import EventReader

TEXTS = (
    *("Hello", " world", "a", "assistant", "", "delta", "content", "1", "null"),
    *('a "quoted" word', "back\\slash", "new\nline", "\x1f", "é", "漢字", "\U0001f600", "\u2028", "x" * 300),
    *('"usage":{"prompt_tokens":1}', '"}}]}\n\ndata: {', "[DONE]", '"obfuscation":"x"', "data: "),
)
USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}


def chat(draw: random.Random) -> Iterator[Any]:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "service_tier": "default"}
    unset, obfuscated = draw.choice(["role", "refusal"]), draw.random() < 0.5
    for _ in range(draw.randrange(1, 40)):
        kind = draw.choice(["content"] * 40 + ["reasoning_content", "refusal", "tool_calls", "annotations", "none"])
        said: Any = draw.choice(TEXTS)
        if kind == "tool_calls":
            said = [{"index": 0, "function": {"arguments": said}}]
        elif kind == "annotations":
            said = [{"type": "url_citation"}]
        delta = {} if kind == "none" else {unset: None, kind: said}
        choice = {"index": 0, "delta": delta, "finish_reason": draw.choice([None] * 20 + ["length"])}
        more: Any = {"obfuscation": "y" * draw.randrange(9)} if obfuscated else {"usage": None}
        yield {**head, "choices": [choice] * draw.choice([1] * 40 + [2]), **more}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {**head, "choices": [], "usage": USAGE}
    yield "[DONE]"


def responses(draw: random.Random) -> Iterator[Any]:
    kinds = ["output_text"] * 9 + ["reasoning_summary_text", "function_call_arguments"]
    for number in range(draw.randrange(1, 40)):
        kind = draw.choice(kinds)
        yield {
            "type": f"response.{kind}.delta" if draw.random() < 0.95 else f"response.{kind}.note",
            "sequence_number": number,
            "item_id": "m1",
            "delta": draw.choice(TEXTS),
            "logprobs": [],
            "obfuscation": "z" * draw.randrange(9),
        }
    usage = {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50}
    answer = {"id": "r1", "model": "gpt-4o", "status": "completed", "output": [{"type": "message"}], "usage": usage}
    yield {"type": draw.choice(["response.completed", "response.incomplete"]), "response": answer}


def messages(draw: random.Random) -> Iterator[Any]:
    usage = {"input_tokens": 30, "output_tokens": 1}
    yield {"type": "message_start", "message": {"id": "m1", "model": "claude-haiku-4-5", "usage": usage}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for _ in range(draw.randrange(1, 40)):
        name, kind = draw.choice(
            [("text", "text_delta")] * 5 + [("thinking", "thinking_delta"), ("partial_json", "input_json_delta")]
        )
        block = "content_block_delta" if draw.random() < 0.95 else "content_block_note"
        yield {"type": block, "index": 0, "delta": {"type": kind, name: draw.choice(TEXTS)}}
        if draw.random() < 0.05:
            yield {"type": "ping"}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}}
    yield {"type": "message_stop"}


def wire_of(events: Iterator[Any], draw: random.Random) -> bytes:
    """The events as bytes: with names or without, escaped or not, with any end of lines."""
    named, escaped = draw.random() < 0.5, draw.random() < 0.5
    spaces: Any = draw.choice([None, (",", ":")])
    end = draw.choice([b"\n", b"\r\n"])
    pieces: list[bytes] = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=escaped, separators=spaces)
        name = (
            f"event: {event['type']}".encode() + end if named and isinstance(event, dict) and "type" in event else b""
        )
        pieces.append(name + b"data: " + data.encode() + end + end)
    return b"".join(pieces)


def cut(data: bytes, draw: random.Random) -> list[bytes]:
    """*data* in pieces: event by event, or anywhere."""
    if draw.random() < 0.5:
        return [piece + b"\n\n" for piece in data.split(b"\n\n") if piece]
    places = sorted(draw.randrange(len(data)) for _ in range(draw.randrange(12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize(
    ("dialect", "events"), [(CHAT_COMPLETIONS, chat), (RESPONSES, responses), (MESSAGES, messages)]
)
@pytest.mark.parametrize("hide", [False, True])
def test_what_is_read_and_passed_on_is_the_same(
    dialect: Dialect, events: Any, hide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = 0
    for seed in range(150):
        draw = random.Random(seed)
        pieces = cut(wire_of(events(draw), draw), draw)
        quick = dialect.stream(None)
        seen = [(quick.feed(piece, hide_usage=hide), quick.left, quick.output_floor) for piece in pieces]
        with monkeypatch.context() as slowed:
            slowed.setattr(type(quick), "text_alone", lambda *_: None)
            slow = dialect.stream(None)
            assert seen == [(slow.feed(piece, hide_usage=hide), slow.left, slow.output_floor) for piece in pieces], seed
            assert bytes_of(quick) == bytes_of(slow), seed
            assert quick.close() == slow.close(), seed
        fitted += quick.__dict__["_fitting"]
    assert fitted > 200


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_counts_once_wherever_the_end_of_its_event_is_cut(end: str) -> None:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}}
    data = (f"data: {json.dumps(event)}" + 2 * end).encode()
    for at in range(len(data)):
        reader = MESSAGES.stream(None)
        for piece in (data[:at], data[at:] + data[:at], data[at:] + data[:9], data[9:] + data):
            reader.feed(piece)
        reader.close()
        assert bytes_of(reader) == 4 * len("Hello")


def bytes_of(reader: StreamReader) -> int:
    assert isinstance(reader, EventReader)
    return reader.output_bytes


def test_nothing_in_a_hole_ends_a_text_or_an_event() -> None:
    raw = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'
    pattern = alike(raw, "Hello")
    assert pattern is not None
    for hole in (b"", b"x", "漢字".encode()):
        other = raw.replace(b"Hello", hole)
        assert pattern.match(other, 0) == (len(other), 39, 39 + len(hole))
    for hole in (
        b'"',
        b"\\n",
        b"\\",
        b"\n",
        b"\r",
        b'x","content":"y',
        b'x"}}]}\n\ndata: {"choices":[{"delta":{"content":"y',
    ):
        assert pattern.match(raw.replace(b"Hello", hole), 0) is None or b"\n\n" in hole
    assert pattern.match(raw[:-1], 0) is None


def test_many_events_at_once_are_those_that_fit_one_by_one() -> None:
    raw = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'
    pattern = alike(raw, "Hello")
    assert pattern is not None
    holes = [b"Hello", b"", b"x", "漢字".encode(), b"a\\n", b'"', b'x","content":"y', b"data: {}", b"\xff"]
    draw = random.Random(0)
    at_once = 0
    for _ in range(500):
        data = b"".join([raw.replace(b"Hello", draw.choice(holes[: draw.choice([4, 9])])) for _ in range(4)])
        data = b"{}\n\n" * draw.randrange(2) + data + draw.choice([b"", b"data: [DONE]\n\n", raw[:-9]])
        at = draw.choice([0, 0, 4])
        written, end, count = b"", at, 0
        while (found := pattern.match(data, end)) is not None:
            end, start, stop = found
            written, count = written + data[start:stop], count + 1
        together = pattern.texts(data, at)
        if together is not None:
            assert together == (end, count, written)
            at_once += 1
    assert at_once > 50
    numbered = b'data: {"sequence_number":1,"delta":"Hello"}\n\n'
    more_changes = alike(numbered, "Hello")
    assert more_changes is not None and more_changes.texts(numbered, 0) is None


def test_a_text_whose_place_is_not_certain_makes_no_pattern() -> None:
    raw = b'data: {"role":"assistant","content":"assistant"}\n\n'
    assert alike(raw, "assistant") is None and alike(raw, "Hello") is None and alike(raw, "") is None
    assert alike(b'data: {"content":"a\\"b"}\n\n', 'a"b') is None


def test_a_stream_without_events_alike_does_not_go_on_looking_for_them() -> None:
    reader = CHAT_COMPLETIONS.stream(None)
    for number in range(1_000):
        chunk = {"id": str(number), "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}
        reader.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert reader.__dict__["_patterns"] < 10 and bytes_of(reader) == 5_000
