"""What the readers of streamed answers share: bytes go in, in whatever framing a provider uses, and an answer comes
out."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from budget_guard.calls.seen import Seen
from budget_guard.wire.alike import Alike, alike
from budget_guard.wire.answer import Answer
from budget_guard.wire.event_stream import BrokenFrame, Frame, FrameDecoder
from budget_guard.wire.request import Request
from budget_guard.wire.sse import EventParser, ServerEvent
from budget_guard.wire.values import Json, fields, read_json

LONGEST_TOKEN = 128
"""Bytes of the longest token of any tokenizer in use, as runs of spaces in o200k_base. So *n* bytes of output are at
least ``n / 128`` tokens. Chunks tell less: they may be empty, or single characters."""

_FEW_PATTERNS = 8
"""So many patterns of events are made before it is asked whether any event fits one."""
_FITTING = 4
"""Events that have to fit for each pattern, on the average."""

_WRITTEN = frozenset({"text", "content", "arguments", "name", "function", "input", "thinking", "partial_json", "args"})
"""Fields whose values the model writes."""


class _Event(NamedTuple):
    raw: bytes
    value: Json | None
    """Its content; None for what carries none, such as a comment."""
    failed: bool = False
    """Whether its framing says that the provider failed."""
    is_end: bool = False


class _Framing:
    """How events are cut out of bytes."""

    def feed(self, data: bytes) -> Iterable[_Event | ServerEvent]:
        """The events that *data* completes; server-sent ones as they came, for most need not be parsed."""
        raise NotImplementedError  # each framing says it

    def first_end(self, data: bytes, at: int) -> int:
        """Where to cut *data* so that what follows may fit a pattern: behind the event at *at*, or at its end."""
        return len(data)

    def close(self) -> Iterator[_Event]:
        """What is left at the end."""
        return iter(())

    @property
    def left(self) -> bytes:
        """Bytes of an event that is not at its end."""
        return b""

    @property
    def is_within(self) -> bool:
        """True while there are bytes of an event that is not at its end."""
        return bool(self.left)


class _ServerSentEvents(_Framing):
    def __init__(self) -> None:
        self._parser = EventParser()

    def feed(self, data: bytes) -> Iterable[ServerEvent]:
        return self._parser.feed(data)

    def first_end(self, data: bytes, at: int) -> int:
        end = data.find(b"\n\n", at)
        return len(data) if end < 0 else end + 2

    def close(self) -> Iterator[_Event]:
        return map(_of_server_event, self._parser.close())

    @property
    def left(self) -> bytes:
        return self._parser.left

    @property
    def is_within(self) -> bool:
        return self._parser.is_within


def _of_server_event(event: ServerEvent) -> _Event:
    data = event.data
    if not data:
        return _Event(event.raw, None)
    if data == b"[DONE]":
        return _Event(event.raw, None, is_end=True)
    value = _object(data)
    failed = event.name == "error" and value is not None and "type" not in value
    return _Event(event.raw, value, failed)


class _AwsFrames(_Framing):
    """AWS's event stream. An event of InvokeModel wraps the model's own, one of Converse is named by a header."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._broken = False

    def feed(self, data: bytes) -> Iterator[_Event]:
        if self._broken:
            return iter((_Event(data, None),))
        try:
            return iter([_of_frame(frame) for frame in self._decoder.feed(data)])
        except BrokenFrame:
            self._broken = True
            return iter((_Event(data, None, failed=True),))

    @property
    def left(self) -> bytes:
        return self._decoder.left


def _of_frame(frame: Frame) -> _Event:
    headers = frame.headers
    if headers.get(":message-type", "event") != "event":
        return _Event(frame.raw, None, failed=True)
    value = _object(frame.payload)
    if value is not None and isinstance(value.get("bytes"), str):
        try:
            value = _object(base64.b64decode(value["bytes"]))
        except (binascii.Error, ValueError):
            value = None
    elif value is not None:
        value = {headers.get(":event-type", ""): value}
    return _Event(frame.raw, value)


