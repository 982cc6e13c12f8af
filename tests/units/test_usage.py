"""Which buckets of a usage each total is made of."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard import Usage

TOTALS = ("input_tokens", "output_tokens", "cached", "cache_written", "total_tokens")
IN = {"input_tokens", "total_tokens"}
OUT = {"output_tokens", "total_tokens"}
BUCKETS = {
    "input": IN,
    "cache_read": IN | {"cached"},
    "cache_write_5m": IN | {"cache_written"},
    "cache_write_1h": IN | {"cache_written"},
    "input_audio": IN,
    "cache_audio": IN | {"cached"},
    "input_image": IN,
    "output": OUT,
    "reasoning": OUT,
    "output_audio": OUT,
    "output_image": OUT,
    "web_search": set[str](),
    "requests": set[str](),
}
UNITS = {
    "input_video_tokens": IN,
    "cache_image_read_tokens": IN,
    "output_video_tokens": OUT,
    "unexplained_tokens": OUT,
    "web_fetch": set[str](),
}


def counted_in(usage: Usage, plain: Usage, count: int) -> set[str]:
    """The totals that are *count* more in *usage* than in *plain*; all others must be the same."""
    more = {name: getattr(usage, name) - getattr(plain, name) for name in TOTALS}
    assert set(more.values()) <= {0, count}
    return {name for name, each in more.items() if each}


def test_each_bucket_is_in_the_totals_that_it_belongs_to() -> None:
    assert Usage._fields == (*BUCKETS, "other")
    for other in ((), (("web_fetch", 3),)):
        plain = Usage(other=other)
        assert {
            name: counted_in(plain._replace(**{name: getattr(plain, name) + 7}), plain, 7) for name in BUCKETS
        } == BUCKETS


@pytest.mark.parametrize("others", [{}, {"input": 5, "output": 11}])
def test_each_unit_without_a_bucket_is_in_the_totals_that_it_belongs_to(others: dict[str, Any]) -> None:
    plain = Usage()._replace(**others)
    assert {name: counted_in(plain._replace(other=((name, 7),)), plain, 7) for name in UNITS} == UNITS


def test_a_call_without_any_usage_is_one_request() -> None:
    assert (Usage().requests, sum(Usage()[:-1]), Usage().other) == (1, 1, ())
