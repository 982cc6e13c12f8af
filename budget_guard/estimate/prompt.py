"""Prompts, weighed: the most tokens that the input of a call may take, before it is made.

The text bound rests on one fact about every tokenizer in use: after some Unicode normalisation it works on bytes and
makes at most one token of each. So text takes at most as many tokens as its bytes, or as the bytes of its decomposed
forms where those are more. `budget_guard.estimate.calibration` makes that tight, and `budget_guard.estimate.tokens`
counts where it can.
"""

from __future__ import annotations

import json
import marshal
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from budget_guard.estimate import tokens

_BASE_TOKENS = 256
"""Template tokens of any request. Measured over open chat templates: at most 175."""
_TOOLS_BASE_TOKENS = 1_024
"""Template tokens of a request with tools. Documented for Claude: up to 530."""
_MESSAGE_TOKENS = 16
"""Template tokens of one message or tool. Measured over open chat templates: at most 7."""
_OPENAI_BASE_TOKENS = 3
"""What OpenAI itself says of its chat models: so many for a request, and `_OPENAI_MESSAGE_TOKENS` for each message."""
_OPENAI_MESSAGE_TOKENS = 4
_UNASSIGNED_TOKENS = 33
"""Bytes that a code point unknown to this Python's Unicode table may decompose to: the longest known does to 33."""

_NON_ASCII = re.compile(r"[^\x00-\x7f]")


class _TokensOfCharacter(dict[str, int]):
    """The most tokens that one character can be, worked out on first sight."""

    def __missing__(self, character: str) -> int:
        own = len(character.encode("utf-8", "surrogatepass"))
        if unicodedata.category(character) == "Cn":
            most = max(own, _UNASSIGNED_TOKENS)
        elif "\uac00" <= character <= "\ud7a3" or "\ud800" <= character <= "\udfff":
            most = own  # tokenizers that decompose Hangul compose it again; surrogates do not decompose
        else:
            decomposed = (unicodedata.normalize(form, character).encode() for form in ("NFD", "NFKD"))
            most = max(own, *map(len, decomposed))
        self[character] = most
        return most


_TOKENS_OF_CHARACTER = _TokensOfCharacter()


def token_bound(text: str) -> int:
    """The most tokens that any byte-level tokenizer makes of *text*."""
    if text.isascii():
        return len(text)
    rare = _NON_ASCII.findall(text)
    return len(text) - len(rare) + sum(map(_TOKENS_OF_CHARACTER.__getitem__, rare))


_CONTENT_NEEDS = (("an image", "vision"), ("audio", "audio"))


class Prompt(NamedTuple):
    """The weight of the input of one call. Made by `weigh`."""

    base: int
    """Most tokens of instructions, tools, output schema and template together."""
    base_key: int
    """Equal for equal instructions, tools and schema."""
    parts: tuple[tuple[int, int], ...]
    """For each message, a key that is equal for equal messages, and the most tokens that its text takes."""
    text: int
    """Most tokens of all the messages' text together."""
    unweighed: Mapping[int, str] = {}
    """By key, the messages that carry more than text, and what it is, for example ``"an image"``."""
    opaque: tuple[str, ...] = ()
    """What else the request refers to that cannot be weighed, for example ``"history kept by the provider"``."""
    conversation: int = 0
    """Equal for equal instructions, tools, schema and first message; 0 where what it is billed for tells nothing about
    the next call, because the request has no messages, or refers to more than it carries."""
    texts: Texts | None = None
    """What to count in place of bytes; None where no tokenizer is installed."""

    def needs(self, *, tools: bool, schema: bool, reasoning: bool = False) -> frozenset[str]:
        """The capabilities that a call with it needs, as `ModelCall.needs` names them.

        Args:
            tools: Whether the call offers tools.
            schema: Whether it asks for an answer of some schema.
            reasoning: Whether the provider keeps reasoning for it that cannot be taken out.
        """
        asked = (("tools", tools), ("json_schema", schema), ("reasoning", reasoning))
        needs = [need for need, needed in asked if needed]
        if self.unweighed:
            needs += [need for what, need in _CONTENT_NEEDS if what in self.unweighed.values()]
        return frozenset(needs)


KEPT_REASONING = "reasoning kept by the provider"
"""What `Prompt.unweighed` calls a part of an earlier answer that only the provider has."""

Look: TypeAlias = Callable[[Any], tuple[str, str | None, int]]
"""Looks into one message: its text, what in it has no bound, and the most tokens of what in it is not text."""


