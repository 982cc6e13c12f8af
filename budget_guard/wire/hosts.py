"""Who answers at an address, and which fields that endpoint takes.

A field is chosen by the endpoint, not by the looks of the model's name: a deployment on Azure and a fine-tuned model
have names of their own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from budget_guard.pricing.model_names import base_of_fine_tune, provider_at

_MORE_HOSTS = {
    "api.together.ai": "together",
    "api.minimax.io": "minimax",
    "api.voyageai.com": "voyageai",
}
"""Hosts that `budget_guard.pricing.model_names` does not know yet."""
_SUFFIXES = (
    (".cognitiveservices.azure.com", "azure"),
    (".openai.azure.us", "azure"),
)
_OPENAI_REGION = re.compile(r"([a-z]{2,3})\.api\.openai\.com")
"""Regional hosts: https://developers.openai.com/api/docs/guides/data-residency."""
_GOOGLE_REGION = re.compile(r"([a-z0-9-]+)-aiplatform\.googleapis\.com")
_BEDROCK_HOST = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")

_USAGE_UNASKED = frozenset({"fireworks", "groq", "mistral", "openrouter", "perplexity", "together", "x-ai"})
"""Providers whose streams tell usage without being asked. Some refuse to be asked: Mistral answers 422
(avante.nvim#2347). OpenRouter ignores it (https://openrouter.ai/docs/use-cases/usage-accounting)."""
_USAGE_REFUSED = (".databricks.com", ".azuredatabricks.net", ".databricks.us", ".snowflakecomputing.com")
"""Hosts that refuse ``stream_options`` (openai-agents-python#442)."""
_REASONING = re.compile(r"(?:o\d|gpt-[5-9]|codex)(?!\d)(?!.*chat-latest)")
"""OpenAI's reasoning families, which refuse ``max_tokens`` on Chat Completions."""


class Endpoint(NamedTuple):
    """Where a request goes to."""

    method: str
    host: str
    """In lower case, without a port; empty where it is not known."""
    path: str
    """Percent-decoded, without the query and without a slash at its end."""
    query: tuple[tuple[str, str], ...] = ()
    provider: str | None = None
    """The provider as the price table names it; None where the host does not say."""

    @property
    def deployment(self) -> str | None:
        """The Azure deployment in the path."""
        if "/deployments/" not in self.path:
            return None
        found = _DEPLOYMENT.search(self.path + "/")
        return found and found[1]

    @property
    def api_version(self) -> str:
        """Azure's version of the API, for example "2024-10-21"; empty where the request names none."""
        return dict(self.query).get("api-version", "")

    @property
    def region(self) -> str | None:
        """The region that the host is in, where it has a price of its own."""
        for pattern in (_OPENAI_REGION, _GOOGLE_REGION, _BEDROCK_HOST):
            if found := pattern.fullmatch(self.host):
                return found[1]
        return None

    @property
    def takes_usage_option(self) -> bool:
        """Whether a stream of Chat Completions has to be asked for its usage here, and may be."""
        if self.provider in _USAGE_UNASKED or self.host.endswith(_USAGE_REFUSED):
            return False
        # Azure takes it from this version on: https://learn.microsoft.com/azure/ai-services/openai/whats-new
        return self.provider != "azure" or not self.api_version or self.api_version >= "2024-09-01"

    def name_of_cap(self, model: str) -> str:
        """The name of the output cap of Chat Completions that this endpoint takes for *model*."""
        reasons = _REASONING.match(base_of_fine_tune(model).removeprefix("ft:").rsplit("/", 1)[-1]) is not None
        if self.provider == "openai":
            return "max_completion_tokens"  # every model takes it: platform.openai.com/docs/api-reference/chat
        if self.provider == "azure":
            # Deployments have any name. Reasoning models refuse max_tokens (langchain#29947), old versions of the API
            # refuse max_completion_tokens (litellm#8855).
            new = not self.api_version or self.api_version >= "2024-12-01"
            return "max_completion_tokens" if new or reasons else "max_tokens"
        # A proxy in front of OpenAI hands the name on; all other servers know the older one.
        return "max_completion_tokens" if self.provider is None and reasons else "max_tokens"


@lru_cache(maxsize=1_024)
def endpoint(method: str, host: str, path: str) -> Endpoint:
    """The endpoint of a request.

    Args:
        method: The HTTP method.
        host: The host, with or without a port; empty where it is not known.
        path: The path, with or without a query.
    """
    before, _, query = path.partition("?")
    name = host.rsplit("@", 1)[-1].lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    plain = unquote(before).rstrip("/") or "/"
    return Endpoint(method.upper(), name, plain, tuple(parse_qsl(query)), provider_of_host(name))


def endpoint_of_url(url: str, method: str = "POST") -> Endpoint:
    """The endpoint at *url*."""
    parts = urlsplit(url)
    return endpoint(method, parts.hostname or "", f"{parts.path}?{parts.query}" if parts.query else parts.path)


def provider_of_host(host: str) -> str | None:
    """The provider that answers at *host*; None where that does not say."""
    known = provider_at(f"https://{host}") if host else None
    if known is not None:
        return known
    if host in _MORE_HOSTS:
        return _MORE_HOSTS[host]
    return next((provider for suffix, provider in _SUFFIXES if host.endswith(suffix)), None)
