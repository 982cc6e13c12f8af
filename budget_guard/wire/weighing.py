"""How a dialect's messages are looked into: text is weighed, and everything that is not known to be text has no bound.

A dialect says which kinds of parts are text. A kind that it does not name may be anything, so it is opaque, but for
media whose size is visible and whose tokens are published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

from budget_guard.estimate.prompt import KEPT_REASONING, Look
from budget_guard.wire.media import MediaRules, sound_tokens
from budget_guard.wire.values import Json, as_json, collect_texts, fields, fingerprint

KEPT_HISTORY = "history kept by the provider"
KEPT_PROMPT = "a prompt kept by the provider"
KEPT_FILES = "files kept by the provider"
KEPT_CONTENT = "content kept by the provider"
LONG_CACHE = "a long cache, whose price is not known"
AN_IMAGE = "an image"
A_FILE = "a file"
AUDIO = "audio"
A_VIDEO = "a video"

_NEED_OF = {AN_IMAGE: "vision", AUDIO: "audio"}


class Medium(NamedTuple):
    """One part that is not text."""

    what: str
    """What it is, in words."""
    tokens: int | None = None
    """The most tokens it takes; None where that has no bound."""


Measure: TypeAlias = Callable[[MediaRules, str, Json], Medium | None]
"""Measures a part of some kind; None for what is no medium. Sound is measured, but has no bound as text: it has a price
of its own."""


def no_medium(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    """Measures nothing."""
    return None


class Texts(NamedTuple):
    """Which parts of a dialect's messages are text."""

    kinds: Mapping[str, tuple[str, ...]]
    """The kinds of parts that are text, and the fields of each that hold parts of their own. "a.b" is field "b" of the
    object in field "a"."""
    measure: Measure
    kind_of: Callable[[Json], object] = lambda part: part.get("type")
    """What kind a part is; None for one without a kind."""
    kindless: frozenset[str] = frozenset()
    """Fields of which a part without a kind has at least one, unless it is a reference to something kept elsewhere."""
    parts_of_kindless: tuple[str, ...] = ("content",)
    """Its fields that hold parts."""
    kept: Mapping[str, str] = {}
    """Fields that refer to what the provider keeps, in words."""


def looker(texts: Texts, rules: MediaRules) -> Look:
    """A look into the messages of one dialect, for models with *rules*. The same object for the same arguments."""
    key = (id(texts), rules.name)
    found = _lookers.get(key)
    if found is None:
        found = _lookers[key] = _Looker(texts, rules).look
    return found


_lookers: dict[tuple[int, str], Look] = {}


_Tree: TypeAlias = "dict[str, _Tree]"
"""Fields that hold parts, and the fields within them that do."""


@cache
def _tree(paths: tuple[str, ...]) -> _Tree:
    tree: _Tree = {}
    for path in paths:
        below = tree
        for name in path.split("."):
            below = below.setdefault(name, {})
    return tree


