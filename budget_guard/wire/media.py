"""How many tokens pictures, PDF pages and sound take, by the rules that providers publish.

A rule gives the most that is possible under it. What has no published rule, or a size that is not visible in the
request, has no bound.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from budget_guard.wire.claude_version import claude_version
from budget_guard.wire.document import pdf_pages
from budget_guard.wire.picture import picture_size
from budget_guard.wire.sound import wav_seconds

PictureRule: TypeAlias = Callable[[int, int, str], int]
"""The most tokens of a picture of so many pixels in width and height, at a level of detail."""


class MediaRules(NamedTuple):
    """The rules of one family of models."""

    name: str
    picture: PictureRule | None = None
    page: int | None = None
    """The most tokens of one page of a PDF file, text included; None where that is not published."""
    sound: int | None = None
    """The most tokens of a second of sound."""


_HEAD = 32_768
"""Bytes of a file that nearly always tell its size. A JPEG may carry a large preview before its header."""


def decode(encoded: str, *, whole: bool = False) -> bytes:
    """The bytes of a base64 text: the first ones, or all. Empty where it is none."""
    text = encoded if whole else encoded[: _HEAD * 4 // 3 // 4 * 4]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if "-" in text or "_" in text else None)
    except (binascii.Error, ValueError):
        return b""


def split_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 text of a data URL; None for any other address."""
    if url[:5].lower() != "data:":
        return None
    head, comma, encoded = url[5:].partition(",")
    kind, *options = head.split(";")
    return (kind.lower(), encoded) if comma and "base64" in options else None


def picture_tokens(rules: MediaRules, encoded: str, detail: object) -> int | None:
    """The most tokens of a picture given as base64 text; None where that is not known."""
    if rules.picture is None:
        return None
    size = picture_size(decode(encoded)) or picture_size(decode(encoded, whole=True))
    return None if size is None else rules.picture(*size, detail if isinstance(detail, str) else "auto")


def document_tokens(rules: MediaRules, encoded: str) -> int | None:
    """The most tokens of a PDF file given as base64 text; None where that is not known."""
    if rules.page is None:
        return None
    pages = pdf_pages(decode(encoded, whole=True))
    return None if pages is None else pages * rules.page


