"""What a ledger takes as amounts: whole numbers, up to the very largest and no further."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from budget_guard.ledger import checks
from budget_guard.ledger.base import MOST_LIMIT
from budget_guard.ledger.history import Labels, UsageLine, clean
from budget_guard.ledger.hold_id import MOST_LENGTH
from budget_guard.units.amounts import DIMENSIONS, MOST, Amounts, Limits


class Size(enum.IntEnum):
    """Integers of another type."""

    LARGE = 7


ACCEPTED: dict[str, tuple[Any, bool, bool]] = {
    # what it is, and whether it can be an amount and a change
    "nothing": (0, True, True),
    "one": (1, True, True),
    "all that is taken": (MOST, True, True),
    "one more": (MOST + 1, False, False),
    "twice as much": (2 * MOST + 1, False, False),
    "less than nothing": (-1, False, True),
    "all that is taken back": (-MOST, False, True),
    "one more taken back": (-MOST - 1, False, False),
    "an integer of another type": (Size.LARGE, True, True),
    "a float": (1.0, False, False),
    "no number": (float("nan"), False, False),
    "a text": ("1", False, False),
    "None": (None, False, False),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_amounts_are_whole_numbers_that_a_ledger_can_hold(name: str) -> None:
    value, as_amount, as_change = ACCEPTED[name]
    for i, others in itertools.product(range(len(DIMENSIONS)), (0, 1, -1, MOST)):
        given = Amounts._make(value if n == i else others for n in range(len(DIMENSIONS)))
        for check, accepted in (
            (checks.checked_amounts, as_amount and others >= 0),
            (checks.checked_change, as_change),
        ):
            verify: Callable[[Any], Any] = check
            if accepted:
                assert verify(given) == given and all(isinstance(each, int) for each in verify(given))
            else:
                with pytest.raises(ValueError, match="must be whole numbers from"):
                    verify(given)


@pytest.mark.parametrize("cost", [-MOST - 1, -MOST, -1, 0, 1, MOST, MOST + 1])
@pytest.mark.parametrize("requests", [-1, 0, MOST, MOST + 1])
def test_of_the_room_that_a_call_needs_the_cost_alone_may_be_negative(cost: int, requests: int) -> None:
    room = (cost, 0, 0, 0, requests, 0)
    if -MOST <= cost <= MOST and 0 <= requests <= MOST:
        assert tuple(checks.checked_room(room)) == room
    else:
        with pytest.raises(ValueError, match="must be whole numbers from"):
            checks.checked_room(room)


def test_a_time_to_live_has_an_end_and_is_not_over_yet() -> None:
    for seconds in (5e-324, 1, 1e300):
        checks.check_ttl(seconds)
    for seconds in (0, -1, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=f"ttl_s={seconds!r} must be"):
            checks.check_ttl(seconds)


@pytest.mark.parametrize("name", Limits._fields)
def test_a_limit_is_none_or_a_whole_number_up_to_the_largest(name: str) -> None:
    for limit in (None, 0, 1, MOST_LIMIT, Size.LARGE):
        checks.check_limits(Limits(**{name: limit}))
    for unfit in (-1, MOST_LIMIT + 1, 1.0, "1", math.nan):
        with pytest.raises(ValueError, match=f"{name}={unfit!r} must be None or"):
            checks.check_limits(Limits(**{name: unfit}))  # type: ignore[arg-type]


def test_what_the_history_is_told_are_whole_numbers_and_its_labels_are_cleaned() -> None:
    line = UsageLine(Labels("f\ud800", "a"), Amounts(cost=-MOST, requests=MOST), uncertain=MOST, cached=-MOST)
    (checked,) = checks.checked_lines([line])
    assert checked == line._replace(labels=clean(line.labels)) and checked.labels != line.labels
    assert len(checks.checked_lines([])) == len(checks.checked_lines(())) == 0
    again = checks.checked_lines([line])
    assert checks.checked_lines(again) is again
    for unfit in (-MOST - 1, MOST + 1, 1.0, None, True):
        for changed in (line._replace(reasoning=unfit), line._replace(amounts=Amounts(tool_calls=unfit))):  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="must have whole numbers of at most"):
                checks.checked_lines([line, changed])


def test_a_name_has_one_to_as_many_characters_as_an_id() -> None:
    for name in ("a", "x" * MOST_LENGTH):
        checks.check_place(name)
    unfit: list[Any] = ["", "x" * (MOST_LENGTH + 1), None, 7, b"a"]
    for each in unfit:
        with pytest.raises(ValueError, match="must be a text of 1 to"):
            checks.check_place(each)


@pytest.mark.parametrize(
    ("id", "taken"),
    [
        ("0123456789ab-x", True),
        ("0123456789ab-" + "x" * (MOST_LENGTH - 13), True),
        ("0123456789ab-" + "x" * (MOST_LENGTH - 12), False),
        ("0123456789ab", False),
        ("0123456789abx", False),
        ("0123456789AB-x", False),
        ("0123456789a-xx", False),
        ("0123456789ab-\ud800", False),
        ("", False),
        (None, False),
        (b"0123456789ab-x", False),
    ],
)
def test_an_id_is_a_time_and_a_name(id: Any, taken: bool) -> None:
    if taken:
        checks.check_id(id)
    else:
        with pytest.raises(ValueError, match="hold_id="):
            checks.check_id(id)
