"""Windows of time, and what has none."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from budget_guard.units.scope import Window, window_end, window_start

AT = datetime(2026, 12, 31, 23, 59, 30, tzinfo=timezone.utc)
NEXT = datetime(2027, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        ("minute", AT.replace(second=0), NEXT),
        ("hour", AT.replace(minute=0, second=0), NEXT),
        ("day", datetime(2026, 12, 31, tzinfo=timezone.utc), NEXT),
        ("week", datetime(2026, 12, 28, tzinfo=timezone.utc), datetime(2027, 1, 4, tzinfo=timezone.utc)),
        ("month", datetime(2026, 12, 1, tzinfo=timezone.utc), NEXT),
    ],
)
def test_a_window_begins_and_ends_by_the_calendar(window: Window, start: datetime, end: datetime) -> None:
    assert window_start(window, AT) == start
    assert window_end(window, start) == end
    assert window_start(window, end) == end
    assert window_start(window, end - timedelta(microseconds=1)) == start


def test_what_has_no_window_never_begins_anew() -> None:
    assert window_start("none", AT) is None
    with pytest.raises(ValueError, match="'none' has no end"):
        window_end("none", AT)
