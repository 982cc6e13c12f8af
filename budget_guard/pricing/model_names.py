"""Model names: the ways that providers, prefixes and snapshot suffixes are written.

The rules are strict on purpose. A name that merely looks like a known one ("gpt-4o-mini-foo") is another
model with another price, and pricing it by its looks would let it spend more than a limit allows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

FIRST_PARTY = (
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "meta",
    "minimax",
    "mistral",
    "moonshotai",
    "openai",
    "perplexity",
    "voyageai",
    "x-ai",
)
"""The providers among which a name without a provider is looked for."""

# What SDKs, gateways and tracing call a provider -> its id in the table. Underscores are read as hyphens.
_ALIASES = {
    "accounts": "fireworks",
    "amazon-bedrock": "aws",
    "anthropic-vertex": "google",
    "azure-ai": "azure",
    "azure-openai": "azure",
    "bedrock": "aws",
    "bedrock-converse": "aws",
    "cohere-chat": "cohere",
    "fireworks-ai": "fireworks",
    "gemini": "google",
    "google-ai": "google",
    "google-anthropic-vertex": "google",
    "google-genai": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google-vertexai": "google",
    "mistralai": "mistral",
    "models": "google",
    "moonshot": "moonshotai",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "projects": "google",
    "publishers": "google",
    "together-ai": "together",
    "togetherai": "together",
    "vertex": "google",
    "vertex-ai": "google",
    "vertexai": "google",
    "xai": "x-ai",
}
_HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
_HOST_ENDS = {
    ".api.openai.com": "openai",
    ".api.x.ai": "x-ai",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
    "aiplatform.googleapis.com": "google",
    ".rep.googleapis.com": "google",
}
LOCAL = frozenset(
    "docker-model-runner gpt4all jan koboldcpp llama-cpp llama.cpp llamacpp llamafile lm-studio lmstudio local localai "
    "localhost mlx ollama ollama-chat sglang text-generation-inference tgi vllm xinference".split()
)
"""What SDKs call servers that people run themselves: their models have no price unless the user gives one."""
_ROUTERS = ("litellm",)  # they pass a call on under the name of its real provider

_BEDROCK = re.compile(
    r"(?:(?:us-gov|us|eu|apac|global|jp|au|ca|in)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshotai?|nvidia|openai|qwen|writer|zai)"
    r"\.[a-z].*"
)
_ARN = re.compile(
    r"(?:.*/)?arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]*):\d*:(?:foundation-model|inference-profile)/(?P<name>.+)"
)
_VERTEX_PATH = re.compile(r"(?:projects/[^/]+/locations/(?P<region>[^/]+)/)?publishers/[^/]+/models/")
_SNAPSHOT = re.compile(
    r"(?P<stem>.+?)"
    r"(?:[-@](?P<ymd>20\d{6})|-(?P<iso>20\d\d-\d\d-\d\d)|-(?P<my>\d\d-20\d\d)|-(?P<ym>2[3-9]\d\d)"
    r"|-00\d|@default|(?P<latest>-latest))"
)
_BEDROCK_VERSION = re.compile(r"(?:-v\d)?(?::\d)?$")


class Snapshot(NamedTuple):
    """A name taken apart."""

    stem: str
    """The name without its suffix."""
    day: date | None
    """The day the suffix gives; its first possible day where it gives a month."""
    latest: bool
    """Whether the suffix is "-latest"."""


def provider_id(name: str | None) -> str | None:
    """The table's id of a provider as people write it; None if *name* says nothing about the provider."""
    if not name:
        return None
    plain = name.lower().replace("_", "-").replace(" ", "-")
    return None if plain in _ROUTERS else _ALIASES.get(plain, plain)


@lru_cache(maxsize=1_024)
def provider_at(url: str) -> str | None:
    """The provider that answers at *url*, None where that does not say."""
    host = urlsplit(url).hostname or ""
    if host in _HOSTS:
        return _HOSTS[host]
    if host.startswith("bedrock") and host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        return "aws"
    return next((provider for end, provider in _HOST_ENDS.items() if host.endswith(end)), None)


def region_of(model: str) -> str | None:
    """The region that is written into *model*: an ARN's, or that of a path on Vertex; None where there is none."""
    name = model.lower()
    if match := _ARN.fullmatch(name):
        return match["region"] or None
    match = _VERTEX_PATH.search(name)
    return match["region"] if match else None


def readings(model: str, provider: str | None, known: Collection[str]) -> Iterator[tuple[str | None, str]]:
    """The (provider, name) pairs that *model* may mean, best first; None stands for any first-party provider.

    Args:
        model: The name as it was asked for.
        provider: The provider's id, None if it was not given.
        known: Ids of providers in the table.
    """
    name = model.lower()
    if (provider is None or provider == "aws") and (arn := _ARN.fullmatch(name)):
        yield "aws", arn["name"]
        return
    head, slash, rest = name.partition("/")
    if slash and head in _ROUTERS:
        name = rest
        head, slash, rest = name.partition("/")
    home = provider_id(head) if slash else None
    if provider is None:
        provider = home if home in known else _dialect(name)
    yield provider, name
    if provider is not None and home == provider:
        yield provider, rest
        if provider == "google":
            yield provider, _VERTEX_PATH.sub("", name)


def _dialect(name: str) -> str | None:
    """The provider whose way of writing names is unmistakable."""
    if _BEDROCK.fullmatch(name):
        return "aws"
    return "google" if name.find("@") > 0 else None


def snapshots(name: str, provider: str) -> Iterator[Snapshot]:
    """The ways to read *name* as another one with a suffix: a version on Bedrock, a day, or "-latest"."""
    if provider == "aws":
        name = _BEDROCK_VERSION.sub("", name, count=1)
        yield Snapshot(name, None, latest=False)
    if match := _SNAPSHOT.fullmatch(name):
        try:
            yield Snapshot(match["stem"], _day(match), match["latest"] is not None)
        except ValueError:  # no day of the calendar
            return


def _day(match: re.Match[str]) -> date | None:
    if text := match["iso"]:
        return date.fromisoformat(text)
    if text := match["ymd"]:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    if text := match["my"]:
        return date(int(text[3:]), int(text[:2]), 1)
    if text := match["ym"]:
        return date(2000 + int(text[:2]), int(text[2:]), 1)
    return None


def exact_names(model: str, known: Collection[str]) -> list[str]:
    """The names that *model* is known by if it is known at all: as it is, and without a provider's prefix."""
    name = model.lower()
    head, slash, rest = name.partition("/")
    return [name, rest] if slash and (head in _ROUTERS or provider_id(head) in known) else [name]


def routed(name: str) -> tuple[str, tuple[str, ...]]:
    """An OpenRouter name as its base and the variants behind it: ``a/b:free:online`` is ``a/b``, free and online."""
    base, *variants = name.split(":")
    return base, tuple(variants)


def base_of_fine_tune(name: str) -> str:
    """The part of ``ft:<base>:<organization>:<name>:<id>`` that decides the price; other names unchanged."""
    return ":".join(name.split(":")[:2]) if name.startswith("ft:") else name