def sound_tokens(rules: MediaRules, encoded: str) -> int | None:
    """The most tokens of a WAV file given as base64 text; None where that is not known."""
    if rules.sound is None:
        return None
    seconds = wav_seconds(decode(encoded), len(encoded) * 3 // 4 + 3)
    return None if seconds is None or seconds > 10**7 else math.ceil(seconds) * rules.sound + rules.sound


def _tiles(base: int, tile: int) -> PictureRule:
    """A base and so much for each square of 512 pixels, after the picture is fitted into 2,048 and its shorter side
    scaled to 768: https://developers.openai.com/api/docs/guides/images-vision#tile-based-image-tokenization."""

    def tokens(width: int, height: int, detail: str) -> int:
        if detail == "low":
            return base
        scale = min(1.0, 2048 / max(width, height))
        wide, high = width * scale, height * scale
        small = min(1.0, 768 / min(wide, high))
        large = min(768 / min(wide, high), 2048 / max(wide, high))  # the page does not say that small ones stay small
        return base + tile * max(
            math.ceil(wide * by / 512 - 1e-9) * math.ceil(high * by / 512 - 1e-9) for by in (small, large)
        )

    return tokens


def _patches(percent: int, high: int, most: int, auto: int) -> PictureRule:
    """So much for each square of 32 pixels, at most a budget of them by the level of detail:
    https://developers.openai.com/api/docs/guides/images-vision#patch-based-image-tokenization."""
    budgets = {"low": 256, "high": high, "original": most}

    def tokens(width: int, height: int, detail: str) -> int:
        patches = -(-width // 32) * -(-height // 32)
        return -(-min(patches, budgets.get(detail, auto)) * percent // 100)

    return tokens


_REJECTED_ABOVE = 30_000
"""Patches above which OpenAI rejects a picture, since models from gpt-5.6 on do not scale it down (same page)."""

_OPENAI: tuple[tuple[str, PictureRule], ...] = (
    (r"gpt-4o-mini", _tiles(2833, 5667)),
    (r"gpt-4\.1-mini|gpt-5-mini", _patches(162, 1536, 1536, 1536)),
    (r"gpt-4\.1-nano|gpt-5-nano", _patches(246, 1536, 1536, 1536)),
    (r"o4-mini", _patches(172, 1536, 1536, 1536)),
    (r"gpt-4o|gpt-4\.1|gpt-4\.5|gpt-4-turbo|gpt-4-vision|chatgpt-4o", _tiles(85, 170)),
    (r"o1|o3", _tiles(75, 150)),
    (r"computer-use-preview", _tiles(65, 129)),
    (r"gpt-5\.[23](?!\d)|gpt-5(?:\.1)?-codex-mini", _patches(120, 1536, 1536, 1536)),
    (r"gpt-5(?:\.1)?(?![.\d])", _tiles(70, 140)),
    (r"gpt-5\.[45](?!\d)(?!.*(?:mini|nano))", _patches(120, 2500, 10_000, 10_000)),
    (r"(?:gpt-5\.[6-9]|gpt-[6-9])(?!.*(?:mini|nano))", _patches(120, 2500, _REJECTED_ABOVE, _REJECTED_ABOVE)),
    # Their multipliers are not published; 2.46 is the largest that is.
    (r"gpt-5\.[4-9]|gpt-[6-9]", _patches(246, 2500, _REJECTED_ABOVE, _REJECTED_ABOVE)),
)


def _openai_dearest(width: int, height: int, detail: str) -> int:
    """Of a model whose rule is not known: the dearest of all rules."""
    known = [rule(width, height, detail) for _, rule in _OPENAI]
    return max(*known, _patches(246, _REJECTED_ABOVE, _REJECTED_ABOVE, _REJECTED_ABOVE)(width, height, detail))


_CLAUDE_SHARP = (4, 7)
"""The first version of Claude that sees pictures at the higher resolution."""


def _claude(tokens_at_most: int, longest: int) -> PictureRule:
    """One for each square of 28 pixels, after the picture is scaled down to the model's resolution:
    https://platform.claude.com/docs/en/build-with-claude/vision (1,568 tokens and pixels; since 4.7 4,784 and
    2,576)."""

    def tokens(width: int, height: int, detail: str) -> int:
        scale = min(1.0, longest / max(width, height))
        wide, high = math.ceil(width * scale), math.ceil(height * scale)
        # older pages give width * height / 750
        return min(tokens_at_most, max(-(-wide // 28) * -(-high // 28), -(-wide * high // 750)))

    return tokens


def _gemini_tiles(width: int, height: int, detail: str) -> int:
    """258 up to 384 pixels, else for each tile of 768: https://ai.google.dev/gemini-api/docs/tokens#multimodal-tokens.

    Tiles are cropped by a unit of two thirds of the shorter side, at least 256 pixels, as
    https://ai.google.dev/gemini-api/docs/image-understanding says.
    """
    if max(width, height) <= 384:
        return 258
    unit = max(256, min(768, math.floor(min(width, height) / 1.5)))
    return 258 * math.ceil(width / unit) * math.ceil(height / unit)


_GEMINI_LEVELS = {"low": 280, "medium": 560, "high": 1120, "ultra_high": 2240}


def _gemini_levels(width: int, height: int, detail: str) -> int:
    """By the resolution asked for, 1,120 without one: https://ai.google.dev/gemini-api/docs/media-resolution."""
    level = detail.lower().removeprefix("media_resolution_")
    return _GEMINI_LEVELS.get(level, 1120 if level in ("auto", "unspecified") else 2240)


@lru_cache(maxsize=512)
def media_rules(provider: str | None, model: str) -> MediaRules:
    """The rules for *model*; rules without a bound for what has no published ones."""
    name = model.lower().removeprefix("ft:").rsplit("/", 1)[-1]
    if "claude" in name:
        version = claude_version(name)
        small = version is not None and version < _CLAUDE_SHARP
        most = 1568 if small else 4784
        # Each page is a picture and its text, 1,500 to 3,000 tokens of it:
        # https://platform.claude.com/docs/en/build-with-claude/pdf-support
        return MediaRules(f"claude-{most}", _claude(most, 1568 if small else 2576), most + 3_000)
    if "gemini" in name:
        name = name[name.index("gemini") :]
        # Sound: 32 tokens a second. Pages: as pictures; their own text is not billed.
        # https://ai.google.dev/gemini-api/docs/tokens and /document-processing
        if re.match(r"gemini-(?:[01]|2)(?:\.\d)?-", name):
            return MediaRules("gemini-tiles", _gemini_tiles, 258 * 6, 32)
        return MediaRules("gemini-levels", _gemini_levels, 2240, 32)
    # OpenAI: a token for each 100 ms of sound (https://developers.openai.com/api/docs/guides/realtime-costs). The text
    # of a PDF page is added to its picture, and nobody says how much of it (.../guides/file-inputs): no bound.
    for pattern, rule in _OPENAI:
        if re.match(pattern, name):
            return MediaRules(pattern, rule, None, 10)
    if provider in ("openai", "azure"):
        return MediaRules("openai", _openai_dearest, None, 10)
    return MediaRules("unknown")
