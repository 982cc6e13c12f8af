"""One request to the local provider, in words that every wire format shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """What a client asked for."""

    endpoint: str
    """"chat_completions", "responses", "messages", "completions", "embeddings", "generate_content", "converse" or
    "cohere_chat"."""
    model: str
    """The model asked for; from the path where it stands there (Azure's deployments, Google, Bedrock)."""
    messages: Sequence[Any]
    """Messages of any wire, the input items of Responses, prompts of Completions, inputs of Embeddings; a plain input
    string of Responses is one user message."""
    instructions: str | None = None
    """The instructions of Responses, or the system prompt of Messages, Google's wire and Converse. Others keep their
    own among the messages."""
    tools: tuple[str, ...] = ()
    """Names of the tools; the type where the provider's own tool has no name, for example "web_search"."""
    tool_choice: Any = None
    """As sent: a string, an object, or None if it was not. "none" is the one word for no tools in every format."""
    max_output_tokens: int | None = None
    """The cap on output tokens under any of its names, None if there was none (16 on Completions)."""
    stream: bool = False
    include_usage: bool = True
    """Whether usage is due: always, but for a Chat or Completions stream that did not ask for it."""
    temperature: float | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    """The tier asked for."""
    choices: int = 1
    """How many answers were asked for (``n`` of Chat Completions). All are billed."""
    samples: int | None = None
    """How many answers are generated and billed, if that is not `choices` (``best_of`` of Completions)."""
    previous_response_id: str | None = None
    """The answer that this request continues. All of its tokens are billed as input again."""
    input_tokens: int
    """What the request weighs, by `budget_guard.testing.tokens`."""
    headers: Mapping[str, str] = field(repr=False)
    """The HTTP headers, names in lower case. Not in the repr: a key may be among them."""
    body: Mapping[str, Any] = field(repr=False)
    """The JSON as it came."""
    path: str = ""
    """The path of the URL, escaped as it came."""
    query: str = field(default="", repr=False)
    """The query of the URL. Not in the repr: a key may be in it."""
    index: int = 0
    """How many calls arrived before this one."""
    model_index: int = 0
    """How many calls of the same model arrived before this one."""
    attempt: int = 0
    """How many attempts of the same call came before this one: what the client says of its retries
    (``x-stainless-retry-count``), else how many requests with the same body arrived before."""


class MalformedRequest(Exception):
    """The body is not a request that the endpoint understands."""
