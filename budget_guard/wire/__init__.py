"""What is really sent to providers, and what they really answer.

Pure functions over a method, an address, JSON and bytes; no framework and no HTTP library. One module a dialect: each
reads what a request asks for and what an answer says was used, and puts an output cap, a model, or the asking for usage
into a request. `outcome` tells what a failure says about the bill.
"""

from __future__ import annotations

import re
from functools import lru_cache

from budget_guard.wire.added_fields import explain_refusal
from budget_guard.wire.answer import Answer
from budget_guard.wire.anthropic_messages import MESSAGES
from budget_guard.wire.anthropic_messages import MODEL_IN_PATH as _MESSAGES_PATH
from budget_guard.wire.bedrock_converse import CONVERSE
from budget_guard.wire.bedrock_converse import MODEL_IN_PATH as _CONVERSE_PATH
from budget_guard.wire.cohere_chat import COHERE_CHAT
from budget_guard.wire.counting import Counts, Reading, read_counts
from budget_guard.wire.dialect import Dialect, Rewritten, StreamReader
from budget_guard.wire.google_generate_content import GENERATE_CONTENT
from budget_guard.wire.google_generate_content import MODEL_IN_PATH as _GENERATE_PATH
from budget_guard.wire.hosts import Endpoint, endpoint, endpoint_of_url
from budget_guard.wire.openai_chat import CHAT_COMPLETIONS
from budget_guard.wire.openai_completions import COMPLETIONS
from budget_guard.wire.openai_embeddings import EMBEDDINGS
from budget_guard.wire.openai_responses import RESPONSES
from budget_guard.wire.outcome import Outcome, never_billed, outcome_of_error, outcome_of_status
from budget_guard.wire.request import Request
from budget_guard.wire.values import fields

_BASE = r"(?:.*/(?:v\d[a-z0-9]*|openai|deployments/[^/]+|compatibility/v1|chat/v1|endpoints/[^/]+|api))?"
"""What may stand before a path of OpenAI's: a version, a deployment, or a prefix of a gateway's."""
_PATHS: tuple[tuple[re.Pattern[str], Dialect], ...] = (
    (re.compile(_BASE + r"/chat/completions"), CHAT_COMPLETIONS),
    (re.compile(_BASE + r"/responses"), RESPONSES),
    (re.compile(_BASE + r"/completions"), COMPLETIONS),
    (re.compile(_BASE + r"/embeddings"), EMBEDDINGS),
    (re.compile(r"(?:.*/v1)?/messages"), MESSAGES),
    (re.compile(rf".*(?:{_GENERATE_PATH.pattern})"), GENERATE_CONTENT),
    (re.compile(rf".*(?:{_CONVERSE_PATH.pattern})"), CONVERSE),
    (re.compile(rf".*(?:{_MESSAGES_PATH.pattern})"), MESSAGES),
)
_COHERE = re.compile(r"(?:.*/v[12])?/chat")
_ANSWERS = (
    ("object", "response", RESPONSES),
    ("object", "chat.completion", CHAT_COMPLETIONS),
    ("object", "text_completion", COMPLETIONS),
    ("object", "list", EMBEDDINGS),
    ("type", "message", MESSAGES),
)


def dialect_for(method: str, host: str, path: str) -> Dialect | None:
    """The dialect of a request that is answered for money, and that can be read; None for any other.

    Args:
        method: The HTTP method.
        host: The host; empty where it is not known.
        path: The path, with or without a query.
    """
    return dialect_at(endpoint(method, host, path))


@lru_cache(maxsize=1_024)
def dialect_at(where: Endpoint) -> Dialect | None:
    """As `dialect_for`, of an endpoint."""
    if where.method != "POST":
        return None
    path = where.path
    for pattern, dialect in _PATHS:
        if pattern.fullmatch(path):
            if dialect is MESSAGES and (found := _MESSAGES_PATH.search(path)) and found["bedrock"]:
                # InvokeModel carries whatever language the model speaks
                return MESSAGES if re.search(r"anthropic|claude|^arn:", found["bedrock"]) else None
            if dialect is MESSAGES and where.provider == "openai":
                return None  # a thread's messages, which are storage
            return dialect
    if _COHERE.fullmatch(path) and where.provider == "cohere":
        return COHERE_CHAT
    return None


def is_named(where: Endpoint, path: str) -> bool:
    """Whether a user who names *path*, as it follows a client's base URL, means the endpoint *where*.

    Args:
        where: The endpoint.
        path: The path, in which ``{...}`` stands for any name: ``"/threads/{id}/runs"``.
    """
    return _named(path).fullmatch(where.path) is not None


@lru_cache(maxsize=1_024)
def _named(path: str) -> re.Pattern[str]:
    literal = re.split(r"\{[^/{}]*\}", path.rstrip("/"))
    return re.compile(f"(?:{_BASE})" + "[^/]+".join(map(re.escape, literal)))


def dialect_of_answer(body: object) -> Dialect | None:
    """The dialect of a whole answer, by its own look; None where it has none that is unmistakable."""
    given = fields(body)
    for name, value, dialect in _ANSWERS:
        if given.get(name) == value and "usage" in given:
            return dialect
    if "usageMetadata" in given or "usage_metadata" in given:
        return GENERATE_CONTENT
    if "stopReason" in given and "usage" in given:
        return CONVERSE
    if "billed_units" in fields(given.get("usage")) or "billed_units" in fields(given.get("meta")):
        return COHERE_CHAT
    return CHAT_COMPLETIONS if "choices" in given and "usage" in given else None


__all__ = [
    "CHAT_COMPLETIONS",
    "COHERE_CHAT",
    "COMPLETIONS",
    "CONVERSE",
    "EMBEDDINGS",
    "GENERATE_CONTENT",
    "MESSAGES",
    "RESPONSES",
    "Answer",
    "Counts",
    "Dialect",
    "Endpoint",
    "Outcome",
    "Reading",
    "Request",
    "Rewritten",
    "StreamReader",
    "dialect_at",
    "dialect_for",
    "dialect_of_answer",
    "endpoint",
    "endpoint_of_url",
    "explain_refusal",
    "is_named",
    "never_billed",
    "outcome_of_error",
    "outcome_of_status",
    "read_counts",
]
