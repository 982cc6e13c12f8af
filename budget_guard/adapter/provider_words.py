"""The vocabulary of providers: what they call output caps, hosted tools and billed items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FINAL_NOTE = "The budget of this run is used up. Answer now with what you have. No more tools can be called."
"""What a model is told that is to give its final answer."""

OUTPUT_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The names of the output cap in the requests of OpenAI, Anthropic and Google, and of those who speak like them."""

_HOSTED_TOOLS = (
    ("web_search", "web_search"),
    ("google_search", "web_search"),
    ("web_fetch", "web_fetch"),
    ("url_context", "url_context"),
    ("file_search", "file_search"),
    ("code_interpreter", "code_interpreter"),
    ("code_execution", "code_execution"),
    ("image_generation", "image_generation"),
    ("mcp", "hosted_mcp"),
)

BILLED_ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
"""Parts of an answer that OpenAI bills by use, by their type, as `budget_guard.Usage` names them.

A hosted MCP call is billed in tokens alone.
"""

KEPT_BY_PROVIDER = {
    "previous_response_id": "history kept by the provider",
    "conversation": "history kept by the provider",
    "conversation_id": "history kept by the provider",
    "prompt": "a prompt kept by the provider",
    "cached_content": "content kept by the provider",
    "container": "files kept by the provider",
}
"""Parameters of a request that refer to what only the provider can weigh, and that in words."""

_MEDIA = {"image": "an image", "audio": "audio", "video": "a video"}


def medium(kind: object) -> str:
    """What a part of a message is that is no text, in words.

    Args:
        kind: Its media type, or the first word of that: ``"image/png"``, ``"audio"``.
    """
    return _MEDIA.get(str(kind or "").partition("/")[0], "a file")


def with_prefix_of(name: str, chosen: str) -> str:
    """The *chosen* model, as LiteLLM names it where *name* is a name of LiteLLM's: ``openai/gpt-4o-mini``."""
    provider, slash, _ = name.rpartition("/")
    return chosen if "/" in chosen else f"{provider}{slash}{chosen}"


def hosted_tool(kind: object) -> str | None:
    """The tool that the provider itself runs where a tool is of type *kind*, as `Usage` names it; None for others."""
    if not isinstance(kind, str):
        return None
    return next((name for start, name in _HOSTED_TOOLS if kind.startswith(start)), None)


def opaque_parts(arguments: Mapping[str, Any], hosted: Iterable[str]) -> list[str]:
    """What a request refers to and only the provider can weigh, in words.

    Args:
        arguments: The request's parameters.
        hosted: The tools that the provider runs.
    """
    opaque = list(dict.fromkeys([what for name, what in KEPT_BY_PROVIDER.items() if arguments.get(name)]))
    brought_in = ", ".join(hosted)
    if brought_in:
        opaque.append(f"what {brought_in} may bring in")
    return opaque
