"""The description of the decision service, as OpenAPI 3.1 has it, made of the operations and what they check."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from budget_guard.protocol import PROBLEM_JSON, PROTOCOL_HEADERS, decision_schema, problem_schema
from budget_guard_gateway.decision_service.bodies import DecisionRequest, DryRun, NoBody
from budget_guard_gateway.decision_service.operations import OPERATIONS, Operation

_REF = "#/components/schemas/{model}"
_Side = Literal["validation", "serialization"]


@cache
def openapi() -> Mapping[str, Any]:
    """The description."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The Agent Budget Protocol: decisions for callers who send by themselves",
            "version": "1",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "headers": {name: {"schema": {"type": "string"}} for name in PROTOCOL_HEADERS},
            "responses": {
                "Problem": {
                    "description": "A problem",
                    "headers": _headers(),
                    "content": {PROBLEM_JSON: {"schema": _ref("Problem")}},
                }
            },
            "schemas": _schemas(),
        },
    }


def _schemas() -> dict[str, Any]:
    bodies: list[tuple[type[BaseModel], _Side]] = [
        (operation.body, "validation") for operation in OPERATIONS if operation.body is not NoBody
    ]
    answers: list[tuple[type[BaseModel], _Side]] = [
        (operation.answers, "serialization") for operation in OPERATIONS if not isinstance(operation.answers, str)
    ]
    _, told = models_json_schema(list(dict.fromkeys([*bodies, *answers, (DryRun, "serialization")])), ref_template=_REF)
    named: dict[str, Any] = told["$defs"]
    return named | {
        "Problem": _part("Problem", problem_schema()),
        "Decision": _part("Decision", decision_schema()),
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    schema: Mapping[str, Any] = _ref(
        operation.answers if isinstance(operation.answers, str) else _name(operation.answers)
    )
    if operation.is_keyed:
        parameters.append(_header("Idempotency-Key", "The same key gets the decision that was made the first time"))
        parameters.append(_header("Prefer", "decision: a refusal is answered with its record as well, and 200"))
        parameters.append(_header("X-Run-Id", "The run, in the place of run_id"))
        schema = {"oneOf": [schema, _ref(_name(DryRun))]}
    told: dict[str, Any] = {
        "operationId": operation.perform.__name__,
        "summary": operation.words,
        "responses": {
            str(operation.status): {
                "description": "It is done",
                "headers": _headers(),
                "content": {"application/json": {"schema": schema}},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if parameters:
        told["parameters"] = parameters
    if operation.body is not NoBody:
        content = {"application/json": {"schema": _ref(_name(operation.body))}}
        told["requestBody"] = {"required": operation.body is DecisionRequest, "content": content}
    return told


def _headers() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in PROTOCOL_HEADERS}


def _header(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": words}


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _part(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of its own as a part of this document, which its references are within."""
    text = json.dumps({key: value for key, value in schema.items() if key not in ("$schema", "$id")})
    part: dict[str, Any] = json.loads(text.replace('"#/', f'"#/components/schemas/{name}/'))
    return part
