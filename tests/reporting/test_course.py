"""What was spent at which time: bounded, in order, and exact at the end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from budget_guard.reporting.course import Course, SpentAt, thinned
from budget_guard.reporting.posting import Posting
from budget_guard.units.amounts import Amounts


def posting(at_s: float, cost: int) -> Posting:
    return Posting(at_s, "id", "dime", Amounts(cost, 3, 2, 5, 1), 0, False, False, False)


@given(st.integers(0, 3_000))
def test_however_many_calls_there_were_the_points_are_few_and_the_last_one_is_exact(calls: int) -> None:
    course = Course()
    for number in range(calls):
        course.note(posting(number, 10))

    points = course.points()

    assert len(points) <= 300
    assert [point.at_s for point in points] == sorted(point.at_s for point in points)
    assert all(point.cost == 10 * (point.at_s + 1) for point in points)
    assert len({later.at_s - earlier.at_s for earlier, later in pairwise(points[:-1])}) <= 1, "as many calls to each"
    if calls:
        assert points[-1] == SpentAt(calls - 1, 10 * calls, 3 * calls, 2 * calls, calls, 0)
    else:
        assert points == []


def test_a_few_calls_are_a_point_each() -> None:
    course = Course()
    for number in range(50):
        course.note(posting(number, 1))
    assert [point.cost for point in course.points()] == list(range(1, 51))


def test_what_is_taken_out_again_does_not_go_back_in_time() -> None:
    course = Course()
    course.note(posting(1, 100))
    course.note(posting(5, 10))
    course.note(posting(1, 100).negative())
    assert [(point.at_s, point.cost) for point in course.points()] == [(1, 100), (5, 110), (5, 10)]


@given(st.integers(0, 500), st.integers(2, 100))
def test_what_is_thinned_out_keeps_its_end(count: int, most: int) -> None:
    points = [SpentAt(float(n)) for n in range(count)]
    few = thinned(points, most)
    assert len(few) <= most and few[-1:] == points[-1:]
    assert few == sorted(few)
