"""What sets the price beside the model's name: tier, speed, region, size of searches, and what a call carries."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_names import provider_at
from budget_guard.pricing.model_price import KINDS, TEXT_ONLY, ModelPrice
from budget_guard.pricing.rate_card import BUCKETS
from budget_guard.pricing.serving import Serving, region_at
from budget_guard.pricing.table import PriceTable
from budget_guard.units.usage import INPUT_UNITS, OUTPUT_UNITS, Usage

TABLE = PriceTable.bundled()
NANO = 10**9
M = 1_000_000
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
CALL = Usage(10_000, output=1_000)


def cost(model: str, usage: Usage = CALL, **how: Any) -> Decimal:
    return Decimal(TABLE.find(model, at=NOW, **how).cost(usage, NOW)) / NANO


def names() -> list[tuple[str, str, dict[str, Any]]]:
    """Every model of the table: its provider, a name of it, and its entry."""
    data = json.loads(resources.files("budget_guard.pricing").joinpath("prices.json").read_bytes())
    return [(p, entry["names"][0], entry) for p, every in data["providers"].items() for entry in every["models"]]


# --- tier, speed, region -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "how", "dollars"),
    [
        # 10,000 in and 1,000 out of 5/25 a million, at twice and at six times that
        ("claude-opus-4-8", {"speed": "fast"}, "0.15"),
        ("claude-opus-4-8", {"speed": "standard"}, "0.075"),
        ("claude-opus-4-6", {"speed": "fast"}, "0.45"),
        # 3/15 a million times 1.1
        ("claude-sonnet-4-6", {"region": "us"}, "0.0495"),
        ("claude-sonnet-4-6", {"region": "global"}, "0.045"),
        ("claude-sonnet-4-5", {"region": "not_available"}, "0.045"),
        ("claude-opus-4-8", {"region": "us", "speed": "fast"}, "0.165"),
        ("claude-sonnet-5-5", {"region": "us", "service_tier": "batch"}, "0.0165"),
        # 2.5/15 a million times 1.1; models from before 2026-03-05 cost the same everywhere
        ("gpt-5.4", {"region": "eu"}, "0.044"),
        ("gpt-5.4", {"region": "US"}, "0.044"),
        ("gpt-5.4", {}, "0.04"),
        ("gpt-4o", {"region": "eu"}, "0.035"),
        ("gpt-5.3-codex", {"region": "au"}, "0.0315"),
        # 3/15 a million; Vertex costs 10% more outside its global endpoint
        ("claude-sonnet-4-5@20250929", {"region": "us-east5"}, "0.0495"),
        ("claude-sonnet-4-5@20250929", {"region": "global"}, "0.045"),
        ("gemini-2.5-pro", {"region": "us-central1", "provider": "vertex"}, "0.0225"),
        ("gemini-3.6-flash", {"region": "us-central1", "provider": "vertex"}, "0.012375"),
        # Claude on Bedrock costs the same in every region of one kind
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"region": "eu-west-1"}, "0.0495"),
        ("amazon.nova-pro-v1:0", {"region": "us-east-1"}, "0.0112"),
        # 3/15 a million, and 14, 6 or 22 dollars per 1,000 requests
        ("sonar-pro", {}, "0.059"),
        ("sonar-pro", {"search_context": "low"}, "0.051"),
        ("sonar-pro", {"search_context": "pro-high"}, "0.067"),
        ("gpt-4o", {"search_context": "high"}, "0.035"),
    ],
)
def test_a_call_costs_what_its_serving_costs(model: str, how: dict[str, Any], dollars: str) -> None:
    assert cost(model, **how) == Decimal(dollars)


def test_a_region_makes_every_token_dearer_and_no_tool() -> None:
    usage = Usage(1000, 2000, 3000, 4000, output=500, reasoning=600)
    assert cost("claude-sonnet-4-6", usage, region="us") == cost("claude-sonnet-4-6", usage) * Decimal("1.1")
    search = Usage(web_search=3)
    assert cost("claude-sonnet-4-6", search, region="us") == cost("claude-sonnet-4-6", search) == Decimal("0.03")


def test_fast_mode_has_its_own_price_of_a_cache_write() -> None:
    # 44,667 x 12.5/M
    assert cost("claude-opus-4-8", Usage(cache_write_5m=44_667), speed="fast") == Decimal("0.5583375")


@pytest.mark.parametrize("tier", [None, "auto", "default", "standard", "standard_only", "on_demand"])
def test_the_standard_tier_has_the_names_that_providers_give_it(tier: str | None) -> None:
    assert cost("claude-sonnet-4-5", service_tier=tier) == Decimal("0.045")


def test_a_tier_may_cost_the_same_at_one_provider_and_not_at_another() -> None:
    standard = cost("openai/gpt-oss-120b", provider="groq")
    assert cost("openai/gpt-oss-120b", provider="groq", service_tier="flex") == standard
    assert cost("gpt-5", service_tier="flex") < cost("gpt-5")
    with pytest.raises(UnknownPriceError, match="flex"):
        TABLE.find("mistral-small-latest", service_tier="flex")


@pytest.mark.parametrize(
    ("model", "how", "missing"),
    [
        ("claude-sonnet-4-6", {"speed": "fast"}, "speed 'fast'"),
        ("claude-opus-4-8", {"speed": "warp"}, "speed 'warp'"),
        ("claude-opus-4-8", {"speed": "fast", "service_tier": "batch"}, "service_tier 'batch' with speed 'fast'"),
        ("claude-sonnet-4-6", {"region": "eu"}, "region 'eu'"),
        ("amazon.nova-pro-v1:0", {"region": "eu-west-1"}, "region 'eu-west-1'"),
        ("gpt-5", {"service_tier": "ultra", "provider": "nobody"}, "service_tier 'ultra'"),
    ],
)
def test_a_serving_without_a_price_is_refused(model: str, how: dict[str, Any], missing: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find(model, **how)
    assert caught.value.missing == missing
    assert caught.value.remedy


def test_a_price_of_the_users_own_is_that_of_any_region_and_of_no_other_speed() -> None:
    table = TABLE.overlaid({"claude-opus-4-8": (1e-6, 2e-6)})
    assert table.find("claude-opus-4-8", region="us").cost(Usage(M)) == NANO
    with pytest.raises(UnknownPriceError, match="speed 'fast'"):
        table.find("claude-opus-4-8", speed="fast")


@pytest.mark.parametrize(
    ("url", "provider", "region"),
    [
        ("https://api.openai.com/v1", "openai", None),
        ("https://eu.api.openai.com/v1", "openai", "eu"),
        ("https://evil.com/eu.api.openai.com", None, None),
        ("https://us-east5-aiplatform.googleapis.com/v1/x", "google", "us-east5"),
        ("https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/", "google", "global"),
        ("https://aiplatform.eu.rep.googleapis.com/v1/", "google", "eu"),
        ("https://generativelanguage.googleapis.com/v1beta", "google", None),
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "aws", "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "aws", "us-gov-west-1"),
        ("https://contoso.openai.azure.com", "azure", None),
        ("https://contoso.services.ai.azure.com/models", "azure", None),
        ("https://api.perplexity.ai", "perplexity", None),
        ("http://127.0.0.1:8080/v1", None, None),
        ("", None, None),
    ],
)
def test_an_address_tells_its_provider_and_region(url: str, provider: str | None, region: str | None) -> None:
    assert (provider_at(url), region_at(url)) == (provider, region)


def test_servings_are_alike_where_only_the_name_of_the_standard_differs() -> None:
    assert Serving("auto", "standard").is_priced_like(Serving())
    assert Serving(region="EU").is_priced_like(Serving(region="eu"))
    for other in (Serving("flex"), Serving(speed="fast"), Serving(region="us"), Serving(search_context="low")):
        assert not other.is_priced_like(Serving())
        assert not Serving().is_priced_like(other)


# --- sound and pictures ------------------------------------------------------------------------------------


def test_no_unit_of_sound_or_pictures_costs_more_than_what_is_held_for_it() -> None:
    """Every model and kind of the table, also where the kind is named and everything else is text."""
    priced, wrong = 0, list[tuple[str, str, str]]()
    for provider, name, _ in names():
        price = TABLE.find(name, provider=provider, at=NOW)
        for kind, units in KINDS.items():
            tokens = (0, 10_000) if kind.startswith("output") else (10_000, 0)
            for unit in units:
                counts: dict[str, Any] = {unit: 10_000} if unit in BUCKETS else {"other": ((unit, 10_000),)}
                try:
                    bill = price.cost(Usage(**counts, requests=0), NOW)
                    held = price.worst(*tokens, 0), price.worst(*tokens, 0, kinds=frozenset({kind}))
                except UnknownPriceError:
                    continue
                priced += 1
                wrong += [(provider, name, unit)] if bill > min(held) else []
    assert priced > 500
    assert not wrong


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("gpt-4o", "input_audio"),
        ("gpt-4o", "output_audio"),
        ("claude-sonnet-4-5", "input_audio"),
        ("gemini-2.5-pro", "output_image"),
        ("gpt-3.5-turbo", "input_image"),
    ],
)
def test_a_call_with_a_kind_that_has_no_price_is_refused(model: str, kind: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find(model).worst(1000, 100, kinds=frozenset({kind}))
    assert caught.value.missing == kind


def test_a_call_without_sound_is_held_at_the_price_of_text() -> None:
    price = TABLE.find("gpt-audio", at=NOW)
    # 2.5/10 a million for text, 32/64 for sound
    assert price.worst(M, M, kinds=TEXT_ONLY) == Decimal("12.5") * NANO
    assert price.worst(M, M, kinds=frozenset({"input_audio"})) == 42 * NANO
    assert price.worst(M, M) == 96 * NANO
    assert price.affordable_output(96 * NANO, M) == M
    assert price.worst_line(M, kinds=TEXT_ONLY) != price.worst_line(M)


def test_a_model_that_draws_is_held_at_the_price_of_pictures_also_where_nobody_asked() -> None:
    price = TABLE.find("gemini-3-pro-image", at=NOW)
    assert price.worst(0, M, kinds=TEXT_ONLY) == 120 * NANO


def test_pictures_are_text_only_where_the_model_is_known_to_see_and_lists_no_other_price() -> None:
    assert cost("gpt-4o", Usage(input_image=M)) == Decimal("2.5")
    assert cost("gpt-realtime", Usage(input_image=M)) == 5
    unknown = TABLE.overlaid({"mine": (1e-6, 1e-6)}).find("mine")
    with pytest.raises(UnknownPriceError, match="input_image"):
        unknown.cost(Usage(input_image=1))
    seeing = TABLE.overlaid({"mine": {"input": 1e-6, "output": 1e-6, "capabilities": ["vision"]}}).find("mine")
    assert seeing.cost(Usage(input_image=M)) == NANO


def test_spoken_words_have_the_price_of_the_snapshot() -> None:
    # 200 x 2.5 + 1,800 x 40 + 100 x 10 + 400 x 80, per M
    usage = Usage(200, input_audio=1800, output=100, output_audio=400)
    assert cost("gpt-4o-audio-preview", usage) == cost("gpt-4o-audio-preview-2024-12-17", usage) == Decimal("0.1055")
    assert cost("gpt-4o-audio-preview-2024-10-01", usage) == Decimal("0.2615")


def test_an_unknown_kind_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="input_audio"):
        TABLE.find("gpt-4o").worst(1, 1, kinds=frozenset({"audio"}))


def test_video_counts_as_input_and_decides_the_tier() -> None:
    usage = Usage(output=0, other=(("input_video_tokens", 200_001),))
    assert usage.input_tokens == usage.total_tokens == 200_001
    assert Usage(other=(("output_video_tokens", 7), ("file_search", 9))).output_tokens == 7
    # more than 200,000 tokens: 2.5 a million in place of 1.25
    assert cost("gemini-2.5-pro", usage) == Decimal("0.5000025")


# --- never less than the bill ------------------------------------------------------------------------------

MODELS = [(provider, name, entry) for provider, name, entry in names() if entry["limits"]]
counts = st.integers(0, 20) | st.integers(0, 400_000)
usages = st.fixed_dictionaries(
    dict.fromkeys((bucket for bucket in BUCKETS if bucket not in ("web_search", "requests")), counts)
    | {"requests": st.integers(0, 3)}
)
others = st.fixed_dictionaries({}, optional=dict.fromkeys((*INPUT_UNITS, *OUTPUT_UNITS), counts))
regions = st.sampled_from([None, "us", "eu", "global", "us-east5", "us-east-1", "not_available"])
moments = st.integers(0, 400 * 86_400).map(lambda late: NOW + timedelta(seconds=late - 200 * 86_400))


def priced_part(price: ModelPrice, usage: Usage, at: datetime) -> tuple[Usage, int]:
    """What of *usage* has a price, and what it costs."""
    while True:
        try:
            return usage, max(price.cost(usage, at), price.cost(usage))
        except UnknownPriceError as error:
            fewer: dict[str, Any] = {error.missing: 0} if error.missing in BUCKETS else {}
            usage = usage._replace(**fewer, other=tuple(unit for unit in usage.other if unit[0] != error.missing))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(MODELS), usages, others, st.data(), regions, moments, counts, counts, st.booleans())
def test_the_worst_of_any_model_is_never_below_a_cost_within_the_bounds(
    model: tuple[str, str, dict[str, Any]],
    counted: dict[str, int],
    more: dict[str, int],
    data: st.DataObject,
    region: str | None,
    at: datetime,
    more_in: int,
    more_out: int,
    named: bool,
) -> None:
    provider, name, entry = model
    tier = data.draw(st.sampled_from([None, *entry.get("variants", ())]))
    how: dict[str, Any] = {"provider": provider, "region": region, "at": at}
    if tier is not None and tier.startswith("search:"):
        how["search_context"] = tier.removeprefix("search:")
    elif provider == "anthropic" and tier == "fast":
        how["speed"] = tier
    else:
        how["service_tier"] = tier
    try:
        price = TABLE.find(name, **how)
    except UnknownPriceError as error:
        assert "region" in error.missing or "service_tier" in error.missing or "speed" in error.missing
        return
    usage, bill = priced_part(price, Usage(**counted, other=tuple(more.items())), at)
    tokens = dict(zip(BUCKETS, usage, strict=False)) | dict(usage.other)
    kinds = frozenset(kind for kind, units in KINDS.items() if any(tokens.get(unit) for unit in units))
    bounds = usage.input_tokens + more_in, usage.output_tokens + more_out, usage.requests
    try:
        held = price.worst(*bounds, kinds=kinds if named else None)
    except UnknownPriceError as error:
        assert error.missing in ("input", "output", "cache_audio")  # a model of sound alone has no bound for text
        return
    assert held >= bill


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MODELS), usages, regions, counts, counts)
def test_an_alias_costs_what_its_target_costs(
    model: tuple[str, str, dict[str, Any]], counted: dict[str, int], region: str | None, read: int, written: int
) -> None:
    provider, name, entry = model
    target = f"{provider}/{name}"
    try:
        table = TABLE.overlaid({"prod-chat": target})
    except ValueError:  # a name that needs its provider beside it
        return
    tier = next(iter(entry.get("variants", ())), None)
    for how in ({}, {"service_tier": tier}, {"region": region}, {"provider": provider}):
        try:
            expected = table.find(target, at=NOW, **how)
        except UnknownPriceError as error:
            if error.missing == "model":
                continue
            with pytest.raises(UnknownPriceError):
                table.find("prod-chat", at=NOW, **how)
            continue
        alias = table.find("prod-chat", at=NOW, **how)
        usage = priced_part(expected, Usage(**counted), NOW)[0]  # type: ignore[arg-type]
        assert alias.model == "prod-chat"
        assert alias.cost(usage, NOW) == expected.cost(usage, NOW)
        limits = ("provider", "max_output", "context_window", "capabilities", "own_tools")
        assert [getattr(alias, each) for each in limits] == [getattr(expected, each) for each in limits]
        try:
            assert alias.worst(read, written) == expected.worst(read, written)
        except UnknownPriceError:
            with pytest.raises(UnknownPriceError):
                expected.worst(read, written)
