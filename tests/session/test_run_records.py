"""Which run what was spent belongs to, and what its record says of it, as a plain list of events tells it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetExceeded
from budget_guard.events.model import CallAdmitted, CallBlocked, CallReleased, Tokens, UsageEvent
from budget_guard.session.run_records import Recording, RunRecords, RunTally, within
from budget_guard.testing import FakeClock
from tests.builders import session

AT = datetime(2026, 11, 1, tzinfo=timezone.utc)


class Kept(list[Any]):
    """Where records go."""

    def add(self, record: Any) -> None:
        self.append(record)


def booking(chance: random.Random, hold: str, before: tuple[int, Tokens] | None) -> UsageEvent:
    """A booking of a hold, which replaces what was booked *before*, if anything was."""
    cost_before, tokens_before = (0, Tokens()) if before is None else before
    return UsageEvent(
        at_s=0.0,
        id=hold if before is None else f"{hold}-again",
        at=AT,
        run_id="r",
        principals={},
        agent=None,
        task=None,
        kind="model" if chance.random() < 0.7 else "tool",
        name=chance.choice(["large", "small"]),
        asked="large",
        tokens=Tokens(input=chance.randrange(90), output=chance.randrange(90)),
        cost=chance.randrange(1, 900),
        source="price",
        uncertain=chance.random() < 0.4,
        unpriced=False,
        decision_id=hold,
        cost_before=cost_before,
        tokens_before=tokens_before,
    )


class Naive:
    """A run, as a list of what was booked in it."""

    def __init__(self, tally: RunTally, began_s: float) -> None:
        self.tally = tally
        self.began_s = began_s
        self.booked: list[UsageEvent] = []
        self.blocked: str | None = None
        self.over = False

    def record(self) -> dict[str, Any]:
        """What its record is to say."""
        models = [each for each in self.booked if each.kind == "model"]
        tools = [each for each in self.booked if each.kind == "tool"]

        def by_name(events: list[UsageEvent]) -> dict[str, int]:
            names = dict.fromkeys(each.name for each in events)
            return {
                name: max(0, sum(each.cost - each.cost_before for each in events if each.name == name))
                for name in names
            }

        return {
            "cost": max(0, sum(each.cost - each.cost_before for each in self.booked)),
            "uncertain": max(
                0, sum(each.cost * each.uncertain - each.cost_before * each.is_correction for each in self.booked)
            ),
            "input_tokens": max(0, sum(each.tokens.input - each.tokens_before.input for each in models)),
            "output_tokens": max(0, sum(each.tokens.output - each.tokens_before.output for each in models)),
            "calls": sum(not each.is_correction for each in models),
            "tool_calls": sum(not each.is_correction for each in tools),
            "by_model": by_name(models),
            "by_tool": by_name(tools),
        }


@pytest.mark.parametrize("seed", range(30))
def test_what_is_spent_belongs_to_the_run_that_it_was_admitted_in(seed: int) -> None:
    chance, clock, kept = random.Random(seed), FakeClock(), Kept()
    run = session(Budget("$5", task="write"), run_id="r", clock=clock)._run
    records = RunRecords(kept, run)
    hear: Callable[[Any], None] = records.of_run(None)  # type: ignore[arg-type]  # it takes no notice of who
    runs: list[Naive] = []
    admitted: dict[str, Naive | None] = {}
    booked: dict[str, tuple[int, Tokens]] = {}
    expected: list[dict[str, Any]] = []

    def over(each: Naive, outcome: str, blocked: str | None) -> None:
        each.over = True
        number = "" if runs.index(each) == 0 else f"#{runs.index(each) + 1}"
        fixed = {"id": f"r{number}", "outcome": outcome, "terminated_by": blocked, "task": "write"}
        expected.append({**fixed, **each.record(), "limit": 5 * 10**9, "seconds": clock.monotonic() - each.began_s})
        admitted.update({hold: None for hold, of in admitted.items() if of is each})

    for number in range(80):
        clock.advance(chance.choice([0, 1.5]))
        under_way = [each for each in runs if not each.over]
        here = chance.choice([None, *runs])
        likely = here if here is not None and not here.over else under_way[0] if len(under_way) == 1 else None
        with nullcontext() if here is None else within(records, here.tally):
            what = chance.choice(["admit", "admit", "book", "book", "book", "release", "block", "begin", "end"])
            hold = chance.choice([*list(admitted)[-6:], f"d{number}"])
            if what == "begin" and len(under_way) < 3:
                runs.append(Naive(records.begin(), clock.monotonic()))
            elif what == "admit":
                hear(CallAdmitted(0.0, f"d{number}", "model", "large", 10))
                admitted[f"d{number}"] = likely
                if likely is not None:
                    likely.blocked = None
            elif what == "book":
                event = booking(chance, hold, booked.get(hold))
                of = admitted.get(hold) or likely
                hear(event)
                booked[hold] = (event.cost, event.tokens)
                if of is not None:
                    of.booked.append(event)
                    if not event.uncertain:
                        admitted[hold] = None
            elif what == "release":
                hear(CallReleased(0.0, hold, "large", "429"))
                admitted[hold] = None
            elif what == "block":
                hear(CallBlocked(0.0, hold, "large", "no", "max_requests"))
                if likely is not None:
                    likely.blocked = "max_requests"
            elif what == "end" and under_way:
                each = chance.choice(under_way)
                error = chance.choice([None, None, ValueError("no"), KeyboardInterrupt(), _exceeded()])
                records.end(each.tally, error)
                blocked = each.blocked or ("max_cost_usd" if isinstance(error, BudgetExceeded) else None)
                given_up = isinstance(error, KeyboardInterrupt)
                ended = "abandoned" if given_up else "stopped" if blocked else "ok" if error is None else "failed"
                over(each, ended, blocked)
                records.end(each.tally)
    for each in [each for each in runs if not each.over]:
        over(each, "abandoned", each.blocked)
    records.end_all()
    assert [
        {name: getattr(record, name) for name in said} for record, said in zip(kept, expected, strict=True)
    ] == expected


def _exceeded() -> BudgetExceeded:
    return BudgetExceeded(dimension="max_cost_usd", limit=Decimal(1), actual=Decimal(2), scope="run:r")


def test_of_a_run_under_way_around_it_nothing_begins_anew() -> None:
    kept = Kept()
    records, others = (RunRecords(kept, session(run_id=name)._run) for name in ("a", "b"))
    outer = Recording([records, None, records])
    with outer:
        assert records.here() is not None and others.here() is None
        inner = Recording([records, others])
        with inner:
            assert others.here() is not None
        inner.end(ValueError("no"))
        assert [(each.id, each.outcome) for each in kept] == [("b", "failed")] and others.here() is None
        assert records.here() is not None
    assert records.here() is None
    outer.end()
    outer.end()
    assert [(each.id, each.outcome) for each in kept] == [("b", "failed"), ("a", "ok")]


def test_a_run_whose_call_raised_has_ended_once_nothing_more_is_heard_of_it() -> None:
    kept = Kept()
    records = RunRecords(kept, session(run_id="r")._run)
    failed, goes_on = records.begin(), records.begin()
    failed.error = ValueError("no")
    records.end_failed()
    assert [(each.id, each.outcome) for each in kept] == [("r", "failed")]
    goes_on.error = ValueError("no")
    with within(records, goes_on):
        records.of_run(None)(CallAdmitted(0.0, "d", "model", "large", 10))  # type: ignore[arg-type]
    records.end_failed()
    assert len(kept) == 1
    records.end_all()
    assert [(each.id, each.outcome) for each in kept] == [("r", "failed"), ("r#2", "abandoned")]


def test_a_store_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def add(self, record: Any) -> None:
            raise OSError("No space left on device")

    records = RunRecords(Broken(), session()._run)
    records.end(records.begin())
    assert "the record of a run could not be kept" in caplog.text
