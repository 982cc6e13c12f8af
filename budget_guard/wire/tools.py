"""Which tools of a request are run by the provider, and what it calls their use on the bill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from budget_guard.wire.values import as_json, fields

_BY_CLIENT = frozenset(
    {"function", "custom", "namespace", "apply_patch", "local_shell", "tool_search", "computer", "computer_use_preview"}
)
"""Types of tools that the client runs: all that they cost is the text of their definition and of their calls."""
_BY_CLIENT_STARTS = ("bash_", "text_editor_", "memory_", "computer_", "browser_")
"""Anthropic's tools that the client runs: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview."""

_UNITS = (
    ("web_search", "web_search"),
    ("google_search", "web_search"),
    ("googleSearch", "web_search"),
    ("x_search", "x_search"),
    ("live_search", "web_search"),
    ("web_fetch", "web_fetch"),
    ("url_context", "url_context"),
    ("urlContext", "url_context"),
    ("google_maps", "google_maps"),
    ("googleMaps", "google_maps"),
    ("file_search", "storage_searches"),
    ("fileSearch", "file_search_store"),
    ("collections_search", "storage_searches"),
    ("retrieval", "retrieval"),
    ("code_interpreter", "code_interpreter"),
    ("code_execution", "code_execution"),
    ("codeExecution", "code_execution"),
    ("image_generation", "image_generation"),
    ("mcp", "hosted_mcp"),
    ("advisor", "advisor"),
    ("shell", "hosted_shell"),
)
"""The provider's own tools by the beginning of their type, and the unit that their use is billed in."""


def tool_name_of_type(kind: str) -> str:
    """The unit of a tool that the provider runs. A tool that nobody knows is its own unit."""
    for start, unit in _UNITS:
        if kind.startswith(start):
            return unit
    return kind if kind.isascii() and kind.isprintable() and len(kind) <= 40 else "an unknown tool"


def hosted_tool_named(kind: str) -> str | None:
    """The unit of a provider's own tool that a user names by its type or by its unit; None for any other name."""
    if kind in {unit for _, unit in _UNITS}:
        return kind
    return next((unit for start, unit in _UNITS if kind.startswith(start)), None)


def hosted_tools_of(tools: Iterable[Any]) -> Iterator[str]:
    """The units of those *tools*, given with a type of OpenAI's or Anthropic's, that the provider runs."""
    for tool in tools:
        given = fields(tool)
        kind = given.get("type")
        if kind is None:
            # functions of the older API and Anthropic's own tools have none; Google's are read elsewhere
            if "name" in given or "function" in given:
                continue
            kind = next(iter(given), "an unknown tool")
        kind = kind if isinstance(kind, str) else as_json(kind)
        if kind in _BY_CLIENT or kind.startswith(_BY_CLIENT_STARTS):
            continue
        if kind == "shell" and fields(given.get("environment")).get("type") == "local":
            continue
        yield tool_name_of_type(kind)
