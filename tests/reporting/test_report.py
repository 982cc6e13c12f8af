"""The report, the events and the decisions tell what happened: exactly, for ever, in bounded memory."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Iterator
from decimal import Decimal

import pytest
from pydantic import BaseModel

from budget_guard import Budget, BudgetReport, Session, ToolCall, Usage
from budget_guard.events import CallAdmitted, CallBlocked, CallCommitted, Event, SoftLimitReached, UsageEvent
from budget_guard.reporting import AgentSpend, LimitUse, LlmSpend, RunRecord, RunSpend, TaskSpend, ToolsSpend
from budget_guard.testing import FakeClock
from tests.builders import ZERO, Way, call, session


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log records: thousands of them are no use to anybody."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def eventful(way: Way) -> Session:
    run = session(Budget("$5.00", max_requests=3), run_id="r1", tags={"user": "u1"}, clock=FakeClock())
    way.pay(run, call("dime", agent="writer"), Usage(input=70, cache_read=30, output=20, reasoning=5))
    way.pay(run, call("penny", agent="writer"), Usage(input=10))
    way.charge(run, "search", "$0.30", agent="finder")
    way.authorize(run, call("penny"))
    way.authorize(run, call("penny"))
    return run


def test_a_report_tells_what_was_spent_on_what_by_whom_and_why_it_ended(way: Way) -> None:
    report = eventful(way).report()
    assert (report.session_id, report.tags) == ("r1", {"user": "u1"})
    assert (report.total_spent, report.reserved, report.remaining) == (
        Decimal("0.41"),
        Decimal("0.01"),
        Decimal("4.58"),
    )
    llm, tools = report.breakdown.llm, report.breakdown.tools
    assert (llm.total, llm.calls, tools.total, tools.calls) == (Decimal("0.11"), 2, Decimal("0.30"), 1)
    dime = llm.by_model["dime"]
    assert (dime.total, dime.calls, dime.input_tokens, dime.output_tokens) == (Decimal("0.10"), 1, 100, 25)
    assert {name: (a.total, a.calls) for name, a in report.by_agent.items()} == {
        "writer": (Decimal("0.11"), 2),
        "finder": (Decimal("0.30"), 1),
    }
    assert report.terminated_by == "max_requests"
    assert (report.unpriced_calls, report.uncertain, report.overrun, report.bound_violations) == (0, ZERO, ZERO, 0)
    assert Decimal(str(report.budget["max_cost_usd"])) == 5
    assert report.budget["max_requests"] == 3
    assert "max_total_tokens" not in report.budget


def test_a_report_is_one_line(way: Way) -> None:
    assert str(eventful(way).report()) == (
        "Total spend: $0.41 | Remaining: $4.58 | LLM: $0.11 | Tools: $0.30 | Calls: 2 | Held: $0.01 "
        "| Stopped by: max_requests"
    )


def test_a_quiet_run_has_a_short_line() -> None:
    assert str(session("$5").report()) == (
        "Total spend: $0.00 | Remaining: $5.00 | LLM: $0.00 | Tools: $0.00 | Calls: 0"
    )
    assert "Remaining" not in str(session(Budget(max_requests=1)).report())


def test_a_report_survives_json(way: Way) -> None:
    report = eventful(way).report()
    text = report.model_dump_json()
    assert BudgetReport.model_validate_json(text) == report
    assert json.loads(text)["events"][0]["event"] == "CallAdmitted"


def test_the_events_of_a_report_carry_money_in_dollars(way: Way) -> None:
    events = eventful(way).report().events
    assert [event["event"] for event in events] == [
        *["CallAdmitted", "CallCommitted"] * 2,
        *["CallCommitted", "CallAdmitted", "CallBlocked"],
    ]
    assert Decimal(events[0]["held_usd"]) == Decimal(events[1]["cost_usd"]) == Decimal("0.10")
    assert not {"held", "cost"} & events[0].keys()


def test_time_runs_from_the_first_call_to_the_end_of_the_session(way: Way) -> None:
    clock = FakeClock()
    run = session("$1", clock=clock)
    clock.advance(5)
    assert run.report().duration_seconds == 0
    way.pay(run, call())
    clock.advance(2)
    assert run.report().duration_seconds == 2
    way.pay(run, call())
    assert [event.at_s for event in run.events()] == [0, 0, 2, 2]
    with session("$1", clock=clock) as opened:
        clock.advance(3)
    clock.advance(9)
    assert opened.report().duration_seconds == 3


async def test_a_session_is_an_async_context_manager_too() -> None:
    clock = FakeClock()
    async with session("$1", clock=clock) as opened:
        clock.advance(3)
    clock.advance(9)
    assert opened.report().duration_seconds == 3


# --- what is kept


def test_events_and_decisions_are_bounded_while_totals_stay_exact(quiet: None) -> None:
    way = Way(awaits=False)
    run = session(Budget("$1000", soft_limit=None))
    for number in range(5_000):
        way.pay(run, call("penny", agent=f"agent {number % 3}"), Usage(input=7))
    assert len(run.decisions()) == len(run.events()) == 1_000
    report = run.report()
    assert (report.total_spent, report.breakdown.llm.calls) == (Decimal(50), 5_000)
    assert report.breakdown.llm.by_model["penny"].input_tokens == 35_000
    assert sum(agent.calls for agent in report.by_agent.values()) == 5_000
    last = run.events()[-1]
    assert isinstance(last, CallCommitted) and last.decision_id == run.decisions()[-1].id


def test_a_run_that_makes_up_names_is_summed_in_bounded_memory(quiet: None) -> None:
    run = session(Budget("$1000"))
    for number in range(3_000):
        run.charge(f"tool {number}", "$0.01", agent=f"agent {number}")
    report = run.report()
    assert len(report.breakdown.tools.by_tool) <= 1_001
    assert len(report.by_agent) <= 1_001
    assert report.breakdown.tools.total == report.total_spent == 30
    assert report.breakdown.tools.calls == sum(a.calls for a in report.by_agent.values()) == 3_000


def test_an_agent_that_runs_into_its_limit_again_and_again_costs_no_more_memory(quiet: None) -> None:
    run = session(Budget(max_requests=1))
    run.authorize(call())
    for _ in range(1_500):
        run.authorize(call())
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(500):
        run.authorize(call())
    gc.collect()
    assert sys.getallocatedblocks() - before < 20_000
    error = run.decisions()[-1].error
    assert error is not None and len(error.report.events) <= 100  # type: ignore[attr-defined]


# --- subscribers


def test_subscribers_hear_every_event_until_they_stop(way: Way) -> None:
    run = session("$0.10")
    heard: list[Event] = []
    stop = run.subscribe(heard.append)
    way.pay(run, call())
    way.authorize(run, call())
    kept = [event for event in heard if not isinstance(event, UsageEvent)]
    assert kept == run.events()
    assert [type(event) for event in heard] == [CallAdmitted, CallCommitted, SoftLimitReached, UsageEvent, CallBlocked]
    admitted, committed = heard[:2]
    assert isinstance(admitted, CallAdmitted) and isinstance(committed, CallCommitted)
    assert admitted.held_usd == committed.cost_usd == Decimal("0.10")
    stop()
    way.authorize(run, call())
    assert len(heard) == 5


def test_who_stops_to_listen_stops_nobody_else(way: Way) -> None:
    run, heard = session(), list[Event]()
    stop = run.subscribe(lambda _: None)
    run.subscribe(heard.append)
    stop()
    way.pay(run, call("dime"), Usage(input=1))
    assert [type(event) for event in heard] == [CallAdmitted, CallCommitted, UsageEvent]


def test_a_subscriber_that_fails_disturbs_nobody(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    run = session("$0.20")
    heard: list[Event] = []

    def fail(_: Event) -> None:
        raise ValueError("the log is full")

    run.subscribe(fail)
    run.subscribe(heard.append)
    way.pay(run, call())
    assert len(heard) == 3
    assert run.spent_usd == Decimal("0.10")
    assert "the log is full" in caplog.text


def test_a_subscriber_may_ask_the_session(way: Way) -> None:
    run = session("$0.10")
    reports: list[Decimal] = []
    run.subscribe(lambda _: reports.append(run.report().total_spent))
    way.pay(run, call())
    way.commit_cost(way.reserve(run, ToolCall("free")), 0)
    assert reports[:2] == [0, Decimal("0.10")]


@pytest.mark.parametrize(
    ("made", "needed"),
    [
        (LlmSpend, ""),
        (ToolsSpend, ""),
        (AgentSpend, ""),
        (TaskSpend, ""),
        (LimitUse, "scope name limit spent"),
        (RunSpend, "session_id total_spent"),
        (RunRecord, "id started_at outcome cost"),
        (
            BudgetReport,
            "session_id budget tags total_spent reserved remaining breakdown by_agent duration_seconds terminated_by "
            "unpriced_calls uncertain overrun bound_violations events",
        ),
    ],
)
def test_what_an_earlier_version_wrote_is_read_without_what_has_been_added_since(
    made: type[BaseModel], needed: str
) -> None:
    assert [name for name, field in made.model_fields.items() if field.is_required()] == needed.split()
