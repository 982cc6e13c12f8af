"""The machine's own clock."""

from __future__ import annotations

import time

import pytest

from budget_guard.clock import SystemClock


def test_ids_made_later_sort_later_even_if_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, times = SystemClock(), iter([5_000_000, 9_000_000, 7_000_000, 10_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    assert [clock.now_ms() for _ in range(4)] == [5, 9, 9, 10]
