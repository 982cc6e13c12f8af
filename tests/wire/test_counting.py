"""Reported counts are read the dearest way that is consistent, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard.pricing.table import PriceTable
from budget_guard.units.usage import Usage
from budget_guard.wire.counting import Counts, added, read_counts, with_events, with_long_writes


def read(*counts: Any, **more: Any) -> Usage | None:
    return read_counts(Counts(*counts), **more).usage


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        pytest.param(Counts(10, 5, 15), Usage(input=10, output=5), id="plain"),
        pytest.param(Counts(10, 5, 15, cache_read=4, reasoning=2), Usage(6, 4, output=3, reasoning=2), id="inside"),
        pytest.param(Counts(12, 1, 399, reasoning=386), Usage(12, output=1, reasoning=386), id="xai: reasoning beside"),
        pytest.param(
            Counts(10_120, 1_499, 14_428, cache_read=128, reasoning=2_809),
            Usage(9_992, 128, output=1_499, reasoning=2_809),
            id="xai: beside, and smaller than the answer or not",
        ),
        pytest.param(
            Counts(300, 4_000, 4_320, reasoning=20), Usage(300, output=4_000, reasoning=20), id="xai: smaller"
        ),
        pytest.param(Counts(20, 198, 623), Usage(20, output=603), id="gemini: the total alone tells of thoughts"),
        pytest.param(Counts(21, 0, 81, reasoning=60), Usage(21, reasoning=60), id="gemini: no answer but thoughts"),
        pytest.param(Counts(21, 5, 90, reasoning=60), Usage(21, output=9, reasoning=60), id="and a rest nobody names"),
        pytest.param(Counts(100, 10, 310, cache_read=200), Usage(100, 200, output=10), id="cached beside the input"),
        pytest.param(
            Counts(100, 10, cache_read=200), Usage(100, 200, output=10), id="cached above the input, no total"
        ),
        pytest.param(Counts(100, 10, cache_read=50), Usage(100, 50, output=10), id="no total: beside is the dearer"),
        pytest.param(Counts(100, 10, reasoning=5), Usage(100, output=10, reasoning=5), id="no total, reasoning"),
        pytest.param(Counts(100, 10, 50, cache_read=50), Usage(100, 50, output=10), id="a total below its parts"),
        pytest.param(Counts(100, 10, 160, cache_read=50), Usage(100, 50, output=10), id="the total has them beside"),
        pytest.param(
            Counts(100, 10, 165, cache_read=50, reasoning=5), Usage(100, 50, output=10, reasoning=5), id="both beside"
        ),
        pytest.param(
            Counts(100, 10, 160, cache_read=50, reasoning=50),
            Usage(50, 50, output=10, reasoning=50),
            id="what may be either is output",
        ),
        pytest.param(Counts(100, 10, 161, cache_read=50), Usage(50, 50, output=61), id="a rest that fits nothing"),
        pytest.param(Counts(100, None, 110), Usage(100, output=10), id="the total tells what is missing"),
        pytest.param(Counts(None, 10, 110), Usage(100, output=10), id="and of the input"),
        pytest.param(
            Counts(100, 10, 110, cache_write=40), Usage(60, 0, 40, output=10), id="written, for how long not said"
        ),
        pytest.param(
            Counts(100, 10, 110, None, 40, 10, 30), Usage(60, 0, 10, 30, output=10), id="written, and for how long"
        ),
        pytest.param(
            Counts(100, 10, 110, None, 50, 10, 30), Usage(50, 0, 20, 30, output=10), id="written, some for how long"
        ),
        pytest.param(
            Counts(2_000, 500, 2_500, 0, input_audio=1_800, output_audio=400),
            Usage(200, input_audio=1_800, output=100, output_audio=400),
            id="sound",
        ),
        pytest.param(
            Counts(100, 10, 110, 80, input_audio=80),
            Usage(0, 20, input_audio=80, output=10),
            id="the cached tokens are sound",
        ),
        pytest.param(
            Counts(100, 10, 110, 30, input_audio=50, cache_audio=30),
            Usage(50, 0, input_audio=20, cache_audio=30, output=10),
            id="and it is said which",
        ),
        pytest.param(
            Counts(100, 900, 1_000, output_image=800, reasoning=50),
            Usage(100, output=50, reasoning=50, output_image=800),
            id="pictures",
        ),
    ],
)
def test_counts_that_add_up_one_way_are_read_that_way(counts: Counts, usage: Usage) -> None:
    assert read_counts(counts) == (usage, None)


@pytest.mark.parametrize("value", [-1, True, False, 1.0, 1.5, "7", [], {}, 2**53, 10**30, float("nan"), float("inf")])
@pytest.mark.parametrize("field", Counts._fields)
def test_what_is_no_count_makes_the_usage_unknown(field: str, value: Any) -> None:
    counts = Counts(100, 10, 110)._replace(**{field: value})
    usage, problem = read_counts(counts)

    assert usage is None
    assert problem is not None and field in problem
    assert str(value) not in problem or len(str(value)) < 3


@pytest.mark.parametrize(
    "counts",
    [
        Counts(),
        Counts(None, None, None),
        Counts(0, 0, 0),
        Counts(None, None, 1_500),
        Counts(0, 0, 1_500),
        Counts(0, 10, 10),
        Counts(10, 0, 10),
        Counts(10, None),
        Counts(None, 10),
        Counts(10, None, 5),
        Counts(None, 5, 5),
        Counts(2**52, 2**52, 2**53),
    ],
    ids=repr,
)
def test_zeros_and_gaps_are_not_knowledge(counts: Counts) -> None:
    usage, problem = read_counts(counts)

    assert usage is None
    assert problem


def test_zeros_are_known_where_there_was_nothing() -> None:
    assert read(10, 0, 10, answered=False) == Usage(10)
    assert read(0, 10, 10, prompted=False) == Usage(output=10)


def test_a_dialect_with_a_clear_convention_is_read_by_it() -> None:
    beside = read(5, 10, None, 90, 20, input_parts="beside", output_parts="inside")

    assert beside == Usage(5, 90, 20, output=10)
    assert read(0, 10, None, 0, 44_667, input_parts="beside") == Usage(0, 0, 44_667, output=10)
    assert read(100, 10, None, 50, input_parts="inside") == Usage(50, 50, output=10)
    assert read(100, 10, None, 150, input_parts="inside") == Usage(100, 150, output=10)


def test_a_one_hour_cache_is_booked_only_where_it_was_asked_for() -> None:
    assert read(100, 10, 110, None, 40, hour_cache=True) == Usage(60, 0, 0, 40, output=10)
    assert read(100, 10, 110, None, 40, 40, 0, hour_cache=True) == Usage(60, 0, 40, output=10)


sizes = st.integers(0, 10**6)


@st.composite
def truths(draw: st.DrawFn) -> tuple[Usage, Counts]:
    """A bill, and how a provider that keeps to some convention reports it."""
    plain, read, wrote, heard = draw(sizes) + 1, draw(sizes), draw(sizes), draw(sizes)
    written, thought, said = draw(sizes) + 1, draw(sizes), draw(sizes)
    usage = Usage(plain, read, wrote, input_audio=heard, output=written, reasoning=thought, output_audio=said)
    inputs_inside, outputs_inside = draw(st.booleans()), draw(st.booleans())
    counts = Counts(
        usage.input_tokens if inputs_inside else plain,
        usage.output_tokens if outputs_inside else written,
        draw(st.sampled_from([usage.total_tokens, None])),
        read or None,
        wrote or None,
        input_audio=heard,
        reasoning=thought,
        output_audio=said or None,
    )
    return usage, counts


_PRICES = [
    PriceTable.bundled().overlaid({"m": {"input": 2e-6, "output": 8e-6, "cache_read": 5e-7, "cache_write_5m": 2.5e-6,
    "input_audio": 4e-5, "cache_audio": 2.5e-6, "output_audio": 8e-5, "reasoning": 8e-6}}).find("m"),
    PriceTable.bundled().overlaid({"m": {"input": 1e-6, "output": 1e-6, "cache_read": 1e-6, "cache_write_5m": 1e-6,
    "input_audio": 1e-6, "cache_audio": 1e-6, "output_audio": 1e-6, "reasoning": 1e-6}}).find("m"),
]  # fmt: skip


@given(truths())
def test_a_truthful_report_is_never_read_below_the_bill_whatever_its_convention(truth: tuple[Usage, Counts]) -> None:
    bill, counts = truth
    usage = read_counts(counts).usage

    assert usage is not None
    assert usage.total_tokens >= bill.total_tokens
    if counts.total is not None and counts.input_audio == 0 and counts.output_audio is None:
        # where nobody says what a rest is, it is taken for written text, and not for sound
        for price in _PRICES:
            assert price.cost(usage) >= price.cost(bill)


@given(truths())
def test_a_report_of_openai_s_convention_is_read_exactly(truth: tuple[Usage, Counts]) -> None:
    bill, counts = truth
    inside = counts._replace(input=bill.input_tokens, output=bill.output_tokens, total=bill.total_tokens)

    assert read_counts(inside).usage == bill


anything = (
    st.none() | st.integers(-3, 300) | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(2**50, 2**80)
)


@given(st.lists(anything, min_size=13, max_size=13), st.sampled_from(["inside", "beside", "unsure"]), st.booleans())
def test_whatever_is_reported_there_is_a_sane_reading_or_a_reason(values: list[Any], where: Any, yes: bool) -> None:
    counts = Counts(*values)
    usage, problem = read_counts(
        counts, input_parts=where, output_parts=where, prompted=yes, answered=yes, hour_cache=yes
    )

    assert (usage is None) == (problem is not None)
    if usage is not None:
        assert all(type(count) is int and count >= 0 for count in usage[:-1])
        given_counts = [value for value in values if value is not None]
        assert all(type(value) is int and value >= 0 for value in given_counts)
        assert usage.total_tokens >= (counts.total or 0)
        assert usage.input_tokens >= (counts.input or 0)
        assert usage.output_tokens >= (counts.output or 0)


def test_usages_of_one_request_add_up() -> None:
    one, other = Usage(1, 2, output=3, other=(("x", 1),)), Usage(10, web_search=1, other=(("x", 2), ("y", 1)))

    assert added(one, other) == Usage(11, 2, output=3, web_search=1, other=(("x", 3), ("y", 1)))
    assert with_events(one, {"web_search": 2, "z": 1}) == one._replace(web_search=2, other=(("x", 1), ("z", 1)))


@pytest.mark.parametrize("written", [0, -1, None, "5", 2.0, True])
def test_nothing_written_for_long_is_no_unit_of_its_own(written: Any) -> None:
    usage = Usage(input=10, cache_write_5m=20)
    assert with_long_writes(usage, {"ttl_12h_tokens": written}) == usage


@pytest.mark.parametrize(("written", "short", "long"), [(1, 19, 1), (20, 0, 20), (30, 0, 20)])
def test_what_is_written_for_long_is_billed_as_such_and_once(written: int, short: int, long: int) -> None:
    usage = Usage(input=10, cache_write_5m=20, other=(("x", 1),))
    split = with_long_writes(usage, {"ttl_12h_tokens": written})
    assert split == usage._replace(cache_write_5m=short, other=(("x", 1), ("cache_write_12h", long)))
