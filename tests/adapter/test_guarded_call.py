"""A call that several budgets hold is held by all of them or by none, and settled in all of them whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetExceeded,
    BudgetRevoked,
    Decision,
    DowngradePolicy,
    MemoryLedger,
    ModelCall,
    Reservation,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.adapter import GuardedCall, Stop, StopLatch, ToolCosts
from tests.adapter.conftest import Both
from tests.builders import ZERO, call, note_holds, session

USAGE = Usage(input=10, output=10)
DIME = Decimal("0.10")


def held(*sessions: Session, perform: Both, **options: Any) -> GuardedCall:
    guarded = GuardedCall(sessions)
    assert perform(guarded, "hold", call(**options)) is None
    return guarded


def figures(*sessions: Session) -> list[tuple[Decimal, Decimal]]:
    return [(session.spent_usd, session.reserved_usd) for session in sessions]


def test_a_call_is_held_and_committed_in_every_session(perform: Both) -> None:
    outer, inner = session(), session()
    guarded = held(outer, inner, perform=perform)
    assert figures(outer, inner) == [(ZERO, DIME)] * 2
    perform(guarded, "commit", USAGE)
    assert figures(outer, inner) == [(DIME, ZERO)] * 2


@pytest.mark.parametrize("poor", [0, 1])
def test_where_one_session_refuses_none_holds(perform: Both, poor: int) -> None:
    sessions = [session(), session()]
    sessions[poor] = session("$0.05")
    stop = perform(GuardedCall(sessions), "hold", call())
    assert stop.session is sessions[poor]
    assert isinstance(stop.error, BudgetExceeded)
    assert figures(*sessions) == [(ZERO, ZERO)] * 2


def test_a_later_session_is_asked_for_the_model_that_an_earlier_one_decided_on(perform: Both) -> None:
    outer = session(Budget("$1.00", downgrade=DowngradePolicy(to={"large": "small"}, at=0.1)))
    outer.charge("tool", "0.20")
    inner = session(Budget("$1.00"))
    guarded = held(outer, inner, perform=perform, model="large", cap=10)
    assert guarded.name == "small"
    assert inner.decisions()[-1].requested == "small"


def test_the_smallest_output_cap_is_sent(perform: Both) -> None:
    outer = session(Budget("$1.00", call_max_output_tokens=70))
    inner = session(Budget("$1.00", call_max_output_tokens=50))
    last = session(Budget("$1.00", call_max_output_tokens=90))
    assert held(outer, inner, last, perform=perform, model="large").output_cap == 50
    assert held(session(), perform=perform, cap=7).output_cap == 7


class ServerError(Exception):
    def __init__(self) -> None:
        self.status_code = 500
        self.body = {"message": "The server had an error", "type": "server_error"}


@pytest.mark.parametrize("second", ["book", "release"])
def test_a_server_error_gives_the_hold_back_where_every_budget_trusts_it(perform: Both, second: Any) -> None:
    trusting = session(Budget("$1", server_errors="release"))
    other = session(Budget("$1", server_errors=second))
    perform(held(trusting, other, perform=perform), "fail", ServerError())
    assert figures(trusting, other) == [(ZERO if second == "release" else DIME, ZERO)] * 2


def broken(hold: Reservation, *verbs: str) -> None:
    """Make *verbs* of a hold fail, blocking and awaited."""

    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("senseless")

    async def afail(*_: Any, **__: Any) -> None:
        fail()

    methods: dict[str, Any] = {"__slots__": ()}
    for verb in verbs:
        methods |= {verb: fail, f"a{verb}": afail}
    hold.__class__ = type("Broken", (Reservation,), methods)


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_commit_raises_the_others_are_committed_and_it_is_estimated(perform: Both, failing: int) -> None:
    sessions = [session(), session()]
    guarded = held(*sessions, perform=perform, model="large", cap=100)
    bound = guarded.holds[failing].amounts.cost
    broken(guarded.holds[failing], "commit")
    with pytest.raises(ArithmeticError, match="senseless"):
        perform(guarded, "commit", USAGE)
    assert [session.reserved_usd for session in sessions] == [ZERO, ZERO]
    assert int(sessions[failing].spent_usd * 10**9) == bound
    assert sessions[failing].report().uncertain == sessions[failing].spent_usd
    assert sessions[1 - failing].spent_usd == Decimal("0.00011")


def test_where_nothing_can_be_booked_for_one_session_the_others_are_settled(perform: Both) -> None:
    outer, inner = session(), session()
    guarded = held(outer, inner, perform=perform)
    broken(guarded.holds[0], "commit", "commit_estimate")
    with pytest.raises(ArithmeticError):
        perform(guarded, "commit", USAGE)
    assert figures(outer, inner) == [(ZERO, DIME), (DIME, ZERO)]


def test_a_call_costs_what_the_model_costs_that_the_adapter_called(perform: Both) -> None:
    class Switched(GuardedCall):
        @property
        def name(self) -> str:
            return "penny"

    guard = session()
    guarded = Switched([guard])
    assert perform(guarded, "hold", call()) is None
    perform(guarded, "commit", USAGE)
    assert figures(guard) == [(Decimal("0.01"), ZERO)]


class RateLimited(Exception):
    status_code = 429


class Refused(Exception):
    """What a framework raises instead of sending a call."""


class Careful(GuardedCall):
    never_sent = (Refused,)


@pytest.mark.parametrize(
    ("error", "spent"),
    [(RateLimited("slow down"), ZERO), (Refused("no"), ZERO), (TimeoutError("late"), DIME), (ValueError("?"), DIME)],
)
def test_a_failed_call_is_given_back_only_if_it_provably_was_not_billed(
    perform: Both, error: Exception, spent: Decimal
) -> None:
    outer, inner = session(), session()
    guarded = Careful([outer, inner])
    assert perform(guarded, "hold", call()) is None
    perform(guarded, "fail", error)
    assert figures(outer, inner) == [(spent, ZERO)] * 2
    assert outer.report().uncertain == spent


def test_the_reason_of_a_failure_is_its_type_and_never_what_it_says() -> None:
    reasons: list[Any] = []
    guard = session()
    guard.subscribe(reasons.append)
    guarded = GuardedCall([guard])
    guarded.hold(call())
    guarded.fail(RateLimited("x" * 500))
    assert [event.reason for event in reasons if hasattr(event, "reason")][-1] == "RateLimited (HTTP 429)"


def test_a_late_commit_replaces_an_estimate(perform: Both) -> None:
    outer, inner = session(), session()
    guarded = held(outer, inner, perform=perform, model="large", cap=100)
    perform(guarded, "estimate", "it was abandoned")
    perform(guarded, "commit", USAGE)
    assert figures(outer, inner) == [(Decimal("0.00011"), ZERO)] * 2


def test_what_is_released_is_not_settled_again(perform: Both) -> None:
    guard = session()
    guarded = held(guard, perform=perform)
    perform(guarded, "release", "it was not sent")
    perform(guarded, "commit", USAGE)
    assert guarded.holds == []
    assert figures(guard) == [(ZERO, ZERO)]


def test_without_usage_what_was_held_is_booked(perform: Both) -> None:
    guard = session()
    perform(held(guard, perform=perform), "commit", None)
    assert (guard.spent_usd, guard.report().uncertain) == (DIME, DIME)


# --- tools


def test_a_tool_costs_what_its_result_says(perform: Both) -> None:
    costs = ToolCosts({"search": lambda result: f"0.0{result}"})
    outer, inner = session(), session()
    guarded = GuardedCall([outer, inner])
    assert perform(guarded, "hold", costs.call("search", "A")) is None
    perform(guarded, "commit_result", costs, 7)
    assert figures(outer, inner) == [(Decimal("0.07"), ZERO)] * 2


def fails(result: object) -> str:
    raise LookupError("no price in the result")


@pytest.mark.parametrize(("cost", "error"), [(fails, LookupError), (lambda result: "much", ValueError)])
def test_a_cost_function_that_fails_raises_after_the_tool_is_counted_everywhere(
    perform: Both, cost: Callable[[Any], str], error: type[Exception]
) -> None:
    costs = ToolCosts({"search": cost})
    outer, inner = session(), session()
    guarded = GuardedCall([outer, inner])
    assert perform(guarded, "hold", costs.call("search", None)) is None
    with pytest.raises(error):
        perform(guarded, "commit_result", costs, "result")
    for guard in (outer, inner):
        assert guard.report().breakdown.tools.calls == 1
        assert guard.reserved_usd == ZERO
        assert guard.committed.tool_calls == 1


# --- while it is made


def test_a_stream_is_interrupted_by_whichever_session_is_revoked() -> None:
    outer, inner = session(), session()
    guarded = GuardedCall([outer, inner])
    guarded.hold(call())
    assert guarded.interruption(1) is None
    inner.revoke("compromised")
    stop = guarded.interruption(2)
    assert stop is not None and stop.session is inner
    assert isinstance(stop.error, BudgetRevoked)
    guarded.release("it was stopped")
    assert guarded.interruption(3) is None


def clamped(*, final: bool = False) -> tuple[GuardedCall, Session, int]:
    roomy, tight = session("$100.00"), session(Budget("$0.01", finalization_reserve="0.001"))
    guarded = GuardedCall([roomy, tight])
    assert guarded.hold(call("large", final=final)) is None
    cap = guarded.output_cap
    assert cap is not None
    return guarded, tight, cap


def test_an_answer_is_cut_short_by_the_session_whose_cap_it_ran_into() -> None:
    guarded, tight, cap = clamped()
    assert guarded.cut_short(Usage(input=1, output=cap - 1)) is None
    assert guarded.cut_short(None) is None
    for stop in (guarded.cut_short(Usage(input=1, output=cap)), guarded.cut_short(known=True)):
        assert stop is not None and stop.session is tight
        assert "cut the answer off" in str(stop.error)


def test_half_a_final_answer_is_no_stop() -> None:
    guarded, _, cap = clamped(final=True)
    assert guarded.cut_short(Usage(input=1, output=cap)) is None
    assert guarded.cut_short(known=True) is None


# --- what an adapter overrides


def test_an_adapter_may_give_a_call_up_once_it_is_decided_on(perform: Both) -> None:
    class GivesUp(GuardedCall):
        def admitted(self, decision: Decision) -> None:
            if len(self.holds) == 2:
                raise LookupError("there is no such model here")

    outer, inner = session(), session()
    with pytest.raises(LookupError):
        perform(GivesUp([outer, inner]), "hold", call())
    assert figures(outer, inner) == [(ZERO, ZERO)] * 2


def test_an_adapter_may_raise_the_limits_and_have_a_session_asked_again(perform: Both) -> None:
    asked: list[Session] = []

    class Asks(GuardedCall):
        def asks_again(self, session: Session, error: object) -> bool:
            asked.append(session)
            session.raise_limits(max_cost_usd="1.00")
            return True

    outer, poor = session(), session("$0.05")
    assert perform(Asks([outer, poor]), "hold", call()) is None
    assert asked == [poor]
    assert figures(outer, poor) == [(ZERO, DIME)] * 2


# --- the latch


def test_a_latched_stop_stops_the_next_call_until_the_limits_are_raised(perform: Both) -> None:
    latch, guard = StopLatch(), session("$0.15")
    big = GuardedCall([guard], latch=latch)
    assert perform(big, "hold", call("large", tokens=1_000_000)) is not None
    stop = perform(GuardedCall([guard], latch=latch), "hold", call())
    assert isinstance(stop, Stop), "it would fit, and the run was stopped"
    assert latch.get() == stop
    guard.raise_limits(max_cost_usd="0.20")
    assert latch.get() is None
    assert perform(GuardedCall([guard], latch=latch), "hold", call()) is None


# --- cancellation


class Slow(MemoryLedger):
    """Waits before and after each verb that is awaited, as one does that is asked over a network."""

    def __init__(self) -> None:
        super().__init__()
        slow: Any = _Slow(self.aio)
        self.aio = slow


class _Slow:
    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._ledger, verb)

        async def slowly(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            result = await method(*arguments)
            await asyncio.sleep(0)
            return result

        return slowly


async def steps_of(work: Awaitable[None]) -> tuple[asyncio.Task[None], int]:
    task = asyncio.ensure_future(work)
    steps = 0
    while not task.done():
        await asyncio.sleep(0)
        steps += 1
    assert isinstance(task, asyncio.Task)
    return task, steps


ENDS: dict[str, Callable[[GuardedCall], Awaitable[None]]] = {
    "commit": lambda guarded: guarded.acommit(USAGE),
    "estimate": lambda guarded: guarded.aestimate("it was abandoned"),
    "release": lambda guarded: guarded.arelease("it was not sent"),
    "fail": lambda guarded: guarded.afail(TimeoutError("late")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_cancelled_at_any_await_no_session_holds_anything_afterwards(end: str, cancels: int) -> None:
    async def work(sessions: list[Session], settling: list[bool]) -> None:
        guarded = GuardedCall(sessions)
        assert await guarded.ahold(call()) is None
        settling.append(True)
        await ENDS[end](guarded)

    _, steps = await steps_of(work([session(ledger=Slow()), session(ledger=Slow())], []))
    assert steps >= 8
    for before in range(steps):
        sessions, settling = [session(ledger=Slow()), session(ledger=Slow())], list[bool]()
        task = asyncio.ensure_future(work(sessions, settling))
        for _ in range(before):
            await asyncio.sleep(0)
        for _ in range(cancels if settling else 1):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        spent = DIME if settling and end != "release" else ZERO
        assert figures(*sessions) == [(spent, ZERO)] * 2, before
        assert len(asyncio.all_tasks()) == 1


async def test_what_fails_in_a_cancelled_commit_does_not_take_the_cancellations_place() -> None:
    guard = session(ledger=Slow())
    guarded = GuardedCall([guard])
    assert await guarded.ahold(ToolCall("search", 10**8)) is None
    task = asyncio.ensure_future(guarded.acommit(USAGE))  # of a tool call: a TypeError
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guard.reserved_usd == ZERO


# Errors that carry an answer

COMPLETION: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "model": "small",
    "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": '{"na'}}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "model": "small",
    "stop_reason": "max_tokens",
    "content": [{"type": "text", "text": '{"na'}],
    "usage": {"input_tokens": 60, "output_tokens": 40},
}


class Dumped:
    """An answer as a client has it: an object that can be dumped."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def model_dump(self, *, mode: str = "python") -> Any:
        if mode != "json":
            return {"values": "of Python's own types"}
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class CannotParse(Exception):
    def __init__(self, **carried: Any) -> None:
        super().__init__("Could not parse the answer")
        self.__dict__.update(carried)


