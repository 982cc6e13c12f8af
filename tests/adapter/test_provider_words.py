"""What providers call things, in the words of budget_guard."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard.adapter import hosted_tool, opaque_parts

HISTORY = "history kept by the provider"


@pytest.mark.parametrize(
    ("arguments", "hosted", "opaque"),
    [
        ({}, (), []),
        ({"model": "gpt-4o", "previous_response_id": None, "conversation": ""}, (), []),
        ({"previous_response_id": "r1", "conversation": "c1"}, (), [HISTORY]),
        ({"prompt": {"id": "p1"}, "conversation": "c1"}, (), [HISTORY, "a prompt kept by the provider"]),
        ({}, ["web_search", "file_search"], ["what web_search, file_search may bring in"]),
        ({"container": "c1"}, ["web_search"], ["files kept by the provider", "what web_search may bring in"]),
    ],
)
def test_what_only_the_provider_can_weigh_is_told_in_words(
    arguments: dict[str, Any], hosted: list[str], opaque: list[str]
) -> None:
    assert opaque_parts(arguments, hosted) == opaque


@pytest.mark.parametrize(
    ("kind", "tool"),
    [
        ("web_search", "web_search"),
        ("web_search_preview_2025_03_11", "web_search"),
        ("google_search_retrieval", "web_search"),
        ("mcp", "hosted_mcp"),
        ("function", None),
        ("my_web_search", None),
        (None, None),
        ({"type": "web_search"}, None),
    ],
)
def test_a_tool_that_the_provider_runs_is_known_by_how_its_type_begins(kind: object, tool: str | None) -> None:
    assert hosted_tool(kind) == tool
