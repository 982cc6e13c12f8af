"""What a region adds to the price of a model."""

from __future__ import annotations

import re

from budget_guard.wire.claude_version import claude_version

_UPLIFT = 110

_OPENAI_OLD = re.compile(
    r"(?:ft:)?(?:gpt-(?:3\.5|4|4o|4\.1|4\.5|5|5\.[0-3])(?![.\d])|chatgpt-|o1|o3|o4|text-|davinci|babbage)"
)
"""Models from before 5 March 2026, when gpt-5.4 was released."""
_CLAUDE_SINCE = (4, 6)
"""The first version of Claude with a regional price."""


def percent_of_list_price(provider: str | None, model: str, region: str | None) -> int:
    """How many percent of its list price *model* costs in *region*: 100 or 110. What is not known is the dearer.

    OpenAI's regional hosts take 10% more for models released since March 2026
    (https://developers.openai.com/api/docs/guides/data-residency); Claude takes 10% more for US-only inference from 4.6
    on (https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing).

    Args:
        provider: The provider as the price table names it.
        model: The model's name.
        region: The region of the host, or Anthropic's ``inference_geo``; None, "global" and "not_available" for none.
    """
    if region in (None, "", "global", "not_available"):
        return 100
    name = model.lower().rsplit("/", 1)[-1]
    if provider == "openai":
        return 100 if _OPENAI_OLD.match(name) else _UPLIFT
    if provider == "anthropic":
        version = claude_version(name)
        return 100 if version is not None and version < _CLAUDE_SINCE else _UPLIFT
    return 100  # the price table knows the regional names of Bedrock and Vertex by themselves