def weigh(
    *,
    system: str | None = None,
    messages: str | Sequence[Mapping[str, Any] | str] = (),
    tools: Iterable[Any] = (),
    schema: Any = None,
    opaque: Sequence[str] = (),
    look: Look | None = None,
    flat_kinds: Collection[str] = (),
) -> Prompt:
    """Weigh the input of a call.

    Args:
        system: The instructions.
        messages: The conversation: JSON-like messages, or texts.
        tools: Tool definitions as they are sent, JSON-like.
        schema: The output schema as it is sent, JSON-like.
        opaque: What else the call refers to that cannot be weighed, in words.
        look: How to look into a message that is more than a role and a text. What it makes of equal messages is
            remembered, so equal lookers must be the same object. None takes a message for text, but for parts that
            are known to be more.
        flat_kinds: The types of messages that *look* takes for text where all their fields are texts.
    """
    fixed = 0
    keys: list[int] = []
    for tool in tools:
        key, weight, _ = _weighed(tool, _weigh_fixed)
        keys.append(key)
        fixed += weight + _MESSAGE_TOKENS
    fixed += _TOOLS_BASE_TOKENS if keys else _BASE_TOKENS
    if schema is not None:
        key, weight, _ = _weighed(schema, _weigh_fixed)
        keys.append(key)
        fixed += weight
    base = fixed
    if system:
        key, weight, _ = _weighed(system, _weigh_fixed)
        keys.append(key)
        base += weight
    if isinstance(messages, str):
        messages = (messages,)
    parts, text, unweighed, _ = _weigh_messages(messages, look, flat_kinds)
    base_key = hash(tuple(keys))
    conversation = hash((base_key, parts[0][0])) if parts and not opaque else 0
    texts = Texts(fixed, system, tuple(messages), parts, look, flat_kinds) if tokens.is_installed() else None
    return Prompt(base, base_key, parts, text, unweighed, tuple(opaque), conversation, texts)


def with_messages(
    prompt: Prompt, messages: Sequence[Any], look: Look | None = None, flat_kinds: Collection[str] = ()
) -> tuple[Prompt, Sequence[Any]]:
    """*prompt*, which was weighed without messages, with *messages*: as `weigh` makes it of both together.

    Also those of the messages that had to be looked into: all others are texts alone.
    """
    base, base_key, _, _, _, opaque, _, texts = prompt
    parts, text, unweighed, looked_into = _weigh_messages(messages, look, flat_kinds)
    conversation = hash((base_key, parts[0][0])) if parts and not opaque else 0
    if texts is not None:
        texts = texts.with_messages(messages, parts, look, flat_kinds)
    return Prompt(base, base_key, parts, text, unweighed, opaque, conversation, texts), looked_into


def _weigh_messages(
    messages: Sequence[Any], look: Look | None, flat_kinds: Collection[str]
) -> tuple[tuple[tuple[int, int], ...], int, Mapping[int, str], Sequence[Any]]:
    """`Prompt.parts`, `Prompt.text` and `Prompt.unweighed` of *messages*, and those that had to be looked into."""
    how = look or _weigh_message
    parts: list[tuple[int, int]] = []
    unweighed: dict[int, str] = {}
    looked_into: list[Any] = []
    total = 0
    for message in messages:
        if message.__class__ is dict:  # of ASCII texts alone it is weighed in less time than it takes to look it up
            text = _plain_text(message, look, flat_kinds)
            if text is not None:
                weight = len(text) + _MESSAGE_TOKENS
                parts.append((hash(text), weight))
                total += weight
                continue
        looked_into.append(message)
        key, weight, found = _weighed(message, how)
        parts.append((key, weight))
        total += weight
        if found is not None:
            unweighed[key] = found
    return tuple(parts), total, unweighed, looked_into


_ROLE_AND_TEXT = {"role", "content"}


def _plain_text(message: dict[str, Any], look: Look | None, flat_kinds: Collection[str]) -> str | None:
    """All of *message* as one text, where it is made of ASCII texts alone."""
    try:
        text = "\x1f".join([*message, *message.values()])
    except TypeError:
        return None  # it holds more than texts
    kind = message.get("type")
    plain = kind not in _MORE_THAN_TEXT if look is None else kind in flat_kinds or message.keys() == _ROLE_AND_TEXT
    return text if plain and text.isascii() else None


