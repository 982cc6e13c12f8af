"""What a truthful provider reports in its own convention is booked at no less than it bills, at every known price."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.table import PriceTable
from budget_guard.units.usage import Usage
from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COHERE_CHAT,
    COMPLETIONS,
    CONVERSE,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Answer,
    endpoint,
)

_ASKED = {
    host: CHAT_COMPLETIONS.read_request(
        endpoint("POST", host, "/v1/chat/completions"),
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        {},
    )
    for host in ("api.openai.com", "api.x.ai", "p.example")
}


def openai_shape(usage: Usage, *, names: tuple[str, str], inside: bool = True, reasons_inside: bool = True) -> Any:
    """The usage object of OpenAI's shape, with cached tokens and reasoning inside their totals or beside them."""
    taken, made = usage.input_tokens, usage.output_tokens
    if not inside:
        taken -= usage.cache_read + usage.cache_write_5m
    if not reasons_inside:
        made -= usage.reasoning
    return {
        f"{names[0]}_tokens": taken,
        f"{names[1]}_tokens": made,
        "total_tokens": usage.total_tokens,
        f"{names[0]}_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m,
            "audio_tokens": usage.input_audio,
        },
        f"{names[1]}_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.output_audio},
    }


def read_chat(usage: Usage, host: str, **where: bool) -> Answer:
    shape = openai_shape(usage, names=("prompt", "completion"), **where)
    return CHAT_COMPLETIONS.read_answer({"choices": [{"message": {"content": "x"}}], "usage": shape}, _ASKED[host])


def read_messages(usage: Usage) -> Answer:
    shape = {
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }
    return MESSAGES.read_answer({"type": "message", "content": [{}], "usage": shape}, None)


def read_google(usage: Usage) -> Answer:
    shape = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cache_read,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": usage.input_audio}],
        "candidatesTokenCount": usage.output_tokens - usage.reasoning,
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": usage.output_audio}],
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.total_tokens,
    }
    return GENERATE_CONTENT.read_answer({"candidates": [{"content": {"parts": [{}]}}], "usageMetadata": shape}, None)


def read_converse(usage: Usage) -> Answer:
    shape = {
        "inputTokens": usage.input,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write_5m + usage.cache_write_1h,
        "cacheDetails": [
            {"ttl": "5m", "inputTokens": usage.cache_write_5m},
            {"ttl": "1h", "inputTokens": usage.cache_write_1h},
        ],
    }
    return CONVERSE.read_answer({"output": {"message": {"content": [{}]}}, "usage": shape}, None)


def read_responses(usage: Usage) -> Answer:
    return RESPONSES.read_answer({"output": [{}], "usage": openai_shape(usage, names=("input", "output"))}, None)


def read_completions(usage: Usage) -> Answer:
    shape = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }
    return COMPLETIONS.read_answer({"choices": [{"text": "x"}], "usage": shape}, None)


def read_cohere(usage: Usage) -> Answer:
    shape = {"billed_units": {"input_tokens": float(usage.input), "output_tokens": float(usage.output)}}
    return COHERE_CHAT.read_answer({"message": {"content": "x"}, "usage": shape}, None)


_SOUND, _TEXT, _ALL = ("input_audio", "output_audio"), ("cache_read", "reasoning"), ("cache_write_5m", "cache_write_1h")
WAYS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("chat at openai", lambda u: read_chat(u, "api.openai.com"), (*_SOUND, *_TEXT, "cache_write_5m")),
    ("chat at xai", lambda u: read_chat(u, "api.x.ai", reasons_inside=False), _TEXT),
    ("chat, all inside", lambda u: read_chat(u, "p.example"), (*_SOUND, *_TEXT, "cache_write_5m")),
    ("chat, cached beside", lambda u: read_chat(u, "p.example", inside=False), _TEXT),
    ("chat, all beside", lambda u: read_chat(u, "p.example", inside=False, reasons_inside=False), _TEXT),
    ("responses", read_responses, (*_TEXT, "cache_write_5m")),
    ("messages", read_messages, (*_TEXT, *_ALL)),
    ("google", read_google, (*_SOUND, *_TEXT)),
    ("converse", read_converse, ("cache_read", *_ALL)),
    ("completions", read_completions, ()),
    ("cohere", read_cohere, ()),
]
"""A convention, how an answer in it is read, and the buckets that it can tell apart."""


@cache
def prices() -> list[ModelPrice]:
    """The price of every model that has one for text in and out."""
    table = PriceTable.bundled()
    found = []
    for provider, models in table._bundle.providers.items():  # pyright: ignore[reportPrivateUsage]
        for model in models["models"]:
            try:
                price = table.find(model["names"][0], provider=provider)
                price.worst(1, 1)
            except UnknownPriceError:
                continue
            found.append(price)
    return found


def bills(count: int, seed: int) -> Iterator[tuple[str, ModelPrice, Usage, Answer, int]]:
    """Made-up bills, each in a convention and at a price at random: the truth, what is read of it, and its cost."""
    rng = random.Random(seed)

    def size() -> int:
        return rng.choice([0, 1, rng.randrange(100), rng.randrange(10_000), rng.randrange(300_000)])

    while count:
        price = rng.choice(prices())
        name, read, buckets = rng.choice(WAYS)
        sizes: dict[str, Any] = {bucket: size() for bucket in buckets}
        usage = Usage(size() + 1, output=size() + 1)._replace(**sizes)
        try:
            cost = price.cost(usage)
        except UnknownPriceError:  # this model has no such bucket
            none: dict[str, Any] = dict.fromkeys((*_SOUND, *_ALL), 0)
            usage = usage._replace(**none)
            cost = price.cost(usage)
        count -= 1
        yield name, price, usage, read(usage), cost


@pytest.mark.parametrize("seed", range(4))
def test_what_is_booked_is_never_below_the_bill(seed: int) -> None:
    for name, price, truth, answer, cost in bills(2_000, seed):
        said = f"{name} at {price!r}: {truth} was read as {answer.usage}"
        assert answer.usage is not None, said
        assert answer.usage.total_tokens >= truth.total_tokens, said
        assert price.cost(answer.usage) >= cost, said


@pytest.mark.parametrize("name", [name for name, _, _ in WAYS if "beside" not in name])
def test_a_convention_that_is_known_is_read_exactly(name: str) -> None:
    for found, _, truth, answer, _ in bills(3_000, 9):
        assert found != name or answer.usage == truth
