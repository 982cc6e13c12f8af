"""What tools and searches cost beside tokens: under the names that documents list, each by the provider's own rule."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.table import PriceData, PriceTable
from budget_guard.units.usage import Usage

TABLE = PriceTable.bundled()
NANO = 10**9
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def uses(unit: str, times: int) -> Usage:
    return Usage(web_search=times, requests=0) if unit == "web_search" else Usage(requests=0, other=((unit, times),))


@pytest.mark.parametrize(
    ("model", "unit", "per_thousand"),
    [
        ("gpt-4.1", "web_search", "10"),
        ("gpt-4.1", "web_search_preview", "25"),
        ("gpt-5", "web_search_preview", "10"),
        ("o3-pro", "web_search", "10"),
        ("gpt-4.1", "file_search", "2.5"),
        ("gpt-4.1", "storage_searches", "2.5"),
        ("gpt-5", "code_interpreter", "30"),
        ("gpt-5", "code_interpreter_64g", "1920"),
        ("claude-sonnet-4-5", "web_search", "10"),
        ("claude-sonnet-4-5", "web_fetch", "0"),
        ("claude-opus-5-5", "code_execution", "50"),
        ("gemini-3.8-flash", "web_search", "14"),
        ("gemini-3.8-flash", "google_search", "14"),
        ("gemini-3.8-flash", "google_maps", "14"),
        ("gemini-3.8-flash", "url_context", "0"),
        ("grok-4", "web_search", "5"),
        ("grok-4", "x_search", "5"),
        ("grok-4", "code_execution", "5"),
        ("grok-4", "collections_search", "2.5"),
        ("sonar-deep-research", "web_search", "5"),
        ("sonar-deep-research", "output_citation_tokens", "0.002"),
    ],
)
def test_a_tool_costs_what_the_provider_lists(model: str, unit: str, per_thousand: str) -> None:
    assert TABLE.find(model, at=NOW).cost(uses(unit, 1000)) == Decimal(per_thousand) * NANO


@pytest.mark.parametrize(
    ("model", "fee"),
    [
        ("gpt-4o-search-preview", "0.025"),
        ("gpt-4o-mini-search-preview", "0.025"),
        ("gpt-4o-mini-search-preview-2025-03-11", "0.025"),
        ("gpt-5-search-api", "0.01"),
        ("gpt-5-search-api-2025-10-14", "0.01"),
        ("sonar", "0.012"),
        ("gpt-4o-mini", "0"),
    ],
)
def test_a_model_that_searches_on_every_call_has_a_fee_for_each(model: str, fee: str) -> None:
    price = TABLE.find(model, at=NOW)
    assert price.worst(0, 0) == price.cost(Usage()) == Decimal(fee) * NANO
    if fee != "0":
        assert price.cost(Usage(web_search=1)) == Decimal(fee) * NANO, "the search is what the request is charged for"


def test_a_grounded_prompt_is_billed_once_before_gemini_3() -> None:
    old, new = TABLE.find("gemini-2.5-flash", at=NOW), TABLE.find("gemini-3.8-flash", at=NOW)
    usage = Usage(web_search=5, other=(("google_maps", 3),))
    assert old.cost(usage) == Decimal("0.060") * NANO
    assert old.cost(usage._replace(requests=2)) == Decimal("0.120") * NANO
    assert old.cost(uses("web_search", 5)) == Decimal("0.035") * NANO
    assert new.cost(usage) == Decimal("0.112") * NANO


def test_deep_research_says_that_it_searches_unasked() -> None:
    price = TABLE.find("sonar-deep-research")
    assert price.own_tools == ("web_search",)
    assert TABLE.find("sonar").own_tools == TABLE.find("gpt-4o").own_tools == ()
    # 108 x 2 + 3,256 x 8 + 7,299 citations x 2 + 73,248 thoughts x 3, per M, and 74 searches at 5 per 1,000
    usage = Usage(108, output=3256, reasoning=73_248, web_search=74, other=(("output_citation_tokens", 7299),))
    assert price.cost(usage) == Decimal("0.630606") * NANO


def test_who_resells_a_model_has_no_price_for_the_tools_of_its_maker() -> None:
    price = TABLE.find("gpt-4o", provider="azure")
    assert price.cost(Usage(1_000_000)) == Decimal("2.5") * NANO
    for usage in (uses("web_search", 1), uses("file_search", 1), uses("code_interpreter", 1)):
        with pytest.raises(UnknownPriceError):
            price.cost(usage)


def test_pictures_that_an_image_model_writes_have_its_output_price() -> None:
    assert TABLE.find("gpt-image-1", at=NOW).cost(Usage(output_image=1_000_000)) == 40 * NANO


def test_a_unit_with_an_older_name_may_be_given_and_used_under_either() -> None:
    price = TABLE.overlaid({"m": {"input": 0, "storage_searches": 0.5}}).find("m")
    assert price.cost(uses("file_search", 1)) == price.cost(uses("storage_searches", 1)) == NANO // 2


def test_the_docs_list_every_unit_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prices.md").read_text("utf-8")
    data: PriceData = TABLE._bundle  # pyright: ignore[reportPrivateUsage]
    missing = [unit for unit in data.units if not re.search(rf"`{unit}`", page)]
    assert not missing