class Texts:
    """The texts of a prompt, kept until they are counted. Its tools and its output schema are always bounded by bytes.

    Args:
        fixed: Most tokens of all but the instructions and the messages.
        system: The instructions.
        messages: The messages.
        parts: As `Prompt.parts`.
        look: As in `weigh`. A message that is looked into by it, and is more than a role and a text, is not counted.
    """

    __slots__ = ("_counted", "_fixed", "_flat_kinds", "_has_system", "_look", "_messages", "_parts", "_system")

    def __init__(
        self,
        fixed: int,
        system: str | None,
        messages: tuple[Any, ...],
        parts: tuple[tuple[int, int], ...],
        look: Look | None,
        flat_kinds: Collection[str],
    ) -> None:
        self._look = look
        self._flat_kinds = flat_kinds
        self._fixed = fixed
        self._system = system
        self._has_system = bool(system)
        self._messages: tuple[Any, ...] = messages
        self._parts = parts
        self._counted: dict[str, tuple[int, Mapping[int, int]] | None] = {}

    def with_messages(
        self,
        messages: Sequence[Any],
        parts: tuple[tuple[int, int], ...],
        look: Look | None,
        flat_kinds: Collection[str],
    ) -> Texts:
        """The same, which was not counted yet, with other messages."""
        return Texts(self._fixed, self._system, tuple(messages), parts, look, flat_kinds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts) and (self._fixed, self._parts) == (other._fixed, other._parts)

    def __hash__(self) -> int:
        return hash((self._fixed, self._parts))

    def counted(self, encoding: str) -> tuple[int, Mapping[int, int]] | None:
        """The most tokens of the prompt in *encoding*, and those of each message by its key.

        Returns:
            None where it was counted in another encoding before: its texts are no longer kept then.
        """
        if encoding not in self._counted:
            self._counted[encoding] = None if self._counted else self._count(encoding)
            self._system, self._messages = None, ()  # a decision is kept for long, and texts are large
        return self._counted[encoding]

    def likely(self, encoding: str) -> int | None:
        """As `counted`, with the framing that OpenAI's models are known for in place of the most; None with tools."""
        counted = self.counted(encoding)
        if counted is None or self._fixed != _BASE_TOKENS:
            return None
        system = _OPENAI_MESSAGE_TOKENS if self._has_system else 0
        framing = _OPENAI_BASE_TOKENS - _BASE_TOKENS + system
        return counted[0] + framing - len(self._parts) * (_MESSAGE_TOKENS - _OPENAI_MESSAGE_TOKENS)

    def _count(self, encoding: str) -> tuple[int, Mapping[int, int]]:
        total = self._fixed
        counts = tokens.counts_of(encoding)
        if self._system:
            total += _counted(encoding, self._system, hash(self._system), token_bound(self._system))
        by_key: dict[int, int] = {}
        for message, (key, weight) in zip(self._messages, self._parts, strict=True):
            known = counts.get(key)
            if known is None:
                known = self._count_message(encoding, message, key)
            most = weight if known is None else known + _MESSAGE_TOKENS
            by_key[key] = most = most if most < weight else weight
            total += most
        return total, by_key

    def _count_message(self, encoding: str, message: Any, key: int) -> int | None:
        text = _plain_text(message, self._look, self._flat_kinds) if message.__class__ is dict else None
        if text is None and self._look is None:
            text, _, _ = _weigh_message(message)
        # the holder of the message may have changed it since it was weighed
        return tokens.count(encoding, text, key) if text is not None and hash(text) == key else None


def _counted(encoding: str, text: str, key: int, bound: int) -> int:
    known = tokens.counts_of(encoding).get(key)
    if known is None:
        known = tokens.count(encoding, text, key)
    return bound if known is None else min(bound, known)


_MOST_WEIGHED = 10_000
"""Weights that are remembered: an agent sends the same messages and tools again with every call."""
_weights: dict[tuple[Any, int], tuple[int, int, str | None]] = {}


def _weighed(value: Any, how: Look) -> tuple[int, int, str | None]:
    """A key that is equal for equal values, the most tokens that *value* takes, and what in it has no bound."""
    try:  # far quicker than to look into it; 2 writes equal values equally
        content = (how, hash(marshal.dumps(value, 2)))
    except ValueError:  # it holds something that is not plain
        content = None
    known = None if content is None else _weights.get(content)
    if known is None:
        text, found, more = how(value)
        weight = token_bound(text) + more + (0 if how is _weigh_fixed else _MESSAGE_TOKENS)
        known = (hash(text), weight, found)
        if content is not None:
            if len(_weights) >= _MOST_WEIGHED:
                _weights.clear()
            _weights[content] = known
    return known


def _weigh_fixed(value: Any) -> tuple[str, str | None, int]:
    return _json(value), None, 0


def _weigh_message(message: Any) -> tuple[str, str | None, int]:
    texts: list[str] = []
    found = _texts(message, texts)
    return "\x1f".join(texts), found, 0  # the separators count as well, which only adds to the bound


_OPAQUE_PARTS = {
    "input_image": "an image",
    "image_url": "an image",
    "image": "an image",
    "computer_screenshot": "an image",
    "input_file": "a file",
    "file": "a file",
    "document": "a file",
    "media": "a file",
    "input_audio": "audio",
    "audio": "audio",
    "video": "a video",
    "item_reference": "history kept by the provider",
    "compaction": "history kept by the provider",
}
_MORE_THAN_TEXT = frozenset({*_OPAQUE_PARTS, "reasoning"})


def _texts(value: Any, texts: list[str]) -> str | None:
    """Collect every text in *value*, keys included; return what in it is not text."""
    if isinstance(value, str):
        texts.append(value)
        return None
    found: str | None = None
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        kind = fields.get("type")
        if isinstance(kind, str) and kind in _OPAQUE_PARTS:
            texts.append(_json(value))  # so that another image is another message
            return _OPAQUE_PARTS[kind]
        if kind == "reasoning" and not fields.get("encrypted_content"):
            found = KEPT_REASONING
        for name, inner in fields.items():
            texts.append(name)
            if type(inner) is str:
                texts.append(inner)
            else:
                found = _texts(inner, texts) or found
    elif isinstance(value, (list, tuple)):
        for inner in cast("Sequence[Any]", value):
            found = _texts(inner, texts) or found
    else:
        texts.append(_json(value))
    return found


def _json(value: Any) -> str:
    # Providers may escape non-ASCII text in schemas, so the longer, escaped form is the bound.
    return value if isinstance(value, str) else json.dumps(value, default=str)
