"""The local provider's list prices, which were written by hand, are those of the bundled table."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard.pricing import PriceTable
from budget_guard.testing import DEFAULT_RATES
from budget_guard.units.usage import Usage


@pytest.mark.parametrize("model", DEFAULT_RATES)
def test_a_model_costs_what_the_table_says(model: str) -> None:
    price = PriceTable.bundled().find(model)
    buckets = ["input", "cache_read", "output", "reasoning"]
    if model.startswith("claude"):
        buckets += ["cache_write_5m", "cache_write_1h", "web_search"]
    for bucket in buckets:
        used: dict[str, Any] = {bucket: 1_000}
        usage = Usage(**used)
        assert DEFAULT_RATES[model].cost_nano(usage) == price.cost(usage), bucket


@pytest.mark.parametrize("model", DEFAULT_RATES)
def test_a_long_call_costs_what_the_table_says_or_is_not_known(model: str) -> None:
    long = Usage(input=500_000)
    assert DEFAULT_RATES[model].cost_nano(long) in (None, PriceTable.bundled().find(model).cost(long))
