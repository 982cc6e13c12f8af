"""Refusals in the proxy's own terms, and the routes of the proxy that are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from fastapi import HTTPException
from litellm.proxy._types import LiteLLMRoutes, ProxyException

from budget_guard.protocol import Problem, problem
from budget_guard.units.printable import printable

NOT_RETRIED = 402
"""The status that LiteLLM's router is told. It retries 409, 429 and 503, and cools a deployment down for some: what
stops a call here is no deployment's fault."""


class BudgetRefusal(HTTPException):
    """What is raised out of a hook: the route's answer is replaced by the problem on its way out."""

    def __init__(self, refusal: Problem) -> None:
        super().__init__(NOT_RETRIED, detail=refusal.document)
        self.problem = refusal
        self.message = refusal.detail

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.problem.detail}"  # LiteLLM logs it


class PlainRefusal(ProxyException):
    """What is raised out of a hook where the answer cannot be replaced: LiteLLM makes its own answer of it.

    Args:
        refusal: The problem.
        routed: Whether a router hears it first, which would retry some statuses.
    """

    def __init__(self, refusal: Problem, *, routed: bool = True) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # LiteLLM has few types
            message=refusal.detail,
            type=refusal.type.uri,
            param=None,
            code=refusal.status,
            headers={name: value for name, value in refusal.headers if name != "Content-Type"},
            provider_specific_fields={
                name: value for name, value in refusal.document.items() if name not in ("error", "detail", "status")
            },
        )
        self.openai_code = refusal.code
        self.problem = refusal
        self.status_code = NOT_RETRIED if routed else refusal.status


Refusal: TypeAlias = BudgetRefusal | PlainRefusal

_COVERED = re.compile(
    r"(?:/engines/[^/]+|/openai/deployments/[^/]+|/v1|/cursor)?/(?:chat/completions|completions|embeddings)"
    r"|(?:/openai)?(?:/v1)?/responses"
    r"|(?:/claude_code_gateway)?/v1/messages"
)
"""The paths of calls that are held."""
_FREE = re.compile(
    r"GET .*/(?:models|model/info|model_group/info)(?:/.*)?|POST (?:/claude_code_gateway)?/v1/messages/count_tokens"
    r"|(?:GET|POST) /(?:utils|guardrails)/.*|POST (?:/openai)?(?:/v1)?/responses/input_tokens"
    r"|(?:GET|DELETE) (?:/openai)?(?:/v1)?/responses/[^/]+(?:/input_items)?|POST .*/responses/[^/]+/cancel"
    r"|POST .*/models/[^/]+:countTokens|GET /claude-code/.*|GET /cursor/.*models"
    r"|(?:GET|POST|DELETE) /(?:v1/)?(?:mcp|mcp-rest|introspect|token|traces|logs)(?:/.*)?|GET /(?:v1/)?agents"
)
"""What costs nothing, or is no model's: tools over MCP, what LiteLLM keeps of itself."""
_GROUPS = (
    *("openai_routes", "anthropic_routes", "google_routes", "litellm_native_routes", "agent_inference_routes"),
    *("mapped_pass_through_routes", "passthrough_routes_wildcard"),
)
"""LiteLLM's own lists of routes that ask providers."""


def _patterns() -> tuple[re.Pattern[str], ...]:
    """The paths of LiteLLM's lists, and all below them."""
    routes: dict[str, None] = {}
    for group in _GROUPS:
        member = getattr(LiteLLMRoutes, group, None)  # some are of newer versions alone
        routes |= dict.fromkeys(() if member is None else member.value)
    return tuple(map(_pattern, routes))


def _pattern(route: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}]*\}|\*)", route.partition("?")[0].removesuffix("/*"))
    words = [".+" if part.endswith(":path}") or part == "*" else "[^/]+" for part in parts[1::2]] + [""]
    return re.compile(
        "".join(re.escape(text) + word for text, word in zip(parts[::2], words, strict=True)) + "(?:/.*)?"
    )


class Routes:
    """Which requests to the proxy are held, free, or refused.

    Args:
        passthrough: Requests that pass without being held, such as ``POST /v1/moderations``.
    """

    def __init__(self, passthrough: Sequence[str] = ()) -> None:
        self._passthrough = frozenset(" ".join(each.split()) for each in passthrough)
        self._patterns = _patterns()
        self.refused = lru_cache(maxsize=1_024)(self._refused)
        """Whether a request asks a provider for what no budget holds, by its method and its path."""

    def is_held(self, method: str, path: str) -> bool:
        """Whether it is a call that is held."""
        return method == "POST" and _COVERED.fullmatch(path.rstrip("/")) is not None

    def is_named(self, method: str, path: str) -> bool:
        """Whether it is named as one that passes."""
        return f"{method} {path}" in self._passthrough

    def is_free(self, method: str, path: str) -> bool:
        """Whether it costs nothing, or is named as one that passes."""
        return self.is_named(method, path) or _FREE.fullmatch(f"{method} {path}") is not None

    def _refused(self, method: str, path: str) -> bool:
        plain = path.rstrip("/") or "/"
        if self.is_free(method, plain):
            return False
        if self.is_held(method, plain):
            return False
        return any(pattern.fullmatch(plain) for pattern in self._patterns)


def not_metered(method: str, path: str) -> Problem:
    """The problem of a request that asks for what no budget holds."""
    return problem("not_metered", f"{method} {printable(path[:200])} is not held to a budget, so it is not passed on.")
