"""What becomes of old rows of the usage history, as a plain walk through them tells it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from budget_guard.ledger.history import BEFORE, DAY, NO_LABELS, OTHERS, ZERO, Kept, Labels, Quantities, plus, rolled_up

MOST = 3
NOW = 30 * DAY + 5
Rows = Mapping[tuple[int, Labels], Quantities]


def naive(rows: Rows, kept: Kept, kind: str) -> dict[tuple[int, Labels], Quantities]:
    """All rows as they are to be in the end."""
    days = kept.run_days if kind == "run" else kept.days
    found: dict[tuple[int, Labels], Quantities] = {}
    for (hour, labels), row in sorted(rows.items()):
        into = (hour, labels)
        if hour // DAY < NOW // DAY - days:
            into = (BEFORE, labels if hour == BEFORE else NO_LABELS)
        elif hour // DAY < (NOW - kept.hours) // DAY:
            day = hour // DAY * DAY
            told_apart = {each for at, each in found if at == day} - {OTHERS}
            into = (day, labels if labels in told_apart or len(told_apart) < MOST else OTHERS)
        found[into] = plus(found.get(into, ZERO), row)
    return found


@pytest.mark.parametrize("kind", ["run", "user"])
@pytest.mark.parametrize("seed", range(12))
def test_old_rows_are_those_of_a_day_and_the_oldest_one_for_all(
    seed: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budget_guard.ledger.history.MOST_LABELS", MOST)
    chance, kept = random.Random(seed), Kept(hours=2 * DAY, days=9, run_days=4)
    rows: dict[tuple[int, Labels], Quantities] = {}
    for _ in range(60):
        hour = chance.choice([BEFORE, *range(NOW - 14 * DAY, NOW, 7), NOW])
        labels = NO_LABELS if hour == BEFORE else Labels(model=f"m{chance.randrange(6)}")
        rows[hour, labels] = plus(ZERO, [chance.randrange(9) for _ in ZERO])
    gone, changed = rolled_up(rows, NOW, kept, kind)
    left = {key: row for key, row in rows.items() if key not in set(gone)} | dict(changed)
    expected = naive(rows, kept, kind)
    assert left == expected
    assert len(set(gone)) == len(gone) > 0 and set(gone) <= set(rows)
    assert all(rows.get(key) != row for key, row in changed.items())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *(({"hours": bad}, "hours") for bad in (23, 24.0, True, "24", None, 10**6 + 1)),
        *(({"days": bad}, "days") for bad in (31, 32.0, True, 10**6 + 1)),
        *(({"run_days": bad}, "run_days") for bad in (0, 1.0, True, 10**6 + 1)),
        ({"hours": 25, "run_days": 1}, "hours=25"),
        ({"hours": 32 * DAY + 1, "days": 32}, "hours=769"),
    ],
)
def test_a_time_to_keep_rows_that_makes_no_sense_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Kept(**given).check()


@pytest.mark.parametrize("kept", [Kept(24, 32, 1), Kept(24 * 32, 32, 32), Kept(10**6, 10**6, 10**6)])
def test_a_time_to_keep_rows_at_the_edge_of_sense_is_taken(kept: Kept) -> None:
    assert kept.check() == kept