class _Lines(_Framing):
    """One JSON object a line, as Cohere's first version streams."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[_Event]:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return iter([_Event(line + b"\n", _object(line)) for line in lines])

    def close(self) -> Iterator[_Event]:
        left, self._buffer = self._buffer, b""
        return iter((_Event(left, _object(left)),) if left.strip() else ())

    @property
    def left(self) -> bytes:
        return self._buffer


class _Array(_Framing):
    """One JSON array, as Google streams where it is not asked for server-sent events. Read at its end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[_Event]:
        self._pieces.append(data)
        return iter((_Event(data, None),))

    def close(self) -> Iterator[_Event]:
        whole, self._pieces = b"".join(self._pieces), []
        try:
            values: Any = json.loads(whole)
        except (ValueError, RecursionError):
            return iter(())
        return iter([_Event(b"", fields(value)) for value in cast("list[Any]", values)])


def _object(data: bytes) -> Json | None:
    value = read_json(data)
    return cast(Json, value) if isinstance(value, dict) else None


def _framing_of(first: bytes) -> _Framing:
    """The framing that a stream begins with. A frame of AWS begins with the high byte of its length."""
    head = first.lstrip(b" \r\n\t")[:1]
    if first[:1] == b"\x00":
        return _AwsFrames()
    if head == b"[":
        return _Array()
    return _Lines() if head == b"{" else _ServerSentEvents()


