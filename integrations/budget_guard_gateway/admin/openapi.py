"""The description of the admin API, as OpenAPI 3.1 has it, made of the operations themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from budget_guard.protocol import PROBLEM_JSON, decision_schema, problem_schema
from budget_guard_gateway.admin.operations import OPERATIONS, Field, Operation

_USD: Mapping[str, Any] = {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?$"}
_TEXT: Mapping[str, Any] = {"type": "string"}
_MAYBE: Mapping[str, Any] = {"type": ["string", "null"]}
_COUNT: Mapping[str, Any] = {"type": "integer"}
_QUANTITIES: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer"]},
    "description": "By the name of the limit: dollars as text, everything else as a whole number",
}
_LIMITS: Mapping[str, Any] = {"type": "array", "items": _QUANTITIES}
_COUNTS = (
    *("calls", "tool_calls", "input_tokens", "cached_tokens", "cache_written_tokens", "output_tokens"),
    "reasoning_tokens",
)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_SCHEMAS: Mapping[str, Any] = {
    "Ceiling": _object(
        kind=_TEXT,
        id=_TEXT,
        own={**_LIMITS, "type": ["array", "null"]},
        holds=_LIMITS,
        plan=_MAYBE,
    ),
    "Plan": _object(kind=_TEXT, id=_TEXT, plan=_MAYBE),
    "Snapshot": _object(
        **dict.fromkeys(("kind", "id"), _TEXT),
        **dict.fromkeys(("spent_usd", "reserved_usd"), _USD),
        remaining_usd={**_USD, "type": ["string", "null"]},
        plan=_MAYBE,
        open_holds=_COUNT,
        live_runs={"type": ["integer", "null"]},
        revoked={"type": "boolean"},
        revoked_reason=_MAYBE,
        revoked_at=_MAYBE,
        windows={
            "type": "array",
            "items": _object(
                window=_TEXT,
                began_at=_MAYBE,
                resets_at=_MAYBE,
                **dict.fromkeys(("limits", "committed", "reserved", "remaining"), _QUANTITIES),
            ),
        },
    ),
    "Usage": _object(
        rows={
            "type": "array",
            "items": _object(cost_usd=_USD, uncertain_usd=_USD, **dict.fromkeys(_COUNTS, _COUNT)),
        }
    ),
    "Ids": _object(ids={"type": "array", "items": _TEXT}, next=_MAYBE),
    "Decisions": _object(decisions={"type": "array", "items": {"$ref": "#/components/schemas/Decision"}}, next=_MAYBE),
}


@cache
def openapi() -> Mapping[str, Any]:
    """The description."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    refused = {"description": "A problem", "content": {PROBLEM_JSON: {"schema": _ref("Problem")}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "The admin API of budget_guard's gateway", "version": "1"},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": refused},
            "schemas": {
                **_SCHEMAS,
                "Problem": _part("Problem", problem_schema()),
                "Decision": _part("Decision", decision_schema()),
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    named = [_parameter("path", Field(name, _TEXT, "", True)) for name in re.findall(r"{(\w+)}", operation.path)]
    asked = [_parameter("query", field) for field in operation.query]
    schema: Mapping[str, Any] = _ref(operation.answers) if operation.answers else {"type": "object"}
    status = "201" if operation.path == "/budget/keys" and operation.method == "POST" else "200"
    told: dict[str, Any] = {
        "operationId": operation.run.__name__,
        "summary": operation.words,
        "responses": {
            status: {"description": "It is done", "content": {"application/json": {"schema": schema}}},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if named or asked:
        told["parameters"] = [*named, *asked]
    if operation.body:
        told["requestBody"] = _body(operation.body)
    return told


def _parameter(where: str, field: Field) -> dict[str, Any]:
    words = {"description": field.words} if field.words else {}
    return {"name": field.name, "in": where, "required": field.is_required, "schema": field.schema, **words}


def _body(fields: Sequence[Field]) -> dict[str, Any]:
    properties = {field.name: {**field.schema, "description": field.words} for field in fields}
    required = [field.name for field in fields if field.is_required]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _part(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of its own as a part of this document, which its references are within."""
    text = json.dumps({key: value for key, value in schema.items() if key not in ("$schema", "$id")})
    part: dict[str, Any] = json.loads(text.replace('"#/', f'"#/components/schemas/{name}/'))
    return part
