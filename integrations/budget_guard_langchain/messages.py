"""LangChain's messages in the JSON of a provider's dialect, as far as that matters for what they weigh.

LangChain has blocks of its own, takes those of several providers, and each of its clients turns what it is given into
what its provider takes. Here a block becomes the part of the same kind that the dialect's reader knows: text stays
text, a picture, file or sound of visible size stays one, and what nobody knows stays what it is, to be opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from budget_guard.wire import CONVERSE, GENERATE_CONTENT, MESSAGES, RESPONSES
from budget_guard.wire.media import split_data_url
from budget_guard.wire.values import Json, fields, items, text

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage  # takes long to import, and is imported where there are messages

_ROLES = {"human": "user", "ai": "assistant"}
_NOT_SENT = ("parsed", "tool_calls", "refusal")
"""What LangChain notes in a message beside what is sent."""
_TEXT = frozenset(
    "text input_text output_text refusal text-plain tool_use tool_call invalid_tool_call tool_call_chunk "
    "server_tool_call server_tool_call_chunk server_tool_result thinking reasoning reasoning_content citation "
    "function_call code_interpreter_call".split()
)
"""Kinds of blocks that are text to every client: they send the text in them, or leave them out."""
_OWN_KINDS = {
    RESPONSES.name: frozenset({"reasoning", "function_call", "code_interpreter_call"}),
    MESSAGES.name: frozenset({"tool_use", "thinking"}),
}
"""Those that a dialect has a rule of its own for."""
_MEDIA = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "media": "file",
    "text-plain": "file",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
}


class _Medium(NamedTuple):
    """A picture, a file, sound or a video, whoever's way of writing it down it is."""

    kind: str
    mime: str
    data: str | None
    """Base64; None where it is somewhere else."""
    detail: Any
    block: Json


_Part: TypeAlias = "Callable[[_Medium], Mapping[str, Any]]"


def plain(messages: Sequence[BaseMessage]) -> list[Any] | None:
    """*messages* in the JSON of Chat Completions and Responses, where they are a role and a text each; else None."""
    sent: list[Any] = []
    for message in messages:
        content, kind = message.content, message.type
        if type(content) is not str or message.additional_kwargs or message.name or kind == "tool":
            return None
        if kind == "ai" and vars(message).get("tool_calls"):
            return None
        sent.append({"role": _ROLES.get(kind, kind), "content": content})
    return sent


def as_sent(messages: Sequence[BaseMessage], dialect: str) -> list[Any]:
    """*messages* in the JSON of *dialect*. Equal messages become equal values."""
    part_of = _PARTS.get(dialect, _chat_part)
    own, name = _OWN_KINDS.get(dialect, frozenset[str]()), "content"
    if dialect == GENERATE_CONTENT.name:
        name = "parts"
    in_parts = name == "parts" or dialect == CONVERSE.name
    sent: list[Any] = []
    for message in messages:
        content: Any = message.content
        role = _ROLES.get(message.type, message.type)
        given = vars(message)
        calls, extra = given.get("tool_calls"), message.additional_kwargs
        if type(content) is str and not calls and not extra and not in_parts:
            one: dict[str, Any] = {"role": role, name: content}
            if role == "tool":
                one["tool_call_id"] = given.get("tool_call_id")
            if message.name:
                one["name"] = message.name
            sent.append(one)
            continue
        blocks: list[Any] = [content] if isinstance(content, str) else list(content)
        parts = [
            _as_text(block, in_parts) if isinstance(block, str) else _part(block, part_of, own, in_parts)
            for block in blocks
            if block != ""
        ]
        one = {"role": role, name: parts}
        if calls:
            parts.append(_as_text([(call["name"], call["args"], call["id"]) for call in calls], in_parts))
        if extra:
            _add_extra(one, parts, extra, dialect, part_of, own, in_parts)
        if role == "tool":
            parts.append(_as_text(given.get("tool_call_id") or "", in_parts))
        if message.name:
            parts.append(_as_text(message.name, in_parts))
        sent.append(one)
    return sent


def _add_extra(
    one: dict[str, Any],
    parts: list[Any],
    extra: Mapping[str, Any],
    dialect: str,
    part_of: _Part,
    own: frozenset[str],
    in_parts: bool,
) -> None:
    """Add what LangChain keeps beside the content of a message, as far as it is sent."""
    left: dict[str, Any] = {}
    for name, value in extra.items():
        if name in _NOT_SENT:
            continue
        if dialect == RESPONSES.name and name in ("reasoning", "tool_outputs"):
            held: Sequence[Any] = items(value) or [value]
            parts += [_part(each, part_of, own, in_parts) for each in held]
        elif name == "audio" and not in_parts:
            one["audio"] = value  # an earlier answer's sound, which the provider keeps
        else:
            left[name] = value
    if left:
        parts.append(_as_text(left, in_parts) if in_parts else {"type": "text", **left, "text": left.get("text", "")})


def _as_text(value: Any, in_parts: bool) -> dict[str, Any]:
    """A part of text: all the texts in *value*."""
    return {"text": value} if in_parts else {"type": "text", "text": value}


