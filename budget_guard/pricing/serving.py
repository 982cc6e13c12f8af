"""What sets the price of a call beside the model's name: the tier, the speed, the region, how much is searched."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

STANDARD_TIERS = (None, "auto", "default", "standard", "standard_only", "on_demand")
"""What providers call the service tier that their list prices are for.

"standard_only" is Anthropic's word for it, "on_demand" Groq's.
"""
STANDARD_SPEEDS = (None, "standard")
"""What providers call the speed that their list prices are for."""

_OPENAI_HOST = re.compile(r"(?P<region>[a-z]{2,4})\.api\.openai\.com")
_VERTEX_HOST = re.compile(r"(?:(?P<region>[a-z0-9-]+)-)?aiplatform\.(?:(?P<multi>[a-z]{2})\.rep\.)?googleapis\.com")
_VERTEX_PATH = re.compile(r"/locations/(?P<region>[a-z0-9-]+)/")
_BEDROCK_HOST = re.compile(
    r"bedrock(?:-[a-z]+)*?(?:-fips)?\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)"
)


class Serving(NamedTuple):
    """How a call is served, as far as the provider's price depends on it. The names are the provider's own."""

    service_tier: str | None = None
    """For example "flex", "priority" or "batch"; None for the standard one."""
    speed: str | None = None
    """Anthropic's ``speed``: "fast", or None for the standard one."""
    region: str | None = None
    """Where the answer is made: Anthropic's ``inference_geo``, the region of the host (see `region_at`); None for the
    provider's own choice."""
    search_context: str | None = None
    """Perplexity's ``search_context_size``, with "pro-" before it for its Pro Search; None for the dearest."""

    def is_standard(self) -> bool:
        """Whether tier and speed are those of the list price."""
        return self.service_tier in STANDARD_TIERS and self.speed in STANDARD_SPEEDS

    def is_priced_like(self, other: Serving) -> bool:
        """Whether the two are the same, or differ only in what a provider calls its standard."""
        return (
            same_tier(self.service_tier, other.service_tier)
            and (self.speed == other.speed or (self.speed in STANDARD_SPEEDS and other.speed in STANDARD_SPEEDS))
            and (self.region or "").lower() == (other.region or "").lower()
            and self.search_context == other.search_context
        )


def same_tier(one: str | None, other: str | None) -> bool:
    """Whether two service tiers are priced alike: they are equal, or two names of the standard one."""
    return one == other or (one in STANDARD_TIERS and other in STANDARD_TIERS)


@lru_cache(maxsize=1_024)
def region_at(url: str) -> str | None:
    """The region that *url* pins a call to, None where it pins none.

    ``https://eu.api.openai.com/v1`` is "eu", a Vertex or Bedrock address the name of its location.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if match := _OPENAI_HOST.fullmatch(host):
        return match["region"]
    if match := _VERTEX_HOST.fullmatch(host):
        path = _VERTEX_PATH.search(parts.path)
        return match["region"] or match["multi"] or (path["region"] if path else None)
    if match := _BEDROCK_HOST.fullmatch(host):
        return match["region"]
    return None