@pytest.mark.parametrize(
    "carried",
    [
        {"completion": Dumped(COMPLETION)},
        {"completion": COMPLETION},
        {"last_completion": Dumped(MESSAGE), "n_attempts": 3},
        {"completion": None, "raw_response": MESSAGE},
    ],
)
def test_an_answer_that_an_error_carries_is_booked_as_it_is(perform: Both, carried: Any) -> None:
    run = session()
    guarded = held(run, perform=perform, model="small", tokens=100, cap=100)
    perform(guarded, "fail", CannotParse(**carried))

    assert figures(run) == [(Decimal("0.000046"), ZERO)] and run.report().uncertain == 0


@pytest.mark.parametrize(
    "carried",
    [
        {"completion": Dumped(ValueError())},
        {"completion": {**COMPLETION, "usage": None}},
        {"completion": {**COMPLETION, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}},
        {"completion": "text"},
        {"last_completion": {"usage": {}}},
        {},
    ],
)
def test_an_error_that_tells_no_usage_is_booked_as_held(perform: Both, carried: Any) -> None:
    run = session()
    guarded = held(run, perform=perform, model="small", tokens=100, cap=100)
    perform(guarded, "fail", CannotParse(**carried))

    assert figures(run) == [(Decimal("0.00011"), ZERO)] and run.report().uncertain > 0


@pytest.mark.parametrize("asked", [call(), ToolCall("lookup", 1_000)], ids=["model", "tool"])
def test_what_an_adapter_holds_is_held_as_sent(
    asked: ModelCall | ToolCall, perform: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = note_holds(monkeypatch, lambda: 0)  # one that is not would be given back once its time is up
    assert perform(GuardedCall((session(), session())), "hold", asked) is None
    assert holds == [(0, True, True)] * 2
