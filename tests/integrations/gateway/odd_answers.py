"""Answers with all that providers send, in bytes that nobody would write the same way twice, and what is seen of them.

An upstream that answers them in pieces of seven bytes, and a relay that keeps what a client was sent.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httptools

ODD = "caf\u00e9 \u6f22\u5b57 \u2603 \U0001f600\u2028"
"""Text of one to four bytes a character, which pieces of seven bytes cut anywhere."""
_PIECE = 7
_CHAT_USAGE: Any = {
    "prompt_tokens": 5,
    "completion_tokens": 16,
    "total_tokens": 21,
    "completion_tokens_details": {"reasoning_tokens": 3},
}
_CHAT: Any = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "dime",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"q":\n "' + ODD + '"}'},
                    }
                ],
            },
            "logprobs": {
                "content": [{"token": ODD, "logprob": -0.25, "bytes": [195, 169], "top_logprobs": []}],
                "refusal": None,
            },
            "finish_reason": "tool_calls",
        },
        {"index": 1, "message": {"role": "assistant", "content": None, "refusal": ODD}, "finish_reason": "stop"},
    ],
    "usage": _CHAT_USAGE,
    "odd_field": [1.0, 1e-7, True],
}


def _chunk(*choices: Any, **more: Any) -> Any:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "dime",
        "choices": choices,
        **more,
    }


def _delta(index: int, finish: str | None = None, **delta: Any) -> Any:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


_CHAT_EVENTS: list[Any] = [
    _chunk(_delta(0, role="assistant", content="")),
    *[_chunk(_delta(0, content=f"{ODD}{i}"), obfuscation="x" * i) for i in range(6)],
    _chunk(_delta(0, refusal=ODD)),
    _chunk(
        _delta(
            0, tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}]
        )
    ),
    _chunk(_delta(0, tool_calls=[{"index": 0, "function": {"arguments": '{"q":"' + ODD}}])),
    _chunk(
        _delta(1, role="assistant", content="n=2"),
        _delta(0, tool_calls=[{"index": 0, "function": {"arguments": '"}'}}]),
    ),
    _chunk(_delta(0, "tool_calls")),
    _chunk(_delta(1, "length")),
]
_RESPONSE: Any = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "dime",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": ODD}]},
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "c1",
            "name": "look",
            "arguments": "{}",
            "status": "completed",
        },
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": ODD, "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 16,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 21,
    },
}
_RESPONSE_EVENTS: list[Any] = [
    {
        "type": "response.created",
        "sequence_number": 0,
        "response": {**_RESPONSE, "status": "in_progress", "output": [], "usage": None},
    },
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": {**_RESPONSE["output"][2], "content": []},
    },
    *[
        {
            "type": "response.output_text.delta",
            "sequence_number": 2 + i,
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": f"{ODD}{i}",
            "logprobs": [],
            "obfuscation": "y" * i,
        }
        for i in range(6)
    ],
    {"type": "response.odd_new_event", "sequence_number": 8, "odd": ODD},
    {"type": "response.completed", "sequence_number": 9, "response": _RESPONSE},
]
_MESSAGE: Any = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "dime",
    "content": [
        {"type": "thinking", "thinking": ODD, "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "cmVk"},
        {"type": "text", "text": ODD},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"q": ODD, "n": 1.0}},
    ],
    "stop_reason": "refusal",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 16},
}
_MESSAGE_EVENTS: list[Any] = [
    {
        "type": "message_start",
        "message": {**_MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 5, "output_tokens": 1}},
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    *[
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": f"{ODD}{i}"}}
        for i in range(4)
    ],
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q":"' + ODD}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"}'}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 16},
    },
    {"type": "message_stop"},
]
_PLAIN: Any = {
    **_CHAT,
    "model": "cheap",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": ODD}, "logprobs": None, "finish_reason": "stop"}
    ],
}
_PLAIN_EVENTS: list[Any] = [_chunk(_delta(0, content=f"{ODD}{i}")) for i in range(6)] + [_chunk(_delta(0, "stop"))]


def _whole(value: Any) -> bytes:
    """JSON with spaces where nobody has them, and every second character escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    return b" " + text.replace("\u6f22", "\\u6F22").encode() + b"\n"


