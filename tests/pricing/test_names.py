"""Names that stand for a model: aliases, ARNs, fine-tunes, routes, and names whose provider nobody knows."""

from __future__ import annotations

import difflib
import pickle
import re
from ast import literal_eval
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.table import PriceLike, PriceTable
from budget_guard.units.usage import Usage

TABLE = PriceTable.bundled()
NANO = 10**9
M = 1_000_000
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def cost(model: str, usage: Usage, table: PriceTable = TABLE, **how: Any) -> Decimal:
    return Decimal(table.find(model, at=NOW, **how).cost(usage, NOW)) / NANO


# --- aliases -----------------------------------------------------------------------------------------------


def test_an_alias_has_the_whole_card_of_its_target() -> None:
    table = TABLE.overlaid({"prod-chat": "gpt-4o"})
    # 6,000 x 2.5 + 4,000 cached x 1.25 + 1,000 x 10, per M, and two file searches
    usage = Usage(6000, 4000, output=1000, other=(("file_search", 2),))
    assert cost("prod-chat", usage, table) == Decimal("0.035")
    price = table.find("prod-chat", provider="azure")
    assert (price.model, price.provider, price.max_output) == ("prod-chat", "azure", 16_384)
    assert cost("prod-chat", usage._replace(other=()), table, provider="azure") == Decimal("0.03")
    assert "vision" in (price.capabilities or ())


def test_an_alias_may_stand_for_a_price_of_the_users_own() -> None:
    table = TABLE.overlaid({"prod": "mine", "mine": (1e-6, 2e-6)})
    assert cost("prod", Usage(M, output=M), table) == 3
    assert cost("late", Usage(M), table.overlaid({"late": "mine"})) == 1


def test_an_alias_takes_its_target_from_another_provider_than_the_one_that_is_called() -> None:
    table = TABLE.overlaid({"prod": "claude-sonnet-4-5"})
    assert cost("prod", Usage(100_000), table, provider="openai") == Decimal("0.3")
    with pytest.raises(UnknownPriceError, match="service_tier"):
        table.find("prod", provider="openai", service_tier="priority")


def test_a_tier_that_the_called_provider_lacks_is_not_taken_from_another() -> None:
    table = TABLE.overlaid({"prod": "gpt-5"})
    with pytest.raises(UnknownPriceError, match="service_tier"):
        table.find("prod", provider="azure", service_tier="priority")


@pytest.mark.parametrize(
    ("pricing", "told"),
    [
        ({"prod": "gpt-4oo"}, "pricing['prod']='gpt-4oo' is not a price, nor a model with a known price: did you mean"),
        ({"prod": "gpt-4oo"}, "'gpt-4o'"),
        ({"prod": "prod"}, "is an alias itself"),
        ({"a": "b", "b": "gpt-4o"}, "pricing['a']='b': 'b' is an alias itself"),
        ({"a": "b", "b": "a"}, "is an alias itself"),
        ({"a": ""}, "is not a price"),
    ],
)
def test_an_alias_that_leads_nowhere_is_refused_when_it_is_given(pricing: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        TABLE.overlaid(pricing)


def test_an_alias_changes_the_basis() -> None:
    basis = TABLE.overlaid({"prod": "gpt-4o"}).basis
    assert basis != TABLE.overlaid({"prod": "gpt-5"}).basis != TABLE.basis


# --- per million -------------------------------------------------------------------------------------------


def test_a_price_per_million_is_that_of_tokens_and_not_of_uses() -> None:
    uses = {"web_search": 0.01, "other": {"runs": 0.02}}
    per_million: dict[str, PriceLike] = {"m": (2.5, 10), "n": {"input": "0.3", "output": 1, **uses}}
    table = TABLE.overlaid(per_million=per_million)
    assert table.find("m").cost(Usage(M, output=M)) == Decimal("12.5") * NANO
    assert table.find("n").cost(Usage(M, web_search=1, other=(("runs", 1),))) == Decimal("0.33") * NANO
    assert table.basis == TABLE.overlaid({"m": (2.5e-6, 1e-5), "n": {"input": 3e-7, "output": 1e-6, **uses}}).basis


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pricing": {"m": (2.5, 10)}}, "pricing['m']['input']=2.5 is more than $0.01 a token: if it is a price per"),
        ({"pricing": {"m": (2.5, 10)}}, 'per_million={"m": ...}'),
        ({"pricing": {"m": {"input": 0, "cache_read": "0.011"}}}, "pricing['m']['cache_read']='0.011' is more than"),
        ({"per_million": {"m": (2.5e-6, 1e-5)}}, "is less than $0.0001 per million tokens"),
        ({"per_million": {"m": (10_001, 1)}}, "is more than $0.01 a token"),
        ({"per_million": {"m": "2.5"}}, "is not a price"),
        ({"per_million": {"m": (1,)}}, "(2.5, 10) for dollars per million"),
        ({"pricing": {"m": (0, 0)}, "per_million": {"m": (1, 1)}}, "give its price once"),
    ],
)
def test_a_price_in_the_wrong_unit_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        TABLE.overlaid(**given)