class EventReader:
    """Reads one streamed answer. What is made of its events is each dialect's own."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._framing: _Framing | None = None
        self._first = b""
        self._alike: Alike | None = None
        self._patterns = 0
        self._fitting = 0
        self.output_bytes = 0
        """Bytes of output so far, tool calls and shown thoughts included."""
        self.finished = False
        """True once the answer, or a choice of it, came to its end."""
        self.ended = False
        """True once the mark came with which a stream ends."""
        self._choices_ended: set[str] = set()
        self._counted_at = -1  # bytes of output when usage came for all that was asked for
        self.failed = False
        """Whether the provider said in the stream that it failed."""
        self.keeps_text = False
        """Whether what the model writes is kept, to be booked if the answer is given up."""
        self.thinks: bool | None = None
        """Whether the model thinks out of sight, where its events tell."""
        self._text: list[str] = []
        self._events = 0

    def feed(self, data: bytes, *, hide_usage: bool = False) -> bytes:
        """Read *data*, and return what to pass on."""
        framing, given = self._framing, data
        if framing is None:
            first = self._first + data
            if not first.strip(b" \r\n\t"):
                self._first = first
                return b"" if hide_usage else data
            self._first = b""
            framing = self._framing = _framing_of(first)
            data = first
        at, size = 0, len(data)
        passed: list[bytes] = []
        while at < size:
            if self._alike is not None and not framing.is_within:
                end = self._skim(self._alike, data, at)
                passed.append(data[at:end])
                at = end
            if at < size:
                end = framing.first_end(data, at)
                for event in framing.feed(data[at:end]):
                    if not self._take_in(event):
                        passed.append(event.raw)
                at = end
        return b"".join(passed) if hide_usage else given

    def _skim(self, pattern: Alike, data: bytes, at: int) -> int:
        """Take in the events of *data* from *at* on that fit the *pattern*. Returns where they end."""
        found = pattern.texts(data, at)
        if found is not None:
            at, count, written = found
            self._fitting += count
            if self.keeps_text:
                self.wrote(written.decode("utf-8", "replace"))
            else:
                self.output_bytes += len(written)
            return at
        while at < len(data) and (one := pattern.match(data, at)) is not None:
            at, start, end = one
            self._fitting += 1
            self.wrote(data[start:end].decode("utf-8", "replace"))
        return at

    def _take_in(self, event: _Event | ServerEvent) -> bool:
        """Take in an event, parsed where it fits no pattern. Returns whether it carries usage and nothing else."""
        if isinstance(event, ServerEvent):
            raw, pattern = event.raw, self._alike
            if pattern is not None and (fits := pattern.match(raw, 0)) is not None and fits[0] == len(raw):
                self._fitting += 1
                self.wrote(raw[fits[1] : fits[2]].decode("utf-8", "replace"))
                return False
            event = _of_server_event(event)
        return self._read(event)

    def _keep_pattern(self, event: _Event, value: Json) -> None:
        """Keep the pattern of an event that does nothing but write a text, if patterns are of use in this stream."""
        if self._patterns >= _FEW_PATTERNS and self._fitting < _FITTING * self._patterns:
            return
        text = self.text_alone(value)
        if text is not None and isinstance(self._framing, (_ServerSentEvents, _Lines)):
            self._patterns += 1
            self._alike = alike(event.raw, text) or self._alike

    @property
    def left(self) -> bytes:
        """Bytes of an event that is not at its end."""
        return self._first if self._framing is None else self._framing.left

    def close(self, *, complete: bool = True) -> Answer:
        """The answer so far."""
        if self._framing is not None:
            for event in self._framing.close():
                self._read(event)
        answer = self.whole()
        told = answer.usage
        if self.failed or not (self.is_told if complete else self.is_final):
            what = (
                "the stream ended before it told its usage" if complete else "the stream broke before it told its usage"
            )
            if self.failed:
                what = "the provider failed within the stream"
            answer = answer._replace(usage=None, cost=None, problem=f"{self._dialect}: {what}", failed=True)
            if self.keeps_text and self._events and not self.failed and type(self._framing) is not _Array:
                answer = answer._replace(seen=Seen("".join(self._text), told, self.thinks))
        return answer._replace(output_floor=self.output_floor)

    @property
    def is_told(self) -> bool:
        """True where a stream that has come to its end has told its usage by then."""
        return self.finished

    @property
    def is_final(self) -> bool:
        """True once nothing that may still come changes the usage that was told: it counts if the stream breaks."""
        return self.ended or self._counted_at == self.output_bytes

    def choice_ended(self, index: object) -> None:
        """Note that a choice has come to its end. The others may still be written."""
        self._choices_ended.add(str(index))
        self.finished = True

    def usage_came(self, request: Request | None, *, alone: bool) -> None:
        """Note that usage was told, after what else its event says.

        Args:
            request: What was asked for.
            alone: Whether the event is one that tells usage at the end of all that was asked for.
        """
        asked = 1 if request is None else request.choices
        is_over = self.finished and (alone or len(self._choices_ended) >= asked)
        self._counted_at = self.output_bytes if is_over else -1

    @property
    def output_floor(self) -> int:
        """Tokens that the provider has made for sure by now."""
        return -(-self.output_bytes // LONGEST_TOKEN)

    def _read(self, event: _Event) -> bool:
        """Take in an event. Returns whether it carries usage and nothing else."""
        if event.failed:
            self.failed = True
        if event.is_end:
            self.finished = self.ended = True
        value = event.value
        if value is None:
            return False
        self._events += 1
        self.take(value)
        if self.is_usage_alone(value):
            return True
        if not event.failed:
            self._keep_pattern(event, value)
        return False

    def wrote(self, value: object) -> None:
        """Count what the model wrote. Only the values of known fields are written by it, not their names."""
        if isinstance(value, str):
            if self.keeps_text:
                self._text.append(value)
            self.output_bytes += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, list):
            for inner in cast("list[object]", value):
                self.wrote(inner)
        elif isinstance(value, dict):
            for name, inner in cast("dict[str, object]", value).items():
                if name in _WRITTEN:
                    self.wrote(inner)

    def take(self, event: Json) -> None:
        """Take in one event."""
        raise NotImplementedError  # each dialect says it

    def text_alone(self, event: Json) -> str | None:
        """The text that *event* gives to `wrote`, where it does nothing else: then events that differ in that text
        alone need not be parsed."""
        return None

    def whole(self) -> Answer:
        """What has been said so far, as one answer."""
        raise NotImplementedError  # each dialect says it

    def is_usage_alone(self, event: Json) -> bool:
        """Whether *event* is one that exists only because its stream was asked for usage."""
        return False