def _events(values: list[Any], *, named: bool, end: bytes) -> bytes:
    parts = [b": a comment\n\n"]
    for i, value in enumerate(values):
        name = f"event: {value['type']}".encode() + end if named else b""
        data = json.dumps(value, ensure_ascii=bool(i % 3 == 1), separators=(",", ":") if i % 2 else None).encode()
        parts.append(name + b"data: " + data + end + end)
    return b"".join(parts)


_DONE = b"data: [DONE]\n\n"
_ASKED_USAGE = b"data: " + json.dumps(_chunk(usage=_CHAT_USAGE)).encode() + b"\r\n\r\n"


def answer_of(path: str, asked: dict[str, Any]) -> bytes:
    """The answer to a request; the same each time."""
    streams = bool(asked.get("stream"))
    if path.endswith("/messages"):
        return _events(_MESSAGE_EVENTS, named=True, end=b"\r\n") if streams else _whole(_MESSAGE)
    if path.endswith("/responses"):
        return _events(_RESPONSE_EVENTS, named=True, end=b"\n") if streams else _whole(_RESPONSE)
    plain = asked["model"] == "cheap"
    if not streams:
        return _whole(_PLAIN if plain else _CHAT)
    usage = _ASKED_USAGE if (asked.get("stream_options") or {}).get("include_usage") else b""
    return _events(_PLAIN_EVENTS if plain else _CHAT_EVENTS, named=False, end=b"\r\n") + usage + _DONE


async def odd_upstream(scope: Any, receive: Any, send: Any) -> None:
    """Answers in pieces of seven bytes, with headers that nobody expects."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    answer = answer_of(scope["path"], asked)
    streams = bool(asked.get("stream"))
    kind = b"text/event-stream; charset=utf-8" if streams else b"application/json"
    headers = [
        (b"Content-Type", kind),
        (b"X-Request-ID", b"req_1"),
        (b"openai-processing-ms", b""),
        (b"x-odd", b'a="b"; \xe9'),
    ]
    headers += [(b"x-odd", b"twice"), *([] if streams else [(b"content-length", b"%d" % len(answer))])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for at in range(0, len(answer), _PIECE):
        await send({"type": "http.response.body", "body": answer[at : at + _PIECE], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Seen:
    """One answer as it came to a client."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def of_the_provider(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """What the provider said: without what is the connection's own, and without the gateway's headers."""
        ours = (b"x-budget-", b"x-run-id", b"content-length", b"transfer-encoding", b"date", b"server", b"connection")
        headers = [(name.lower(), value) for name, value in self.headers if not name.lower().startswith(ours)]
        return self.status, headers, self.body


class _Reading:
    """Takes the answers of one connection apart."""

    def __init__(self, seen: list[Seen]) -> None:
        self._seen = seen
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self._seen.append(Seen())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen[-1].headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._seen[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._seen[-1].body += body


@contextmanager
def relay(target: str) -> Iterator[tuple[str, list[Seen]]]:
    """A way to *target* on which all answers are kept: its address, and the answers."""
    host, _, port = target.removeprefix("http://").partition(":")
    seen: list[Seen] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            reading = _Reading(seen)
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=self._back, args=(server,), daemon=True)
                back.start()
                while data := _received(server):
                    reading.parser.feed_data(data)
                    with suppress(OSError):
                        self.request.sendall(data)
                with suppress(OSError):
                    self.request.shutdown(socket.SHUT_RDWR)
                back.join(10)

        def _back(self, server: socket.socket) -> None:
            while data := _received(self.request):
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    class Relay(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Relay(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{serving.server_address[1]}", seen
        finally:
            serving.shutdown()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except OSError:
        return b""
