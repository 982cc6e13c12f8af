"""What is read of each request and answer of the corpus, a line each, where a change changes anything."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

from budget_guard.estimate.prompt import Prompt
from budget_guard.wire import Request, endpoint
from tests.wire.reference.corpus import ANSWERS, REQUESTS, STREAMS, Answered, Asked, Streamed, variants
from tests.wire.reference.made_up import made_up, more_fields, other_shapes
from tests.wire.reference.tables import HOSTS, MODELS, TABLES

Base: TypeAlias = "Asked | Answered | Streamed"
BASES: Mapping[str, Base] = {
    f"{kind} {each.name}": each
    for kind, bases in (("request", REQUESTS), ("answer", ANSWERS), ("stream", STREAMS))
    for each in bases
}


ELSEWHERE, FEWER = 5, 24
"""At how many other hosts each is read, and how many are made up of it there."""
NAMES = (*BASES, *TABLES)
"""All that is read."""


def lines_of(name: str) -> Iterator[str]:
    """What is read of that request or answer as it is, and of each change what is read in another way then; or the
    lines of that table."""
    if name in TABLES:
        yield from (f"{name}: {line}" for line in TABLES[name]())
        return
    base = BASES[name]
    dialect = (base if isinstance(base, Asked) else base.to).dialect.name
    more = more_fields(dialect, base.body), other_shapes(base.body), made_up(name, dialect, base.body)
    yield from changes(name, base.read, base.body, chain(*more))
    for number in range(ELSEWHERE):
        other = _elsewhere(base, random.Random(f"{name} {number}"))
        plain = _read(other.read, base.body)
        yield f"{name}: elsewhere {number}: {_shown(plain)}"
        for where, body in made_up(f"{name} elsewhere {number}", dialect, base.body, FEWER):
            yield from _line(f"{name}: elsewhere {number}: {where}", plain, _read(other.read, body))


def _elsewhere(base: Base, chance: random.Random) -> Base:
    """The same at another host, and of another model."""
    host, model = chance.choice(HOSTS), chance.choice(MODELS)
    asked = base if isinstance(base, Asked) else base.to
    other = asked._replace(where=endpoint("POST", host, asked.where.path), body={**asked.body, "model": model})
    return other if isinstance(base, Asked) else base._replace(to=other)


def changes(name: str, read: Callable[[Any], Any], base: Any, more: Iterable[tuple[str, Any]] = ()) -> Iterator[str]:
    """The fields that *read* makes of *base*, or its error, and the fields that differ for each change of *base*.

    The changes are those of `variants`, and *more*.
    """
    plain = _read(read, base)
    yield f"{name}: {_shown(plain)}"
    for where, body in chain(variants(base), more):
        yield from _line(f"{name}: {where}", plain, _read(read, body))


def _line(name: str, plain: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    changed = {field: value for field, value in found.items() if plain.get(field) != value}
    changed |= dict.fromkeys(plain.keys() - found.keys(), "none")
    if changed:
        yield f"{name}: {_shown(changed)}"


def _read(read: Callable[[Any], Any], body: Any) -> Mapping[str, str]:
    try:
        value = read(body)
    except Exception as error:
        return {"raises": type(error).__name__}
    found = _fields_of(value)
    if isinstance(value, Request):
        found |= {f"call {field}": inner for field, inner in _fields_of(value.call(admitted=("vendor",))).items()}
    return found


def _fields_of(value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, inner in zip(value._fields, value, strict=True):
        if isinstance(inner, Prompt):
            found |= _weighed(inner)
        elif field != "seen" or inner is not None:
            found[field] = _text(inner)
    return found


def _weighed(prompt: Prompt) -> dict[str, str]:
    """A prompt without its keys, which differ from one process to the next."""
    return {
        "base": str(prompt.base),
        "parts": " ".join(str(weight) for _, weight in prompt.parts),
        "unweighed": ", ".join(prompt.unweighed.values()),
        "opaque": ", ".join(prompt.opaque),
        "goes on": str(prompt.conversation != 0),
    }


def _text(value: Any) -> str:
    if isinstance(value, frozenset):
        return repr(sorted(map(str, value)))
    if hasattr(value, "_fields"):
        each = [f"{field} {_text(inner)}" for field, inner in zip(value._fields, value, strict=True) if inner]
        return f"({', '.join(each)})"
    return f"({', '.join(map(_text, value))})" if isinstance(value, tuple) else repr(value)


def _shown(fields: Mapping[str, str]) -> str:
    return "; ".join(f"{field}={value}" for field, value in sorted(fields.items()))