def _part(block: Any, part_of: _Part, own: frozenset[str], in_parts: bool) -> Any:
    given = fields(block)
    kind = given.get("type")
    if kind == "non_standard" and isinstance(given.get("value"), Mapping):
        return _part(given["value"], part_of, own, in_parts)
    if isinstance(kind, str):
        if kind in _MEDIA:
            medium = _medium(kind, given)
            if medium is not None:
                return part_of(medium)
        if kind == "reasoning" and kind in own:
            return _reasoning(given)
        if kind in own:
            return block
        if kind in _TEXT:
            return {"text": block} if in_parts else block if kind == "text" else {**given, "type": "text"}
    return block


def _reasoning(given: Json) -> Json:
    """A thought, as Responses takes it: by the id of what OpenAI keeps, encrypted, or as text of another model's."""
    encrypted = given.get("encrypted_content") or fields(given.get("extras")).get("encrypted_content")
    if encrypted:
        return {**given, "encrypted_content": encrypted}
    if given.get("reasoning") and not str(given.get("id")).startswith("rs_"):
        return {**given, "type": "text"}
    return given


def _medium(kind: str, given: Json) -> _Medium | None:
    """The medium that a block of such a kind is; None where it is text after all."""
    if kind == "text-plain" and text(given.get("text")):
        return None
    source = given.get("source")
    inner = fields(source)
    if inner.get("type") in ("text", "content"):  # a document of Anthropic's, made of text
        return None
    of_kind: Any = given.get("image_url", given.get("input_audio", given.get("file")))
    nested = fields(of_kind)
    url = next(
        filter(
            None,
            map(
                text,
                (
                    of_kind,
                    nested.get("url"),
                    nested.get("file_data"),
                    given.get("file_data"),
                    given.get("url"),
                    inner.get("url"),
                    source if given.get("source_type") == "url" else None,
                ),
            ),
        ),
        None,
    )
    mime = text(given.get("mime_type")) or text(inner.get("media_type")) or ""
    data = next(
        filter(None, map(text, (given.get("base64"), given.get("data"), inner.get("data"), nested.get("data")))), None
    )
    split = split_data_url(url) if url is not None else None
    if split is not None:
        mime, data = split
    elif data is not None and (split := split_data_url(data)) is not None:
        mime, data = split
    what = _MEDIA[kind]
    for start in ("image", "audio", "video"):
        if mime.startswith(f"{start}/"):
            what = start
    detail = given.get("detail") or nested.get("detail") or fields(given.get("extras")).get("detail")
    return _Medium(what, mime or _USUAL.get(what, ""), data, detail or given.get("media_resolution"), given)


_USUAL = {"image": "image/png", "file": "application/pdf", "audio": "audio/wav", "video": "video/mp4"}
"""The type that is taken where none is told."""


def _chat_part(medium: _Medium) -> Mapping[str, Any]:
    if medium.data is None:
        return {**medium.block, "type": _CHAT_KINDS[medium.kind]}
    url = f"data:{medium.mime};base64,{medium.data}"
    if medium.kind == "image":
        return {"type": "image_url", "image_url": {"url": url, "detail": medium.detail}}
    if medium.kind == "file":
        return {"type": "file", "file": {"file_data": url}}
    return {"type": _CHAT_KINDS[medium.kind], "input_audio": {"data": medium.data}}


_CHAT_KINDS = {"image": "image_url", "file": "file", "audio": "input_audio", "video": "video"}


def _responses_part(medium: _Medium) -> Mapping[str, Any]:
    if medium.data is None:
        return {**medium.block, "type": f"input_{medium.kind}"}
    url = f"data:{medium.mime};base64,{medium.data}"
    if medium.kind == "image":
        return {"type": "input_image", "image_url": url, "detail": medium.detail}
    if medium.kind == "file":
        return {"type": "input_file", "file_data": url}
    return {"type": f"input_{medium.kind}", "data": medium.data}


def _messages_part(medium: _Medium) -> Mapping[str, Any]:
    kind = "document" if medium.kind == "file" else medium.kind
    if medium.data is None:
        return {**medium.block, "type": kind}
    return {"type": kind, "source": {"type": "base64", "media_type": medium.mime, "data": medium.data}}


def _google_part(medium: _Medium) -> Mapping[str, Any]:
    if medium.data is None:
        return {"fileData": dict(medium.block)}
    part = {"inlineData": {"mimeType": medium.mime, "data": medium.data}}
    return part if medium.detail is None else {**part, "mediaResolution": medium.detail}


def _converse_part(medium: _Medium) -> Mapping[str, Any]:
    kind = "document" if medium.kind == "file" else medium.kind
    source: Mapping[str, Any] = dict(medium.block) if medium.data is None else {"bytes": medium.data}
    return {kind: {"format": medium.mime.rpartition("/")[2], "source": source}}


_PARTS: Mapping[str, _Part] = {
    RESPONSES.name: _responses_part,
    MESSAGES.name: _messages_part,
    GENERATE_CONTENT.name: _google_part,
    CONVERSE.name: _converse_part,
}


def without_kept(messages: Sequence[BaseMessage]) -> tuple[Sequence[BaseMessage], str | None]:
    """The messages after the last answer that OpenAI keeps, and that answer's id, as ``use_previous_response_id``
    sends them."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if message.type == "ai":
            ident = cast("dict[str, Any]", message.response_metadata).get("id")
            if isinstance(ident, str) and ident.startswith("resp_"):
                return messages[at + 1 :], ident
    return messages, None
