"""The part of JSON Schema that the protocol's own schemas use, so that the suite needs no library for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = frozenset(
    (
        *("$ref", "$schema", "$id", "$defs", "title", "description", "format", "type", "enum", "const", "pattern"),
        *("minimum", "maximum", "minItems", "required", "properties", "additionalProperties", "items", "anyOf"),
    )
)


def wrong_with(document: Any, schema: Mapping[str, Any]) -> list[str]:
    """What keeps *document* from being one of *schema*, in words; nothing if it is one.

    Raises:
        ValueError: If the schema has more than this knows.
    """
    return list(_wrong(document, schema, schema, "the document"))


def _wrong(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[str]:
    unknown = schema.keys() - _KNOWN
    if unknown:
        raise ValueError(f"a schema has {sorted(unknown)[0]!r}, which the suite does not know")
    if "$ref" in schema:
        yield from _wrong(value, _found(root, schema["$ref"]), root, where)
    if "anyOf" in schema and all(list(_wrong(value, each, root, where)) for each in schema["anyOf"]):
        yield f"{where} is {_shown(value)}, which is none of what it may be"
    if "type" in schema and not _is_of(value, schema["type"]):
        yield f"{where} is {_shown(value)}, and should be of type {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {_shown(value)}, and should be one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {_shown(value)}, and should be {_shown(schema['const'])}"
    if isinstance(value, str) and "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{where} is {_shown(value)}, and should match {schema['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{where} is {value}, and should be {schema['minimum']} or more"
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{where} is {value}, and should be {schema['maximum']} or less"
    if isinstance(value, dict):
        yield from _wrong_members(cast("dict[str, Any]", value), schema, root, where)
    if isinstance(value, list) and "items" in schema:
        for i, each in enumerate(cast("list[object]", value)):
            yield from _wrong(each, schema["items"], root, f"{where}[{i}]")


def _wrong_members(
    document: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str
) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in document:
            yield f"{where} has no {name}"
    properties: Mapping[str, Any] = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    for name, value in document.items():
        at = name if where == "the document" else f"{where}.{name}"
        if name in properties:
            yield from _wrong(value, properties[name], root, at)
        elif more is False:
            yield f"{at} is not known"
        elif isinstance(more, dict):
            yield from _wrong(value, cast("dict[str, Any]", more), root, at)


def _is_of(value: Any, kinds: str | list[str]) -> bool:
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)):
            return True
    return False


def _found(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return cast("Mapping[str, Any]", found)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
