"""The price table: strict names, exact sums, and bounds that hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_names import FIRST_PARTY
from budget_guard.pricing.model_price import UNLIMITED_OUTPUT, ModelPrice
from budget_guard.pricing.rate_card import BUCKETS, PricedModel, PriceHours
from budget_guard.pricing.table import PriceData, PriceTable
from budget_guard.units.amounts import MOST, Amounts
from budget_guard.units.usage import Usage

TABLE = PriceTable.bundled()
NANO = 10**9

relaxed = settings(max_examples=60, deadline=None)  # a busy machine is no failure


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


NOW = utc("2026-11-22T12:00")

# --- names -------------------------------------------------------------------------------------------------

KNOWN = [
    (
        "openai",
        "gpt-4o-2024-08-06 gpt-4o-mini-2024-07-18 gpt-4.1-2025-04-14 gpt-5-2025-08-07 gpt-5-mini gpt-5.1",
    ),
    (
        "openai",
        "gpt-5.2-2025-12-11 gpt-5.4 gpt-5.4-mini gpt-5.5 gpt-5.6-sol gpt-6-sol gpt-6.1-terra o1-2024-12-17",
    ),
    (
        "openai",
        "o3-2025-04-16 o4-mini-2025-04-16 o3-pro gpt-5-codex gpt-realtime chatgpt-4o-latest openai/gpt-4o",
    ),
    ("openai", "ft:gpt-4o-2024-08-06:acme::abc123 ft:gpt-4.1-mini-2025-04-14:acme::abc123"),
    ("anthropic", "claude-3-5-sonnet-latest claude-3-5-haiku-20241022 claude-3-7-sonnet-20250219"),
    (
        "anthropic",
        "claude-sonnet-4-20250514 claude-opus-4-1-20250805 claude-sonnet-4-5-20250929 claude-haiku-4-5",
    ),
    (
        "anthropic",
        "claude-opus-4-5-20251101 claude-opus-4-6 claude-sonnet-5 claude-opus-5-5 claude-fable-5-2",
    ),
    ("anthropic", "anthropic/claude-sonnet-4-5"),
    (
        "google",
        "gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-3-pro-preview gemini-3.1-pro-preview",
    ),
    (
        "google",
        "gemini-3.5-flash gemini-3.8-flash models/gemini-2.5-flash gemini/gemini-2.5-pro gemini-flash-latest",
    ),
    ("mistral", "mistral-large-latest mistral-small-latest mistral-large-2512 codestral-latest"),
    ("mistral", "magistral-medium-latest"),
    ("cohere", "command-a-03-2025 command-r-plus-08-2024"),
    ("deepseek", "deepseek-chat deepseek-reasoner deepseek-v4-pro"),
    ("xai", "grok-4-0709 grok-4-fast-reasoning grok-4.3 grok-3-mini"),
    ("groq", "llama-3.3-70b-versatile llama-3.1-8b-instant openai/gpt-oss-120b"),
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0 anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("bedrock", "amazon.nova-pro-v1:0 us.meta.llama3-3-70b-instruct-v1:0"),
    ("bedrock", "global.anthropic.claude-opus-4-5-20251101-v1:0"),
    ("azure", "gpt-4o-2024-11-20 azure/gpt-4.1 gpt-5-mini o4-mini"),
    ("openrouter", "anthropic/claude-sonnet-4.5 openai/gpt-5 meta-llama/llama-3.3-70b-instruct"),
    ("openrouter", "deepseek/deepseek-chat-v3.1"),
    ("vertex", "claude-sonnet-4-5@20250929 gemini-2.5-pro"),
    ("perplexity", "sonar-pro"),
]
# The sources have no price for these; a refusal is the answer.
NOT_LISTED = [
    ("together", "deepseek-ai/DeepSeek-V3.1"),
    (
        "fireworks",
        "accounts/fireworks/models/llama-v3p3-70b-instruct accounts/fireworks/models/deepseek-v3p1",
    ),
]
LOOK_ALIKES = [
    (
        "openai",
        "gpt-4o-mini-foo gpt-4oo gpt-4-foo gpt-5-ultra gpt-5-mega-pro gpt-9 gpt-4o-2099-01-01 o3-ultra",
    ),
    ("openai", "my-gpt-4o-clone gpt-4.1-ultra ft:gpt-9-2027-01-01:acme::x gpt-6-sol-ultra claude-opus-4-1"),
    (
        "anthropic",
        "claude-9-ultra claude-opus-4-9 claude-sonnet-4-5-max claude-opus-5-9 claude-3-5-sonnet-huge",
    ),
    ("anthropic", "claude-haiku-9 totally-not-claude-v2-x gpt-4o"),
    ("google", "gemini-2.5-pro-ultra gemini-9-pro gemini-2.5-flash-foo gemini-3-pro-preview-99"),
    ("mistral", "mistral-large-9999 mistral-foo"),
    ("deepseek", "deepseek-chat-v99 deepseek-v9"),
    ("xai", "grok-4-heavy-ultra grok-99"),
    ("groq", "llama-99-900b"),
    ("bedrock", "us.anthropic.claude-ultra-9-v1:0 us.anthropic.claude-opus-4-9-20270101-v1:0"),
    ("azure", "my-deployment gpt-5-ultra"),
    ("openrouter", "anthropic/claude-opus-9 openai/gpt-5-ultra"),
    ("nosuchprovider", "gpt-4o-foo"),
]


def pairs(table: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(provider, model) for provider, models in table for model in models.split()]


def test_the_lists_of_names_are_complete() -> None:
    assert len(pairs(KNOWN)) + len(pairs(NOT_LISTED)) == 83
    assert len(pairs(LOOK_ALIKES)) + 1 == 40  # and the empty name


@pytest.mark.parametrize(("provider", "model"), pairs(KNOWN))
def test_a_known_name_has_a_price(provider: str, model: str) -> None:
    assert TABLE.find(model, provider=provider).cost(Usage(1000, output=1000), NOW) > 0


@pytest.mark.parametrize(("provider", "model"), [*pairs(NOT_LISTED), *pairs(LOOK_ALIKES), ("openai", "")])
def test_a_name_that_is_not_listed_is_refused(provider: str, model: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find(model, provider=provider)
    assert caught.value.missing == "model"
    assert f'pricing={{"{model}": (' in str(caught.value)


REAL_ELSEWHERE = {"gpt-4o", "claude-opus-4-1"}


@pytest.mark.parametrize("model", [name for _, name in pairs(LOOK_ALIKES) if name not in REAL_ELSEWHERE])
def test_a_look_alike_is_refused_without_a_provider_too(model: str) -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find(model)


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-pro", "google"),
        ("mistral-small-latest", "mistral"),
        ("grok-4.3", "x-ai"),
        ("openai/gpt-4o", "openai"),
        ("litellm/anthropic/claude-sonnet-4-5", "anthropic"),
        ("models/gemini-2.5-pro", "google"),
        ("azure/gpt-4.1", "azure"),
        ("openrouter/anthropic/claude-sonnet-4.5", "openrouter"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
        ("bedrock/amazon.nova-pro-v1:0", "aws"),
        ("claude-sonnet-4-5@20250929", "google"),
        ("vertex_ai/gemini-2.5-pro", "google"),
        ("groq/openai/gpt-oss-120b", "groq"),
    ],
)
def test_a_name_alone_tells_its_provider(model: str, provider: str) -> None:
    assert TABLE.find(model).provider == provider


def test_a_prefix_of_another_provider_is_not_ignored() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("anthropic/claude-sonnet-4-5", provider="openai")


@pytest.mark.parametrize("model", ["deepseek-chat-v9", "claude-haiku-4-5-v1:0", "gpt-6-sol:0"])
def test_a_version_is_a_suffix_on_bedrock_only(model: str) -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find(model)


def test_a_name_of_two_makers_has_the_dearest_price_of_each_unit_and_size() -> None:
    def twin(read: list[Any], written: list[Any], limits: list[Any]) -> dict[str, Any]:
        return {"names": ["twin"], "limits": limits, "prices": [["", {"input": read, "output": written}]]}

    mistral = twin([1_000_000], [2_000_000, [100, 9_000_000]], [None, 50, "t"])
    openai = twin([3_000_000], [1_000_000], [1000, 80, None])
    mistral["prices"][0][1]["cache_read"] = [500_000]
    nothing: dict[str, Any] = {maker: {"models": []} for maker in FIRST_PARTY}
    providers = nothing | {
        "mistral": {"models": [mistral]},
        "openai": {"models": [openai]},
    }
    data: dict[str, Any] = {"providers": providers, "units": [], "per": {}, "as_of": "2026-11-22"}
    table = PriceTable(PriceData(data, "test"), {})
    assert table.find("mistral/twin").cost(Usage(1)) == 1000
    both = table.find("twin")
    assert (both.provider, both.context_window, both.max_output, both.capabilities) == (
        None,
        1000,
        80,
        frozenset({"tools"}),
    )
    assert both.cost(Usage(100, output=1)) == 100 * 3000 + 2000
    assert both.cost(Usage(101, output=1)) == 101 * 3000 + 9000
    assert both.cost(Usage(cache_read=1)) == 3000, "at openai, which lists no other price for it"


@pytest.mark.parametrize("model", ["claude-haiku-4-5-20990101", "claude-haiku-4-5-20251301", "gpt-6-sol-2026-11-23"])
def test_a_snapshot_that_the_table_cannot_know_is_refused(model: str) -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find(model)


def test_a_snapshot_as_old_as_the_table_has_the_price_of_its_model() -> None:
    usage = Usage(10_000, output=1000)
    assert TABLE.find("gpt-6-sol-2026-11-22").cost(usage) == TABLE.find("gpt-6-sol").cost(usage)


def test_an_older_snapshot_keeps_its_own_price() -> None:
    # 1M input tokens: gpt-4o-2024-05-13 at $5, gpt-4o at $2.50
    assert TABLE.find("gpt-4o-2024-05-13").cost(Usage(1_000_000)) == 5 * NANO
    assert TABLE.find("gpt-4o").cost(Usage(1_000_000)) == Decimal("2.5") * NANO


def test_regional_names_of_other_vendors_are_refused_because_their_price_differs() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("eu.amazon.nova-pro-v1:0", provider="bedrock")


def test_a_refusal_suggests_names_of_whoever_was_asked_also_of_a_reseller() -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("lama-3.3-70b-versatile", provider="groq")
    assert caught.value.suggestions[0] == "llama-3.3-70b-versatile"


def test_a_refusal_suggests_real_names_of_the_provider() -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("claude-sonnet-4-5-max", provider="anthropic")
    assert caught.value.suggestions[0] == "claude-sonnet-4-5"
    assert len(caught.value.suggestions) <= 3
    for name in caught.value.suggestions:
        TABLE.find(name, provider="anthropic")


def test_limits_come_with_the_price_where_a_source_has_them() -> None:
    price = TABLE.find("gpt-4o-mini", provider="openai")
    assert (price.max_output, price.context_window) == (16_384, 128_000)
    assert price.capabilities == frozenset({"tools", "vision", "json_schema"})
    assert TABLE.find("gpt-5.5-cyber").max_output is None
    assert TABLE.find("gpt-5.5-cyber").capabilities is None


# --- 26 calls, by hand -------------------------------------------------------------------------------------

M = 1_000_000
K100 = 100_000
HAND = [
    # model, provider, tier, at, usage, dollars
    # 1,000 x 2.5/M + 500 x 10/M
    ("gpt-4o", "openai", None, NOW, Usage(1000, output=500), "0.0075"),
    # 1 x 0.05/M + 1 x 0.4/M = 450 nano-dollars
    ("gpt-5-nano", "openai", None, NOW, Usage(1, output=1), "0.00000045"),
    # 1 x 0.0375/M = 37.5 nano-dollars, rounded up once with 1 x 0.15/M = 150: 187.5 -> 188
    ("command-r7b", "cohere", None, NOW, Usage(1, output=1), "0.000000188"),
    # 20,000 x 2.5/M + 80,000 x 1.25/M + 1,000 x 10/M
    ("gpt-4o", "openai", None, NOW, Usage(20_000, cache_read=80_000, output=1000), "0.16"),
    # 100,000 x 10/M + 10,000 x 40/M, before the cut
    ("o3", "openai", None, utc("2025-06-01T00:00"), Usage(60_000, output=10_000), "1.00"),
    # 60,000 x 2/M + 10,000 x 8/M, from the day of the cut
    ("o3", "openai", None, utc("2025-06-10T00:00"), Usage(60_000, output=10_000), "0.20"),
    # reasoning is output: 10,000 x 1.1/M + 2,000 x 4.4/M
    ("o4-mini", "openai", None, NOW, Usage(10_000, output=500, reasoning=1500), "0.0198"),
    # exactly 272,000 input tokens are not more than 272,000: 272,000 x 2/M + 1,000 x 10/M
    ("gpt-6-sol", "openai", None, NOW, Usage(272_000, output=1000), "0.554"),
    # one more: 272,001 x 4/M + 1,000 x 15/M
    ("gpt-6-sol", "openai", None, NOW, Usage(272_001, output=1000), "1.103004"),
    # cached tokens count towards the tier: 150,000 x 4 + 100,000 x 0.4 + 50,000 x 5 + 10,000 x 15, per M
    ("gpt-6-sol", "openai", None, NOW, Usage(150_000, 100_000, 50_000, output=10_000), "1.04"),
    # 100,000 x 0.625/M + 10,000 x 5/M
    ("gpt-5", "openai", "flex", NOW, Usage(K100, output=10_000), "0.1125"),
    # 100,000 x 2.5/M + 10,000 x 20/M
    ("gpt-5", "openai", "priority", NOW, Usage(K100, output=10_000), "0.45"),
    # 100,000 x 1/M + 10,000 x 5/M, half of the standard 2/10
    ("claude-sonnet-5-5", "anthropic", "batch", NOW, Usage(K100, output=10_000), "0.15"),
    # 100,000 x 8/M + 10,000 x 40/M, twice the standard 4/20
    ("claude-opus-5-5", "anthropic", "fast", NOW, Usage(K100, output=10_000), "1.20"),
    # 1,000 x 2/M + 500 x 8/M + 2 x 0.01
    ("gpt-4.1", "openai", None, NOW, Usage(1000, output=500, web_search=2), "0.026"),
    # 1,000 x 3 + 100,000 x 3.75 + 50,000 x 6 + 10,000 x 0.3 + 1,000 x 15, per M
    ("claude-sonnet-4-6", "anthropic", None, NOW, Usage(1000, 10_000, K100, 50_000, output=1000), "0.696"),
    # exactly 100,000: 100,000 x 0.1/M + 1,000 x 0.5/M
    ("claude-haiku-5-5", "anthropic", None, NOW, Usage(K100, output=1000), "0.0105"),
    # one more: 100,001 x 0.5/M + 1,000 x 2.5/M
    ("claude-haiku-5-5", "anthropic", None, NOW, Usage(100_001, output=1000), "0.0525005"),
    # 10,000 x 15/M + 1,400 x 75/M
    ("claude-opus-4-1-20250805", "anthropic", None, NOW, Usage(10_000, output=1400), "0.255"),
    # 1,000 x 0.3/M + 10,000 audio x 1/M + 500 x 2.5/M
    ("gemini-2.5-flash", "google", None, NOW, Usage(1000, input_audio=10_000, output=500), "0.01155"),
    # 200,001 x 4/M + 1,000 x 18/M
    ("gemini-3.1-pro-preview", "google", None, NOW, Usage(200_001, output=1000), "0.818004"),
    # 1,000 x 4 + 2,000 audio x 32 + 500 cached audio x 0.4 + 100 x 16 + 3,000 audio x 64, per M
    (
        "gpt-realtime",
        "openai",
        None,
        NOW,
        Usage(1000, input_audio=2000, cache_audio=500, output=100, output_audio=3000),
        "0.2618",
    ),
    # the us. endpoint costs 10% more than 3/15: 100,000 x 3.3/M + 10,000 x 16.5/M
    (
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "bedrock",
        None,
        NOW,
        Usage(K100, output=10_000),
        "0.495",
    ),
    # Large 4 after its launch price: 100,000 x 1.36/M + 10,000 x 4.18/M
    ("mistral-large-latest", "mistral", None, NOW, Usage(K100, output=10_000), "0.1778"),
    # Wednesday 08:00 UTC is a peak hour: 10,000 x 1.32/M + 1,000 x 3.96/M
    ("deepseek-v4-pro", "deepseek", None, utc("2026-11-18T08:00"), Usage(10_000, output=1000), "0.01716"),
    # Sunday 08:00 UTC is not: 10,000 x 0.66/M + 1,000 x 1.98/M
    ("deepseek-v4-pro", "deepseek", None, utc("2026-11-22T08:00"), Usage(10_000, output=1000), "0.00858"),
]


def test_there_are_26_calls() -> None:
    assert len(HAND) == 26


@pytest.mark.parametrize(("model", "provider", "tier", "at", "usage", "dollars"), HAND)
def test_a_call_costs_what_the_price_list_says(
    model: str, provider: str, tier: str | None, at: datetime, usage: Usage, dollars: str
) -> None:
    price = TABLE.find(model, provider=provider, service_tier=tier, at=at)
    assert price.cost(usage, at) == Decimal(dollars) * NANO


def test_a_moved_alias_has_the_prices_of_each_day() -> None:
    def cost(day: str) -> Decimal:
        at = utc(day)
        nano = TABLE.find("mistral-large-latest", at=at).cost(Usage(M, output=M), at)
        return Decimal(nano) / NANO

    # 0.5 + 1.5, then 0.68 + 2.09, then 1.36 + 4.18
    days = ["2026-10-05", "2026-10-06", "2026-10-19", "2026-10-20"]
    assert [cost(day) for day in days] == [Decimal(text) for text in ("2", "2.77", "2.77", "5.54")]


def test_an_hour_that_is_not_given_is_taken_to_be_the_dearest() -> None:
    price, usage = TABLE.find("deepseek-v4-pro", at=NOW), Usage(10_000, output=1000)
    assert price.cost(usage) == price.cost(usage, utc("2026-11-18T08:00")) > price.cost(usage, NOW)


def test_a_window_opens_at_its_first_second_and_closes_before_its_last() -> None:
    price = TABLE.find("deepseek-v4-pro", at=NOW)
    times = ["00:59:59", "01:00:00", "03:59:59", "04:00:00", "06:00:00", "10:00:00"]
    costs = [price.cost(Usage(M), utc(f"2026-11-18T{t}")) * 100 // NANO for t in times]
    assert costs == [66, 132, 132, 66, 132, 66]


def test_a_window_may_span_midnight() -> None:
    cheap = {"input": [(-1, Fraction(1))], "output": [(-1, Fraction(1))]}
    dear = {"input": [(-1, Fraction(2))], "output": [(-1, Fraction(2))]}
    friday = PriceHours(22 * 3600, 2 * 3600, frozenset([4]), dear)
    price = ModelPrice(PricedModel("m", None, cheap, windows=[friday]))
    hours = [
        "2026-11-20T21:59",
        "2026-11-20T22:00",
        "2026-11-21T01:59",
        "2026-11-21T02:00",
        "2026-11-21T23:00",
    ]
    assert [price.cost(Usage(1), utc(hour)) for hour in hours] == [1, 2, 2, 1, 1]


def test_an_hour_of_its_own_price_begins_and_ends_on_the_second() -> None:
    window = PriceHours(8 * 3600 + 90, 9 * 3600 + 95, frozenset(range(7)), {"input": [(-1, Fraction(2))]})
    open_at = [window.is_open(utc(f"2026-11-20T{time}")) for time in ("08:01:29", "08:01:30", "09:01:34", "09:01:35")]
    assert open_at == [False, True, True, False]


def test_a_time_without_a_zone_is_refused() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        TABLE.find("gpt-4o", at=naive)
    with pytest.raises(ValueError, match="time zone"):
        TABLE.find("deepseek-v4-pro").cost(Usage(1), naive)


# --- never free by accident --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "usage", "missing"),
    [
        ("gpt-4o", Usage(cache_write_5m=1), "cache_write_5m"),
        ("gpt-6-sol", Usage(cache_write_1h=1), "cache_write_1h"),
        ("gpt-4o", Usage(input_audio=1), "input_audio"),
        ("gpt-4o", Usage(output_audio=1), "output_audio"),
        ("gpt-4o", Usage(output_image=1), "output_image"),
        ("gpt-4o", Usage(cache_audio=1), "cache_audio"),
        ("gpt-5.1-codex-mini", Usage(web_search=5), "web_search"),
        ("gpt-5.1-codex-mini", Usage(other=(("code_executions", 3),)), "code_executions"),
        ("text-embedding-3-small", Usage(output=1), "output"),
    ],
)
def test_a_unit_without_a_price_is_refused(model: str, usage: Usage, missing: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find(model).cost(usage)
    assert caught.value.missing == missing
    assert missing in caught.value.remedy


def test_an_unused_unit_needs_no_price() -> None:
    assert TABLE.find("gpt-4o").cost(Usage(other=(("code_executions", 0),))) == 0


def test_a_unit_outside_the_buckets_is_priced_where_the_table_names_it() -> None:
    # 3 x 2.5/1,000 dollars
    assert TABLE.find("gpt-4o").cost(Usage(other=(("storage_searches", 3),))) == Decimal("0.0075") * NANO


@pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-pro"])  # the second is dearer above 200,000 tokens
@pytest.mark.parametrize("usage", [Usage(1000, output=-1), Usage(-1000), Usage(9, other=(("storage_searches", -1),))])
def test_a_negative_quantity_is_refused(model: str, usage: Usage) -> None:
    with pytest.raises(ValueError, match="never negative"):
        TABLE.find(model).cost(usage)


@pytest.mark.parametrize("tier", ["Priority", "ultrafast", "scale"])
def test_an_unknown_service_tier_is_refused(tier: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("gpt-5", service_tier=tier)
    assert caught.value.missing == f"service_tier {tier!r}"
    assert "priority" in caught.value.remedy


@pytest.mark.parametrize("tier", [None, "auto", "default", "standard"])
def test_the_standard_tier_has_several_names(tier: str | None) -> None:
    assert TABLE.find("gpt-5", service_tier=tier).cost(Usage(M)) == Decimal("1.25") * NANO


def test_a_tier_of_a_model_that_another_provider_sells_is_refused() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("gpt-5", provider="azure", service_tier="priority")


def test_a_tier_is_refused_on_a_day_before_its_price() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("gpt-5", service_tier="flex", at=utc("2026-10-11T12:00"))


def test_a_tier_has_the_prices_of_each_day() -> None:
    # batch is half of 0.75 a million, and of 1.5 from 2027 on
    def batch(day: str) -> int:
        return TABLE.find("gemini-3.6-flash", service_tier="batch", at=utc(day)).cost(Usage(M))

    assert batch("2026-12-31T12:00") == Decimal("0.375") * NANO
    assert batch("2027-01-01T12:00") == Decimal("0.75") * NANO


def test_only_declared_names_are_free() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("gemma-3-27b-it", provider="google")  # listed without a price
    free = next(name for name in bundled_names("openrouter") if name.endswith(":free"))
    assert TABLE.find(free, provider="openrouter").cost(Usage(M, output=M)) == 0


def bundled() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(resources.files("budget_guard.pricing").joinpath("prices.json").read_bytes())
    return data


def bundled_names(provider: str) -> list[str]:
    return [name for model in bundled()["providers"][provider]["models"] for name in model["names"]]


def numbers(text: str) -> Iterator[str]:
    """Every number and flag of a JSON text, as it is written."""
    return (match[0] for match in re.finditer(r"(?<=[:,\[])[-+.\w]+", re.sub(r'"[^"]*"', '""', text)))


def test_the_bundled_table_holds_integers_only() -> None:
    words = {word for word in numbers(json.dumps(bundled(), separators=(",", ":"))) if not word.isdecimal()}
    assert words == {"null", "true"}


def test_the_bundled_table_has_no_zero_that_is_not_declared_free() -> None:
    for provider, entry in bundled()["providers"].items():
        for model in entry["models"]:
            free = any(name.endswith(":free") for name in model["names"])
            listed = json.dumps([card for _, card in model["prices"]], separators=(",", ":"))
            assert free or "0" not in set(numbers(listed)), (provider, model["names"])


def test_a_tool_is_free_only_where_the_corrections_say_so() -> None:
    listed = json.loads((resources.files("budget_guard.cli") / "price_corrections.json").read_text("utf-8"))["fees"]
    free = {(fix["provider"], unit) for fix in listed for unit in fix.get("free", ())}
    found = {
        (provider, unit)
        for provider, entry in bundled()["providers"].items()
        for fees in entry.get("fees", ())
        for unit, (price,) in fees.items()
        if price == 0
    }
    assert found == free
    assert all(fix["source"] and fix["reason"] for fix in listed)


def test_every_bundled_name_resolves_to_a_price() -> None:
    for provider in bundled()["providers"]:
        for name in bundled_names(provider):
            assert TABLE.find(name, provider=provider, at=NOW).provider == provider


def test_the_basis_names_the_version_and_the_content() -> None:
    assert TABLE.basis.startswith("genai-prices==0.2.3+sha256:")
    assert len(TABLE.basis.partition("sha256:")[2]) == 16
    assert TABLE.as_of == date(2026, 11, 22)
    assert PriceTable.bundled() is TABLE


def test_the_version_of_an_overlay_is_the_same_in_whichever_order_it_was_written() -> None:
    one, other = {"m": (1e-6, 1e-6), "n": (2e-6, 1e-6)}, {"n": (2e-6, 1e-6), "m": (1e-6, 1e-6)}
    assert TABLE.overlaid(one).basis == TABLE.overlaid(other).basis != TABLE.overlaid({"m": (1e-6, 1e-6)}).basis


def test_found_prices_are_kept_and_bounded() -> None:
    table = PriceTable.bundled().overlaid({"m": (1e-6, 1e-6)})
    assert table.find("gpt-4o", at=NOW) is table.find("gpt-4o", at=NOW)
    held = table.find("m", at=NOW)
    for day in range(1, 6000):
        table.find("m", at=datetime.fromordinal(day).replace(tzinfo=timezone.utc))
    assert table.find("m", at=NOW) is not held  # let go on the way


# --- overlays ----------------------------------------------------------------------------------------------


def test_an_overlay_wins_for_the_exact_name_only() -> None:
    table = TABLE.overlaid({"gpt-4o": (1e-6, "2e-6")})
    assert table.find("gpt-4o").cost(Usage(M, output=M)) == 3 * NANO
    assert table.find("gpt-4o-2024-08-06").cost(Usage(M)) == Decimal("2.5") * NANO
    assert TABLE.find("gpt-4o").cost(Usage(M)) == Decimal("2.5") * NANO


def test_an_overlay_keeps_the_limits_that_it_does_not_give() -> None:
    price = TABLE.overlaid({"gpt-4o": {"input": 1e-6, "output": 2e-6, "max_output": 99}}).find("gpt-4o")
    assert (price.max_output, price.context_window) == (99, 128_000)


def test_limits_alone_keep_the_bundled_prices() -> None:
    table = TABLE.overlaid({"gpt-6-sol": {"max_output": 128_000, "capabilities": ["tools"]}, "x": {"max_output": 1}})
    price = table.find("gpt-6-sol", service_tier="flex")
    assert (price.max_output, price.capabilities) == (128_000, frozenset({"tools"}))
    assert price.cost(Usage(K100)) == Decimal("0.1") * NANO  # 100,000 x 1/M
    with pytest.raises(UnknownPriceError):
        table.find("x")


def test_an_overlay_prices_a_model_that_nobody_knows() -> None:
    price = TABLE.overlaid({"local": {"input": 0, "output": 0, "requests": "0.001"}}).find("local", provider="ollama")
    assert price.cost(Usage(M, output=M, requests=3)) == 3 * M


def test_an_overlay_does_not_fall_back_where_that_could_undercharge() -> None:
    price = TABLE.overlaid({"claude-sonnet-4-5": (3e-6, 15e-6)}).find("claude-sonnet-4-5")
    assert price.cost(Usage(cache_read=M, reasoning=M)) == 18 * NANO
    with pytest.raises(UnknownPriceError):
        price.cost(Usage(cache_write_5m=1))


def test_an_overlay_has_no_service_tier() -> None:
    table = TABLE.overlaid({"gpt-5": (1e-6, 1e-6)})
    with pytest.raises(UnknownPriceError, match="service_tier"):
        table.find("gpt-5", service_tier="priority")


def test_an_overlay_may_price_any_billed_unit() -> None:
    price = TABLE.overlaid({"m": {"input": 0, "storage_searches": 0.5, "other": {"sandbox_minutes": "0.01"}}}).find("m")
    assert price.cost(Usage(other=(("storage_searches", 1), ("sandbox_minutes", 2)))) == Decimal("0.52") * NANO


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((-1e-6, 1e-6), "['input']=-1e-06 is negative"),
        ((1e-6, float("nan")), "['output']=nan is not a finite amount"),
        ((1e-6, float("inf")), "['output']=inf is not a finite amount"),
        ((True, 1e-6), "['input']=True is not an amount"),
        (("cheap", 1e-6), "['input']='cheap' is not an amount"),
        ((1e-6, None), "['output']=None is not an amount"),
        ((1e-6,), "is not a price"),
        (1e-6, "is not a price"),
        ("12", "is not a price"),
        ({"input": 1e-6, "ouput": 1e-6}, "did you mean 'output'?"),
        ({"input": 1e-6, "zzz": 1}, "'zzz'=1: put a unit of that name under \"other\""),
        ({"input": 1e-6, "other": 3}, "is not a mapping"),
        ({"input": 1e-6, "other": {"tool": -1}}, "['tool']=-1 is negative"),
        ({"input": 1e-6, "max_output": 0}, "['max_output']=0"),
        ({"input": 1e-6, "max_output": True}, "['max_output']=True"),
        ({"input": 1e-6, "context_window": 1.5}, "['context_window']=1.5"),
        ({"input": 1e-6, "capabilities": ["telepathy"]}, "telepathy"),
    ],
)
def test_an_overlay_that_makes_no_sense_is_refused(value: Any, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        TABLE.overlaid({"my-model": value})
    assert "pricing['my-model']" in str(caught.value)
    assert told in str(caught.value)


def test_the_basis_tells_overlays_apart_by_what_they_cost() -> None:
    basis = TABLE.overlaid({"m": (2.5e-6, 1e-5)}).basis
    assert basis.startswith(f"{TABLE.basis}+overlay:")
    assert TABLE.overlaid({"m": {"output": "0.00001", "input": Decimal("0.0000025")}}).basis == basis
    assert TABLE.overlaid({"m": (2.5e-6, 2e-5)}).basis != basis
    assert TABLE.overlaid({"m": (1e-6, 1e-6)}).overlaid({"m": (2.5e-6, 1e-5)}).basis == basis
    kept = {"input": "0.0000025", "output": "0.00001"}
    told: list[dict[str, Any]] = [
        {},
        {"max_output": 5},
        {"context_window": 5},
        {"capabilities": []},
        {"capabilities": ["vision"]},
    ]
    assert len({TABLE.overlaid({"m": {**kept, **more}}).basis for more in told}) == len(told)


amounts = st.integers(0, 10**9).map(lambda n: Decimal(n).scaleb(-12)) | st.floats(0, 0.01, allow_nan=False)


@relaxed
@given(amounts, amounts, st.integers(0, M), st.integers(0, M))
def test_an_overlay_is_charged_exactly_as_it_was_typed(a: Any, b: Any, tokens_in: int, tokens_out: int) -> None:
    price = TABLE.overlaid({"m": (a, b)}).find("m")
    exact = Fraction(str(a)) * tokens_in + Fraction(str(b)) * tokens_out
    assert price.cost(Usage(tokens_in, output=tokens_out)) == math.ceil(exact * NANO)


Steps: TypeAlias = "list[tuple[int, Fraction]]"
Card: TypeAlias = "dict[str, Steps]"

# --- properties --------------------------------------------------------------------------------------------

tokens = st.integers(0, 10) | st.integers(0, 400_000)
rate = st.fractions(0, 50_000, max_denominator=10**6)
steps = st.lists(st.tuples(st.sampled_from([10, 1000, 128_000, 200_000]), rate), max_size=3, unique_by=lambda s: s[0])


def tiered_price(first: Fraction, more: list[tuple[int, Fraction]]) -> Steps:
    return [(-1, first), *sorted(more)]


def price_of(card: Card, open_hours: list[PriceHours], later: list[Card]) -> ModelPrice:
    return ModelPrice(PricedModel("m", "p", card, windows=open_hours, next_day=later))


tiered = st.builds(tiered_price, rate, steps)
cards = st.fixed_dictionaries(
    {"input": tiered, "output": tiered},
    optional=dict.fromkeys(("cache_read", "cache_write_5m", "cache_write_1h", "reasoning", "requests"), tiered),
)
seconds = st.integers(0, 86_399)
windows = st.builds(PriceHours, seconds, seconds, st.frozensets(st.integers(0, 6)), cards)
prices = st.builds(price_of, cards, st.lists(windows, max_size=2), st.lists(cards, max_size=1))
moments = st.integers(0, 3 * 366 * 86_400).map(lambda late: utc("2024-01-01T00:00") + timedelta(seconds=late))


def usage_of(counts: dict[str, Any]) -> Usage:
    return Usage(**counts)


text_usage = st.fixed_dictionaries(
    dict.fromkeys(("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning"), tokens)
    | {"requests": st.integers(0, 3)}
).map(usage_of)


def cost_by_the_book(card: Card, usage: Usage) -> Fraction | None:
    """An independent reading of the rules: exact dollars, None where a unit has no price."""
    instead = {"cache_read": "input", "reasoning": "output", "requests": None}
    total = Fraction(0)
    for bucket in BUCKETS:
        quantity = getattr(usage, bucket)
        if not quantity:
            continue
        listed = card.get(bucket) or card.get(instead.get(bucket) or "")
        if listed is None and bucket == "requests":
            continue
        if listed is None:
            return None
        per_unit = [nano for above, nano in listed if above == -1 or usage.input_tokens > above][-1]
        total += quantity * per_unit
    return total


@relaxed
@given(cards, text_usage)
def test_a_cost_is_the_exact_sum_rounded_up_once(card: Card, usage: Usage) -> None:
    price, exact = ModelPrice(PricedModel("m", "p", card)), cost_by_the_book(card, usage)
    if exact is None:
        with pytest.raises(UnknownPriceError):
            price.cost(usage)
    else:
        cost = price.cost(usage)
        assert type(cost) is int
        assert cost == math.ceil(exact)


any_usage = st.builds(
    lambda text, more: text._replace(**more),
    text_usage,
    st.fixed_dictionaries({}, optional={"web_search": st.integers(0, 2), "input_image": st.integers(-1, 9)}),
)


@relaxed
@given(prices, any_usage)
def test_text_that_is_billed_at_once_costs_what_it_costs_by_every_bucket(price: ModelPrice, usage: Usage) -> None:
    at_once = price.bill_text(usage)
    if at_once is not None:
        read, written = usage.input_tokens, usage.output_tokens
        assert at_once == Amounts(price.cost(usage), read, written, read + written, usage.requests or 1)


@relaxed
@given(prices, st.integers(0, 2**40), st.integers(0, 2**40), st.booleans())
def test_a_worst_case_without_bends_is_a_line_over_the_input(
    price: ModelPrice, read: int, written: int, hour_cache: bool
) -> None:
    try:
        line = price.worst_line(written, hour_cache=hour_cache)
    except UnknownPriceError:
        with pytest.raises(UnknownPriceError):
            price.worst(1, written, hour_cache=hour_cache)
        return
    if line is not None:
        slope, start, scale = line
        assert (read * slope + start) // scale == price.worst(read, written, hour_cache=hour_cache)


def test_a_price_by_size_has_a_bend_and_a_flat_one_has_none() -> None:
    flat, tiered = TABLE.find("gpt-4o", at=NOW), TABLE.find("gpt-6-sol", at=NOW)
    assert flat.worst_line(100) is not None
    assert tiered.worst_line(100) is None


def test_text_is_billed_at_once_where_its_price_depends_on_nothing_else() -> None:
    plain, tiered = TABLE.find("gpt-4o", at=NOW), TABLE.find("gpt-6-sol", at=NOW)
    usage = Usage(700, cache_read=500, output=180, reasoning=20)
    assert plain.bill_text(usage) == Amounts(plain.cost(usage), 1_200, 200, 1_400, 1)
    assert tiered.bill_text(usage) is None
    assert plain.bill_text(Usage(MOST // 2_501)) is not None
    assert plain.bill_text(Usage(MOST)) is None, "more than a ledger takes"
    day, night = ({unit: [(-1, Fraction(nano))] for unit in ("input", "output")} for nano in (1, 2))
    assert price_of(day, [], []).bill_text(usage) == Amounts(1_400, 1_200, 200, 1_400, 1)
    assert price_of(day, [PriceHours(0, 3600, frozenset(range(7)), night)], []).bill_text(usage) is None
    for closer in (usage._replace(web_search=1), usage._replace(other=(("x", 1),)), usage._replace(output=-1)):
        assert plain.bill_text(closer) is None


@relaxed
@given(prices, text_usage, moments, tokens, tokens, st.booleans())
def test_the_worst_is_never_below_a_cost_within_the_bounds(
    price: ModelPrice, usage: Usage, at: datetime, more_in: int, more_out: int, hourly: bool
) -> None:
    if not hourly:
        usage = usage._replace(cache_write_1h=0)
    try:
        cost = max(price.cost(usage, at), price.cost(usage))
    except UnknownPriceError:
        return
    bound = price.worst(usage.input_tokens + more_in, usage.output_tokens + more_out, usage.requests, hour_cache=hourly)
    assert type(bound) is int
    assert bound >= cost


@relaxed
@given(cards, tokens, tokens, st.booleans())
def test_the_worst_is_what_some_call_costs(card: Card, tokens_in: int, tokens_out: int, hourly: bool) -> None:
    """The bound is tight: it is reached in the dearest bucket, at the end of some tier."""
    inputs = ("input", "cache_read", "cache_write_5m", *(("cache_write_1h",) if hourly else ()))
    kinds = [b for b in inputs if b in card]
    ends = {tokens_in} | {above for steps in card.values() for above, _ in steps if 0 <= above < tokens_in}
    calls = [
        usage_of({kind: end, out: tokens_out}) for kind in kinds for end in ends for out in ("output", "reasoning")
    ]
    price = ModelPrice(PricedModel("m", "p", card))
    assert price.worst(tokens_in, tokens_out, hour_cache=hourly) == max(price.cost(call) for call in calls)


@relaxed
@given(prices, st.integers(0, 10**12), tokens, st.booleans())
def test_the_affordable_output_fits_and_one_token_more_does_not(
    price: ModelPrice, nano: int, tokens_in: int, hourly: bool
) -> None:
    most = price.affordable_output(nano, tokens_in, hour_cache=hourly)

    def worst(tokens_out: int) -> int:
        return price.worst(tokens_in, tokens_out, hour_cache=hourly)

    if most == -1:
        assert worst(0) > nano
    else:
        assert worst(most) <= nano
        assert most == UNLIMITED_OUTPUT or worst(most + 1) > nano


def test_a_bound_at_the_end_of_a_tier_stays_in_it() -> None:
    price = TABLE.find("gpt-6-sol", at=NOW)
    # the input may be written to the cache: 272,000 x 2.5/M + 1,000 x 10/M, then 272,001 x 5/M + 1,000 x 15/M
    assert price.worst(272_000, 1000) == Decimal("0.69") * NANO
    assert price.worst(272_001, 1000) == Decimal("1.375005") * NANO


def test_a_bound_counts_the_dearest_fee_of_a_request() -> None:
    def card(per_token: int, per_request: int) -> Card:
        units = {"input": per_token, "output": per_token, "requests": per_request}
        return {unit: [(-1, Fraction(nano))] for unit, nano in units.items()}

    night = PriceHours(0, 3600, frozenset(range(7)), card(1, 500))
    price = ModelPrice(PricedModel("m", "p", card(2, 0), windows=[night]))
    assert price.worst(10, 10, requests=2) == 1020  # 20 tokens and 2 requests at night
    assert price.worst(1000, 1000, requests=2) == 4000  # 2,000 tokens at day


def test_output_that_is_free_has_no_end() -> None:
    price = TABLE.overlaid({"m": (1e-6, 0)}).find("m")
    assert price.affordable_output(NANO, M) == UNLIMITED_OUTPUT
    assert price.affordable_output(NANO - 1, M) == -1


def test_a_bound_needs_the_prices_of_text() -> None:
    embeddings, speech = TABLE.find("text-embedding-3-small"), TABLE.find("tts-1")
    assert embeddings.worst(M, 0) == Decimal("0.02") * NANO
    with pytest.raises(UnknownPriceError, match="output"):
        embeddings.worst(M, 1)
    with pytest.raises(UnknownPriceError, match="output"):
        embeddings.affordable_output(NANO, M)
    with pytest.raises(UnknownPriceError, match="input"):
        speech.worst(1, 0)


def test_a_call_that_may_end_after_a_price_rise_is_bounded_by_the_new_price() -> None:
    eve, after = utc("2026-10-19T23:59"), utc("2026-10-20T00:01")
    before = TABLE.find("mistral-large-latest", at=eve)
    assert before.cost(Usage(M)) == Decimal("0.68") * NANO
    assert before.worst(M, 0) >= TABLE.find("mistral-large-latest", at=after).cost(Usage(M))


def test_a_price_is_listed_by_the_million_tokens_and_by_the_piece_in_each_of_its_tiers() -> None:
    table = PriceTable.bundled().overlaid(
        {
            "m": {
                "input": "2.5e-6",
                "cache_read": "3e-7",
                "output": 1e-05,
                "requests": "0.01",
                "web_search": "0.0000000015",
            }
        }
    )
    (tier,) = table.find("m").listed()
    assert tier == (
        0,
        {"input": 2_500_000_000, "cache_read": 300_000_000, "output": 10**10, "requests": 10**7, "web_search": 2},
    )
    assert table.find("m").text_price() == ("2.5e-6", "1e-5")


@pytest.mark.parametrize(
    "per_prompt", [(), ("web_search",), ("google_maps",), ("web_search", "google_maps")], ids=",".join
)
@pytest.mark.parametrize(("requests", "once"), [(0, 1), (1, 1), (2, 2), (9, 3)])
def test_what_is_billed_by_the_prompt_counts_once_for_each_request(
    per_prompt: tuple[str, ...], requests: int, once: int
) -> None:
    card = {unit: [(-1, Fraction(nano))] for unit, nano in {"web_search": 100, "google_maps": 7}.items()}
    price = ModelPrice(PricedModel("m", None, card, per_prompt=frozenset(per_prompt)))
    usage = Usage(web_search=3, requests=requests, other=(("google_maps", 3),))
    counts = {unit: once if unit in per_prompt else 3 for unit in card}
    assert price.cost(usage) == 100 * counts["web_search"] + 7 * counts["google_maps"]
