"""The JSON Schemas of what a service answers, as they are published."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, cast


def problem_schema() -> dict[str, Any]:
    """The schema of a problem document (JSON Schema 2020-12)."""
    return _read("problem.json")


def decision_schema() -> dict[str, Any]:
    """The schema of a decision record (JSON Schema 2020-12)."""
    return _read("decision.json")


@cache
def _read(name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(files("budget_guard.protocol.schemas").joinpath(name).read_text("utf-8")))
