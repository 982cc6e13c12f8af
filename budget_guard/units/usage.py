"""Usage: the billed units of one model call, in disjoint buckets."""

from __future__ import annotations

from typing import NamedTuple

INPUT_UNITS = ("input_video_tokens", "cache_image_read_tokens")
"""Units of `Usage.other` that are input tokens."""
UNEXPLAINED = "unexplained_tokens"
"""The unit of `Usage.other` for tokens of which a provider's total tells, and none of its parts."""
OUTPUT_UNITS = ("output_video_tokens", UNEXPLAINED)
"""Units of `Usage.other` that are output tokens, or are taken for such."""


class Usage(NamedTuple):
    """Billed units of one model call. Buckets are *disjoint*: a cached token is not also in `input`.

    Only adapters build it, because only they know whether their provider's totals include the parts. Unknown
    usage is `None` in place of a `Usage`, never a `Usage` of zeros. (A named tuple, not a dataclass: one is made
    for every call, and a frozen dataclass of this size takes five times as long to make.)
    """

    input: int = 0
    """Input tokens that were neither cached nor of another kind below."""
    cache_read: int = 0
    """Input tokens read from the provider's cache."""
    cache_write_5m: int = 0
    """Input tokens written to a cache with the provider's default lifetime."""
    cache_write_1h: int = 0
    """Input tokens written to a one-hour cache."""
    input_audio: int = 0
    """Audio input tokens."""
    cache_audio: int = 0
    """Audio input tokens read from the provider's cache."""
    input_image: int = 0
    """Image input tokens, where the provider bills them apart from text."""
    output: int = 0
    """Output tokens that were neither reasoning nor of another kind below."""
    reasoning: int = 0
    """Reasoning tokens."""
    output_audio: int = 0
    """Audio output tokens."""
    output_image: int = 0
    """Image output tokens."""
    web_search: int = 0
    """Web searches made by the provider's hosted tool."""
    requests: int = 1
    """Requests sent to the provider."""
    other: tuple[tuple[str, int], ...] = ()
    """Any billed unit that has no bucket here, as (name, quantity). Priced only if a price names it."""

    @property
    def input_tokens(self) -> int:
        """All input tokens, cached ones included: the total that users see."""
        total = sum(self[:7])  # the buckets come in this order; naming each takes three times as long
        return total if not self.other else total + sum(n for unit, n in self.other if unit in INPUT_UNITS)

    @property
    def output_tokens(self) -> int:
        """All output tokens, reasoning included: the total that users see."""
        total = sum(self[7:11])
        return total if not self.other else total + sum(n for unit, n in self.other if unit in OUTPUT_UNITS)

    @property
    def cached(self) -> int:
        """Input tokens read from the provider's cache."""
        return self.cache_read + self.cache_audio

    @property
    def cache_written(self) -> int:
        """Input tokens written to the provider's cache."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def total_tokens(self) -> int:
        """`input_tokens` plus `output_tokens`."""
        return self.input_tokens + self.output_tokens