def test_a_cent_a_token_and_nothing_at_all_are_prices() -> None:
    assert TABLE.overlaid({"m": (0.01, 0)}).find("m").cost(Usage(1)) == NANO // 100
    assert TABLE.overlaid(per_million={"m": (10_000, 0)}).find("m").cost(Usage(1)) == NANO // 100


# --- fine-tunes, ARNs, routes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dollars"),
    [  # 6,000 in, 4,000 of them cached beside it, 1,000 out
        ("ft:gpt-4o-2024-08-06:acme::9abc", "0.045"),
        ("ft:gpt-4o-mini-2024-07-18:acme:support:9abc", "0.0036"),
        ("ft:gpt-3.5-turbo-0125:acme::9abc", "0.036"),
        ("ft:gpt-4.1-2025-04-14:acme::9abc", "0.033"),
        ("ft:gpt-4.1-mini-2025-04-14:acme::9abc:ckpt-step-60", "0.0088"),
        ("ft:gpt-4.1-nano-2025-04-14:acme::9abc", "0.0022"),
        ("ft:o4-mini-2025-04-16:acme::9abc", "0.044"),
    ],
)
def test_a_tuned_model_has_its_own_price(name: str, dollars: str) -> None:
    assert cost(name, Usage(6000, 4000, output=1000)) == Decimal(dollars)
    base = name.split(":")[1]
    assert TABLE.find(name).max_output in (None, TABLE.find(base).max_output)


def test_a_tuned_model_without_a_price_is_never_that_of_its_base() -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("ft:gpt-5-mini-2025-08-07:acme::9abc")
    assert "more than its base" in str(caught.value)
    assert "(2.5e-7, 2e-6)" not in str(caught.value)