class _Looker:
    __slots__ = ("_inner", "_rules", "_texts")

    def __init__(self, texts: Texts, rules: MediaRules) -> None:
        self._texts = texts
        self._rules = rules
        self._inner = {kind: _tree(paths) for kind, paths in texts.kinds.items()}

    def look(self, message: Any) -> tuple[str, str | None, int]:
        """The text of a message, what in it has no bound, and the tokens of the media in it."""
        found: list[str] = []
        what, tokens = self._part(message, found)
        return "\x1f".join(found), what, tokens

    def _part(self, part: Any, found: list[str]) -> tuple[str | None, int]:
        if not isinstance(part, Mapping):
            if isinstance(part, (list, tuple)):
                return self._parts(cast("Sequence[Any]", part), found)
            collect_texts(part, found)
            return None, 0
        given = cast(Json, part)
        texts = self._texts
        kind = texts.kind_of(given)
        inner: _Tree | None
        if kind is None:
            is_known = not texts.kindless or not texts.kindless.isdisjoint(given)
            inner = _tree(texts.parts_of_kindless) if is_known else None
        else:
            inner = self._inner.get(kind) if isinstance(kind, str) else None
        if inner is None:
            medium = texts.measure(self._rules, kind, given) if isinstance(kind, str) else None
            if medium is not None:
                found.append(fingerprint(given))  # so that another picture is another message
                return (medium.what, 0) if medium.tokens is None else (None, medium.tokens)
            collect_texts(given, found)
            if kind is None:
                return KEPT_HISTORY if "id" in given else "a part without a type", 0
            return f"a part of type {_short(kind)}", 0
        opaque, tokens = self._known(given, inner, found)
        if kind == "reasoning" and not given.get("encrypted_content") and opaque is None:
            opaque = KEPT_REASONING
        return opaque, tokens

    def _known(self, given: Json, inner: _Tree, found: list[str]) -> tuple[str | None, int]:
        """As `_part`, of an object whose fields are text, but for parts in the fields *inner*."""
        texts = self._texts
        opaque: str | None = None
        tokens = 0
        for name, value in given.items():
            found.append(name)
            if type(value) is str:
                found.append(value)
                if name in texts.kept and value:
                    opaque = texts.kept[name]
            elif name in inner:
                below = inner[name]
                if below and isinstance(value, Mapping):
                    what, more = self._known(cast(Json, value), below, found)
                else:
                    what, more = self._part(value, found)
                opaque, tokens = what or opaque, tokens + more
            elif name in texts.kept and value:
                opaque = texts.kept[name]
                collect_texts(value, found)
            else:
                collect_texts(value, found)
        return opaque, tokens

    def _parts(self, parts: Sequence[Any], found: list[str]) -> tuple[str | None, int]:
        opaque: str | None = None
        tokens = 0
        for part in parts:
            what, more = self._part(part, found)
            # what has no bound at all hides what other calls may have bounded
            if what is not None and (opaque is None or opaque == KEPT_REASONING):
                opaque = what
            tokens += more
        return opaque, tokens


def _short(kind: object) -> str:
    text = as_json(kind)
    return text if len(text) <= 40 and text.isprintable() and text.isascii() else "unknown"


class Media(NamedTuple):
    """What besides text a request carries."""

    needs: frozenset[str]
    sound_tokens: int | None
    reasoning_ids: tuple[str, ...]


_NO_RULES = MediaRules("none")
_TEXT_ALONE = Media(frozenset(), 0, ())


def _may_hold_media(texts: Texts, message: Any) -> bool:
    """Whether *message* is more than a text, as far as can be told at a glance."""
    if type(message) is not dict:
        return type(message) is not str
    given = cast("dict[str, Any]", message)
    kind = given.get("type")
    if kind is None:
        return "type" in given or type(given.get("content")) is not str
    inner = texts.kinds.get(kind) if type(kind) is str and kind != "reasoning" else None
    if not inner:
        return inner is None
    return any(type(given.get(name)) is not str for name in inner)


def media_of(texts: Texts, rules: MediaRules, messages: Sequence[Any]) -> Media:
    """What besides text *messages* carry."""
    messages = [message for message in messages if _may_hold_media(texts, message)]
    if not messages:
        return _TEXT_ALONE
    needs: set[str] = set()
    sounds: list[int | None] = []
    ids: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, (list, tuple)):
            for inner in cast("Sequence[Any]", part):
                walk(inner)
            return
        given = fields(part)
        if not given:
            return
        kind = texts.kind_of(given)
        if not isinstance(kind, str):
            for name in texts.parts_of_kindless:
                walk(given.get(name))
            return
        if kind == "reasoning":
            if not given.get("encrypted_content"):
                ids.append(str(given.get("id")))
            return
        inner_names = texts.kinds.get(kind)
        if inner_names is None:
            medium = texts.measure(_NO_RULES, kind, given)  # what it is, not how large
            if medium is not None:
                if medium.what in _NEED_OF:
                    needs.add(_NEED_OF[medium.what])
                if medium.what == AUDIO:
                    sounds.append(sound_of(rules, given))
            return
        for path in inner_names:
            held: Any = given
            for name in path.split("."):
                held = fields(held).get(name)
            walk(held)

    walk(messages)
    bound = None if None in sounds else sum(sound for sound in sounds if sound is not None)
    return Media(frozenset(needs), bound, tuple(ids))


def sound_of(rules: MediaRules, part: Json) -> int | None:
    """The most tokens of a part that is sound."""
    for holder in (part, *map(fields, part.values())):
        data = holder.get("data")
        if isinstance(data, str):
            return sound_tokens(rules, data)
    return None
