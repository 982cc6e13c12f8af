"""A tokenizer that is simple enough to do by hand: four bytes of UTF-8 are one token.

Real tokenizers never make more tokens than there are bytes, and neither does this one. So an estimate that is
an upper bound for real requests is one here too, and a test can work out a bill on paper.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

BYTES_PER_TOKEN = 4

_TEXT_KEYS = frozenset(
    {
        "args",
        "arguments",
        "content",
        "function",
        "functionCall",
        "functionResponse",
        "input",
        "json",
        "name",
        "output",
        "parts",
        "refusal",
        "response",
        "summary",
        "text",
        "toolResult",
        "toolUse",
        "tool_calls",
    }
)
"""Where a message or an item keeps text that the model reads. Ids, roles, images and files weigh nothing."""
_JSON_KEYS = frozenset({"args", "input", "json", "response"})
"""Where Anthropic, Google and Bedrock keep a tool's arguments and results as JSON."""


def count_tokens(*texts: str) -> int:
    """Tokens of all *texts* together: their UTF-8 bytes / 4, rounded up once."""
    return -(-sum(map(byte_length, texts)) // BYTES_PER_TOKEN)


def byte_length(text: str) -> int:
    """UTF-8 bytes of *text*; half of a surrogate pair, which JSON allows, counts three."""
    return len(text.encode("utf-8", "surrogatepass"))


def cut(text: str, size: int) -> str:
    """The beginning of *text* that fits into *size* bytes of UTF-8, never half a character."""
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")


def weigh(*messages: Any, schemas: Sequence[Any] = ()) -> int:
    """Input tokens of a request, at least one.

    Args:
        messages: Strings, messages and items as they came over the wire.
        schemas: What the model gets to read as JSON: the tools, a response format.
    """
    texts = [text for message in messages for text in _texts(message)]
    texts += [json.dumps(schema, ensure_ascii=False, separators=(",", ":")) for schema in schemas if schema]
    return max(1, count_tokens(*texts))


def weigh_prompts(prompts: Sequence[Any]) -> int:
    """Input tokens of prompts, at least one: of texts, and of lists of tokens, each of which is one."""
    tokens = sum(len(cast("list[object]", prompt)) for prompt in prompts if isinstance(prompt, list))
    return max(1, tokens + count_tokens(*(prompt for prompt in prompts if isinstance(prompt, str))))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in cast("Mapping[str, object]", value).items():
            if key in _JSON_KEYS and isinstance(part, Mapping):
                yield json.dumps(part)
            elif key in _TEXT_KEYS:
                yield from _texts(part)
    elif isinstance(value, Sequence):
        for part in cast("Sequence[object]", value):
            yield from _texts(part)