REGIONAL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.mark.parametrize("provider", [None, "bedrock"])
@pytest.mark.parametrize(
    ("arn", "name"),
    [
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{REGIONAL}", REGIONAL),
        (f"bedrock/converse/arn:aws:bedrock:us-east-1:123456789012:inference-profile/{REGIONAL}", REGIONAL),
        ("arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0", REGIONAL),
        ("arn:aws:bedrock:us-west-2::foundation-model/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
    ],
)
def test_an_arn_that_carries_the_id_has_its_price(arn: str, name: str, provider: str | None) -> None:
    usage = Usage(10_000, output=1000)
    assert cost(arn, usage, provider=provider) == cost(name, usage, provider="bedrock")


def test_an_arn_of_a_region_that_costs_more_is_refused() -> None:
    with pytest.raises(UnknownPriceError, match="eu-central-1"):
        TABLE.find("arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-pro-v1:0")


def test_an_arn_without_an_id_is_refused_with_the_alias_that_admits_it() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    with pytest.raises(UnknownPriceError, match="name the model that it is"):
        TABLE.find(arn, provider="bedrock")
    assert cost(arn, Usage(M), TABLE.overlaid({arn: REGIONAL}), provider="bedrock") == Decimal("3.3")


def test_a_location_in_a_vertex_path_is_a_region() -> None:
    path = "projects/p/locations/{}/publishers/anthropic/models/claude-sonnet-4-5@20250929"
    usage = Usage(100_000)
    assert cost(path.format("us-east5"), usage) == Decimal("0.33")
    assert cost(path.format("global"), usage, provider="vertex") == Decimal("0.3")


def test_a_route_may_lead_to_the_dearest_provider_of_the_model() -> None:
    name = "meta-llama/llama-3.3-70b-instruct"
    usage = Usage(M, output=M)
    for route in ("nitro", "floor", "exacto"):
        routed = TABLE.find(f"{name}:{route}", provider="openrouter", at=NOW)
        for seller in ("openrouter", "novita", "huggingface-novita"):
            try:
                assert routed.cost(usage) >= TABLE.find(name, provider=seller, at=NOW).cost(usage)
            except UnknownPriceError:
                continue
    assert cost("openrouter/openai/gpt-4o:nitro", Usage(M)) == Decimal("2.5")


def test_a_free_variant_of_a_known_model_is_free_and_of_no_other() -> None:
    assert cost("deepseek/deepseek-chat-v3.1:free", Usage(M, output=M), provider="openrouter") == 0
    for name in ("nobody/nothing:free", "openai/gpt-4o:free:online"):
        with pytest.raises(UnknownPriceError):
            TABLE.find(name, provider="openrouter")
    with pytest.raises(UnknownPriceError):
        TABLE.find("gpt-4o:free", provider="openai")


def test_searches_that_a_route_adds_have_no_price_and_the_remedy_shows_where_to_put_it() -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("openai/gpt-4o:online", provider="openrouter")
    given = '{"openai/gpt-4o:online": {"input": 2.5e-6, "output": 1e-5, "requests": 0.02}}'
    assert f"pricing={given}" in caught.value.remedy
    table = TABLE.overlaid(literal_eval(given))
    assert cost("openai/gpt-4o:online", Usage(M), table, provider="openrouter") == Decimal("2.52")


# --- names whose provider nobody knows ---------------------------------------------------------------------


@pytest.mark.parametrize("provider", [None, "MyChatModel"])
def test_an_exact_name_without_a_known_provider_has_the_dearest_price(provider: str | None) -> None:
    usage = Usage(M, output=M)
    # 0.59/0.79 a million at groq, the only one who has this name
    assert cost("llama-3.3-70b-versatile", usage, provider=provider) == Decimal("1.38")
    assert cost("gpt-4o", usage, provider=provider) >= Decimal("12.5")
    assert cost("claude-sonnet-4-5", usage, provider=provider) >= 18


def test_a_name_that_is_not_exact_needs_its_provider() -> None:
    with pytest.raises(UnknownPriceError):
        TABLE.find("gpt-4o-2024-09-09", provider="MyChatModel")
    assert cost("claude-sonnet-4-5-20251111", Usage(100_000), provider="anthropic") == Decimal("0.3")
    with pytest.raises(UnknownPriceError):
        TABLE.find("claude-sonnet-4-5-20251111", provider="MyChatModel")


@pytest.mark.parametrize("provider", ["ollama", "vllm", "lmstudio", "localhost"])
@pytest.mark.parametrize("model", ["llama3.2", "gpt-oss-20b"])
def test_a_model_of_a_local_server_is_to_be_declared_free(provider: str, model: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find(model, provider=provider)
    assert f'pricing={{"{model}": (0, 0)}}' in str(caught.value)
    assert caught.value.suggestions == ()


# --- remedies ----------------------------------------------------------------------------------------------


def test_a_remedy_shows_the_real_price_of_the_nearest_model() -> None:
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("gpt-4o-mini-foo", provider="openai")
    assert 'pricing={"gpt-4o-mini-foo": (1.5e-7, 6e-7)} (that of gpt-4o-mini)' in str(caught.value)
    assert 'pricing={"gpt-4o-mini-foo": "gpt-4o-mini"}' in str(caught.value)


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("text-embedding-3-small", Usage(output=1)),
        ("tts-1", Usage(1)),
        ("gpt-4.1", Usage(other=(("sandbox", 1),))),
        ("claude-sonnet-4-5", Usage(output_audio=1)),
        ("gemini-2.5-flash", Usage(output_image=1)),
    ],
)
def test_the_remedy_for_a_unit_names_each_price_once_and_keeps_the_others(model: str, usage: Usage) -> None:
    known = TABLE.find(model, at=NOW)
    with pytest.raises(UnknownPriceError) as caught:
        known.cost(usage)
    given = re.search(r"pricing=(\{.*\})", caught.value.remedy)
    assert given is not None
    keys = re.findall(r'"([^"]+)":', given[1])
    assert len(keys) == len(set(keys))
    table = TABLE.overlaid(literal_eval(given[1]))
    assert table.find(model).cost(usage) > 0
    for bucket in ("input", "output", "cache_read"):
        part = Usage(**{bucket: M})  # type: ignore[arg-type]
        try:
            expected = known.cost(part)
        except UnknownPriceError:
            continue
        assert table.find(model).cost(part) >= expected, "the same, or that of the largest calls"


def test_suggestions_are_worked_out_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[str] = []
    search = difflib.get_close_matches

    def count(name: str, *args: Any, **kwargs: Any) -> list[str]:
        searches.append(name)
        return search(name, *args, **kwargs)

    class Stop(UnknownPriceError):
        pass

    monkeypatch.setattr(difflib, "get_close_matches", count)
    with pytest.raises(UnknownPriceError) as caught:
        TABLE.find("gpt-4o-mini-foo", provider="openai")
    stop = caught.value.recast(Stop)
    assert not searches
    text = str(caught.value)
    assert searches
    assert str(stop) == text
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == text
    assert again.fields() == caught.value.fields()
    assert again.suggestions[0] == "gpt-4o-mini"
    assert repr(again) == f"UnknownPriceError({text!r})"
