"""The guard of a framework's model holds each call, settles it whatever happens, and remembers stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing, suppress
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

import budget_guard
from budget_guard import Budget, BudgetExceeded, BudgetRevoked, InvalidDowngradeError, Session, ToolCall, Usage
from budget_guard.adapter import (
    Answered,
    GuardedCall,
    ModelGuard,
    Stop,
    counted_by,
    counting,
    inside_of,
    latch_of,
    medium,
    session_of,
    stops_for,
    with_prefix_of,
)
from budget_guard.adapter.model_guard import on_event_loop
from budget_guard.testing import FakeClock
from tests.builders import ZERO, apart, call, session

DIME = Decimal("0.10")
PIECES = ["one", "two", "three"]
ANSWER = Answered(Usage(input=10, output=10), text="one two three")


class Fatal(Exception):
    """What a framework lets through."""


class NoAnswer(Exception):
    """What may come after a request was sent."""


class Refused(Exception):
    status_code = 400


stops = stops_for(Fatal)


def guard_of(*sessions: Session, agent: str | None = None) -> ModelGuard:
    """A guard of *sessions*, the outermost first."""
    guard = None
    for each in reversed(sessions):
        guard = ModelGuard(each, stops, owner="Guard(...)", agent=agent, inner=guard)
    assert guard is not None
    return guard


class Both:
    """What a guard does, blocking or awaited."""

    def __init__(self, awaits: bool) -> None:
        self.awaits = awaits

    def make(self, guard: ModelGuard, work: Callable[[], Any], **options: Any) -> Any:
        """Make a call that does *work*."""
        if self.awaits:
            return asyncio.run(self._amake(guard, work, options))
        held = guard.hold(call(**options))
        with guard.making(held):
            answer = work()
        guard.settle(held, ANSWER)
        return answer

    async def _amake(self, guard: ModelGuard, work: Callable[[], Any], options: dict[str, Any]) -> Any:
        held = await guard.ahold(call(**options))
        async with guard.amaking(held):
            answer = work()
        await guard.asettle(held, ANSWER)
        return answer

    def stream(
        self, guard: ModelGuard, source: Source, take: Callable[[str], object], *, leave: bool = False, **options: Any
    ) -> None:
        """Stream a call, and *take* each piece."""
        if self.awaits:
            return asyncio.run(self._astream(guard, source, take, leave, options))
        held = guard.hold(call(**options))
        with closing(guard.stream(held, source.pieces(), len, lambda: ANSWER)) as pieces:
            for piece in pieces:
                take(piece)
                if leave:
                    break

    async def _astream(
        self, guard: ModelGuard, source: Source, take: Callable[[str], object], leave: bool, options: dict[str, Any]
    ) -> None:
        async def answered() -> Answered:
            return ANSWER

        held = await guard.ahold(call(**options))
        async with aclosing(guard.astream(held, source.apieces(), len, answered)) as pieces:
            async for piece in pieces:
                take(piece)
                if leave:
                    break


class Source:
    """A model that streams. Notes what it saw, and that it was closed."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.counted: list[int] = []
        self.closed = False

    def pieces(self) -> Generator[str]:
        try:
            for piece in PIECES:
                self.counted.append(len(counted_by().calls))
                yield piece
            if self.fails is not None:
                raise self.fails
        finally:
            self.closed = True

    async def apieces(self) -> AsyncGenerator[str]:
        with closing(self.pieces()) as pieces:
            for piece in pieces:
                yield piece


@pytest.fixture(params=[False, True], ids=["blocking", "awaited"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


# One call


def test_a_call_is_held_while_it_is_made_and_booked_after(both: Both) -> None:
    spending = session()
    seen = both.make(guard_of(spending), lambda: (spending.reserved_usd, len(counted_by().calls)))
    assert seen == (DIME, 1)
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)


def test_a_call_that_does_not_fit_is_not_made(both: Both) -> None:
    made: list[None] = []
    with pytest.raises(BudgetExceeded) as raised:
        both.make(guard_of(session("$0.05")), lambda: made.append(None))
    assert isinstance(raised.value, Fatal) and not made


@pytest.mark.parametrize(("error", "spent"), [(NoAnswer(), DIME), (Refused(), ZERO), (KeyboardInterrupt(), DIME)])
def test_what_ends_it_is_raised_as_it_is_and_settles_it(both: Both, error: BaseException, spent: Decimal) -> None:
    spending = session()

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        both.make(guard_of(spending), fail)
    assert raised.value is error
    assert (spending.spent_usd, spending.reserved_usd) == (spent, ZERO)


def refusal_of(spent: Session) -> BudgetExceeded:
    decision = spent.authorize(call())
    assert isinstance(decision.error, BudgetExceeded)
    return decision.error


def test_a_refusal_of_a_layer_below_is_raised_in_the_frameworks_terms_and_gives_the_hold_back(both: Both) -> None:
    spending = session()
    guard = guard_of(spending)

    def wrapped() -> None:
        raise NoAnswer from refusal_of(session("$0.05"))

    with pytest.raises(BudgetExceeded) as raised:
        both.make(guard, wrapped)
    assert isinstance(raised.value, Fatal) and isinstance(raised.value.__cause__, NoAnswer)
    assert (spending.spent_usd, spending.reserved_usd) == (ZERO, ZERO)
    with pytest.raises(BudgetExceeded):
        both.make(guard, lambda: None)


def test_a_stop_out_of_what_runs_inside_of_a_call_is_raised_as_it_is(both: Both) -> None:
    inside = stops.recast(refusal_of(session("$0.05")))

    def stopped() -> None:
        raise inside

    spending = session()
    with pytest.raises(BudgetExceeded) as raised:
        both.make(guard_of(spending), stopped)
    assert raised.value is inside
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)  # its own request may have been sent


def test_what_a_guard_below_refuses_gives_the_hold_back(both: Both) -> None:
    outer, inner = session(), session("$0.05")
    below = guard_of(inner)
    with pytest.raises(BudgetExceeded) as raised:
        both.make(guard_of(outer), lambda: below.hold(call()))
    assert raised.value.limit == Decimal("0.05")
    assert (outer.spent_usd, outer.reserved_usd) == (ZERO, ZERO)


def test_a_model_whose_name_cannot_be_changed_gives_the_hold_back_and_says_so(both: Both) -> None:
    spending = session(Budget("$1.00", downgrade={"dime": "penny"}))
    spending.charge("search", "0.90")
    guard = guard_of(spending)

    def change() -> None:
        held = next(iter(counted_by().calls))
        assert held.name == "penny"
        raise guard.cannot_be_changed(call(), held, object())

    with pytest.raises(InvalidDowngradeError, match="object has no name that could be changed") as raised:
        both.make(guard, change)
    assert isinstance(raised.value, Fatal) and raised.value.__cause__ is None
    assert (spending.spent_usd, spending.reserved_usd) == (Decimal("0.90"), ZERO)


@pytest.mark.parametrize("poor", [0, 1])
def test_of_two_budgets_the_one_that_refuses_stops_whatever_spends_from_it(poor: int) -> None:
    both = [session("$0.05" if each == poor else "$9.00") for each in range(2)]
    with pytest.raises(BudgetExceeded):
        guard_of(*both).hold(call("dime"))
    with pytest.raises(BudgetExceeded):  # latched: this one would fit
        guard_of(both[poor]).hold(call("penny"))
    guard_of(both[1 - poor]).hold(call("penny"))


def test_an_answer_that_the_budgets_own_cap_cut_off_is_a_stop_with_its_text(both: Both) -> None:
    spending = session("$0.05")
    guard = guard_of(spending)
    held = guard.hold(call("large"))
    assert held.output_cap is not None
    cut = Answered(Usage(input=10, output=held.output_cap), cut_off=True, text="one two")
    with pytest.raises(BudgetExceeded) as raised:
        if both.awaits:
            asyncio.run(guard.asettle(held, cut))
        else:
            guard.settle(held, cut)
    assert raised.value.partial_output == "one two" and isinstance(raised.value, Fatal)
    with pytest.raises(BudgetExceeded):  # latched
        guard.hold(call("penny"))


def test_an_answer_of_which_only_the_usage_is_told_is_cut_off_where_it_fills_the_cap(both: Both) -> None:
    def settle(fraction: float) -> None:
        guard = guard_of(session("$0.05"))
        held = guard.hold(call("large"))
        assert held.output_cap is not None
        answer = Answered(Usage(input=10, output=int(held.output_cap * fraction)))
        if both.awaits:
            asyncio.run(guard.asettle(held, answer))
        else:
            guard.settle(held, answer)

    settle(0.5)
    with pytest.raises(BudgetExceeded):
        settle(1)


# Streams


def test_a_stream_is_held_step_by_step_and_booked_at_its_end(both: Both) -> None:
    spending = session()
    source, taken, beside = Source(), list[str](), list[int]()

    def take(piece: str) -> None:
        taken.append(piece)
        beside.append(len(counted_by().calls))
        assert spending.reserved_usd == DIME

    both.stream(guard_of(spending), source, take)
    assert taken == PIECES
    assert source.counted == [1, 1, 1] and beside == [0, 0, 0]  # the reader's own calls are none of its parts
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)


def test_a_stream_that_is_left_is_closed_and_booked_as_held(both: Both) -> None:
    spending, source = session(), Source()
    both.stream(guard_of(spending), source, lambda piece: None, leave=True)
    assert source.closed
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)
    assert spending.report().uncertain == DIME


class Pieces:
    """A stream as a client makes it: no generator, and with some way to close it, or none."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str:
        return "one"


class Closes(Pieces):
    async def close(self) -> None:
        self.closed.append("close")


class ClosesAwaited(Pieces):
    async def aclose(self) -> None:
        self.closed.append("aclose")


class ClosesBothWays(Closes, ClosesAwaited):
    pass


@pytest.mark.parametrize(
    ("pieces", "by"),
    [(Pieces(), []), (Closes(), ["close"]), (ClosesAwaited(), ["aclose"]), (ClosesBothWays(), ["aclose"])],
)
def test_a_stream_that_is_left_is_closed_in_the_way_that_it_has(pieces: Pieces, by: list[str]) -> None:
    spending = session()
    guard = guard_of(spending)

    async def answered() -> Answered:
        return ANSWER

    async def leave() -> None:
        held = await guard.ahold(call())
        async with aclosing(guard.astream(held, pieces, len, answered)) as passed_on:
            assert await anext(passed_on) == "one"

    asyncio.run(leave())
    assert pieces.closed == by
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)


@pytest.mark.parametrize(("error", "spent"), [(NoAnswer(), DIME), (Refused(), ZERO)])
def test_a_stream_that_fails_is_settled_by_its_error(both: Both, error: Exception, spent: Decimal) -> None:
    spending = session()
    with pytest.raises(type(error)):
        both.stream(guard_of(spending), Source(error), lambda piece: None)
    assert (spending.spent_usd, spending.reserved_usd) == (spent, ZERO)


def test_a_stream_that_a_layer_below_refuses_is_a_stop(both: Both) -> None:
    spending = session()
    with pytest.raises(Fatal):
        both.stream(guard_of(spending), Source(refusal_of(session("$0.05"))), lambda piece: None)
    assert (spending.spent_usd, spending.reserved_usd) == (ZERO, ZERO)


def test_a_stream_of_a_run_that_is_revoked_ends_at_its_next_piece(both: Both) -> None:
    spending, source, taken = session(), Source(), list[str]()

    def take(piece: str) -> None:
        taken.append(piece)
        spending.revoke("leaked")

    with pytest.raises(BudgetRevoked) as raised:
        both.stream(guard_of(spending), source, take)
    assert isinstance(raised.value, Fatal) and taken == ["one"] and source.closed
    assert (spending.spent_usd, spending.reserved_usd) == (DIME, ZERO)


# Several budgets


def test_a_guard_around_a_guard_holds_in_both_and_once_in_each(both: Both) -> None:
    outer, inner = session(), session()
    guard = guard_of(outer, inner, outer)
    assert guard.sessions == (inner, outer) and guard.session is inner
    both.make(guard, lambda: None)
    assert outer.spent_usd == inner.spent_usd == DIME


def test_what_a_layer_above_has_held_is_not_held_again(both: Both) -> None:
    outer, inner = session(), session()
    above, below = guard_of(outer), guard_of(inner, outer)
    held = above.hold(call())
    with above.making(held):
        below.settle(below.hold(call()), ANSWER)
    above.settle(held, ANSWER)
    assert outer.spent_usd == inner.spent_usd == DIME


def test_a_tool_that_a_layer_above_has_held_is_no_model_call(both: Both) -> None:
    spending = session()
    tool = GuardedCall([spending])
    assert tool.hold(ToolCall("search", 0)) is None
    with counting(tool):
        both.make(guard_of(spending), lambda: None)
    assert spending.spent_usd == DIME


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_call_waits_for_room_where_that_blocks_no_event_loop(on_loop: bool) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    guard = ModelGuard(session(Budget("$0.15", max_wait_s=30), clock=clock), stops, owner="Guard(...)")
    first, began = apart(guard.hold, call()), clock.monotonic()

    def second() -> None:
        with pytest.raises(BudgetExceeded):
            apart(guard.hold, call())

    async def main() -> None:
        second()

    asyncio.run(main()) if on_loop else second()
    assert clock.monotonic() - began == (0 if on_loop else 30)
    first.commit(Usage())


def test_who_blocks_no_event_loop_may_wait() -> None:
    async def on_loop() -> bool:
        return on_event_loop()

    assert (on_event_loop(), asyncio.run(on_loop())) == (False, True)


@pytest.mark.parametrize("stopped", [0, 1])
def test_what_stops_one_of_its_budgets_stops_the_next_call_until_its_limits_are_raised(stopped: int) -> None:
    sessions = [session(), session()]
    sessions[stopped].charge("search", "0.95")
    guard = guard_of(*sessions)
    with pytest.raises(BudgetExceeded):
        guard.hold(call())
    with pytest.raises(BudgetExceeded):
        guard.hold(call("penny"))  # which would fit
    sessions[stopped].raise_limits(max_cost_usd=2)
    guard.settle(guard.hold(call("penny")), ANSWER)
    assert all(each.reserved_usd == 0 for each in sessions)


def test_calls_are_attributed_to_the_agent_of_the_innermost_guard() -> None:
    inner = ModelGuard(session(), stops, owner="Guard(...)", agent="Inner")
    assert ModelGuard(session(), stops, owner="Guard(...)", agent="Outer", inner=inner).agent == "Inner"
    nameless = ModelGuard(session(), stops, owner="Guard(...)")
    assert ModelGuard(session(), stops, owner="Guard(...)", agent="Outer", inner=nameless).agent == "Outer"


# What is remembered


def test_what_stops_inside_of_a_run_stops_that_run_whoever_swallows_it() -> None:
    outer, inner, beside = guard_of(session()), guard_of(session("$0.05")), guard_of(session())
    with outer.around(), suppress(BudgetExceeded):
        inner.hold(call())
    for guard in (outer, inner):
        with pytest.raises(BudgetExceeded) as raised:
            guard.hold(call("penny"))
        assert raised.value.limit == Decimal("0.05")
    beside.settle(beside.hold(call()), ANSWER)
    with suppress(BudgetExceeded):
        guard_of(session("$0.05")).hold(call())  # after the run
    inner.raise_limits(max_cost_usd=1)
    outer.settle(outer.hold(call()), ANSWER)


def test_a_run_inside_of_a_run_inside_of_a_run_stops_them_all() -> None:
    outermost, between, inner = guard_of(session()), guard_of(session()), guard_of(session("$0.05"))
    with outermost.around(), between.around(), suppress(BudgetExceeded):
        inner.hold(call())
    for guard in (outermost, between):
        assert guard.latch.get() is not None


def test_what_runs_inside_is_no_part_of_a_call_that_is_being_made() -> None:
    guard = guard_of(session())
    held = guard.hold(call())
    with guard.making(held), guard.around():
        assert not counted_by().calls
        guard.settle(guard.hold(call()), ANSWER)
    guard.settle(held, ANSWER)
    assert guard.spent_usd == 2 * DIME


def test_a_run_that_is_left_in_another_context_is_left_quietly() -> None:
    def run() -> Iterator[None]:
        with inside_of([latch_of(session())]):
            yield

    async def main() -> None:
        running = run()
        next(running)
        await asyncio.get_running_loop().run_in_executor(None, lambda: next(running, None))

    asyncio.run(main())


def test_what_stops_one_call_alone_is_not_remembered() -> None:
    guard = guard_of(session())
    with pytest.raises(budget_guard.UnknownPriceError):
        guard.hold(call("nobody-knows"))
    assert guard.latch.get() is None
    guard.settle(guard.hold(call()), ANSWER)


def test_a_limit_that_begins_anew_is_asked_again() -> None:
    spending = session()
    error = refusal_of(session("$0.05"))
    error.resets_at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    latch_of(spending).set(Stop(spending, error))
    assert latch_of(spending).get() is None


def test_a_session_has_one_latch() -> None:
    spending = session()
    assert guard_of(spending).latch is guard_of(spending).latch is latch_of(spending)
    assert latch_of(session()) is not latch_of(spending)


# What is below


def test_a_client_that_cannot_be_looked_at_is_left_as_it_is() -> None:
    client = object()
    assert guard_of(session(), session()).looked_at(client, "gpt-4o") is client


def test_a_client_is_looked_at_once() -> None:
    openai = pytest.importorskip("openai")
    guard = guard_of(session(), session())
    client = openai.OpenAI(api_key="x")
    looked_at = guard.looked_at(client, "gpt-4o")
    assert looked_at is not client and isinstance(looked_at, openai.OpenAI)
    other = openai.OpenAI(api_key="x")
    of_other = guard.looked_at(other, "gpt-4o")
    assert guard.looked_at(client, "gpt-4o") is looked_at and guard.looked_at(other, "gpt-4o") is of_other
    for _ in range(20):
        guard.looked_at(openai.OpenAI(api_key="x"), "gpt-4o")
    assert len(guard._looks) <= 16


def test_a_client_whose_http_client_is_renewed_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        _client = object()

    client = Client()
    guard = guard_of(session())
    first, seen = object(), []

    def look(given: Any, **_: Any) -> Any:
        seen.append(given)
        return first

    monkeypatch.setattr(guard.session, "guard", look)
    assert guard.looked_at(client, "gpt-4o") is guard.looked_at(client, "gpt-4o") is first
    client._client = object()
    guard.looked_at(client, "gpt-4o")
    assert len(seen) == 2


def test_the_model_of_a_client_whose_address_tells_none_is_the_name_that_it_is_called_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, Any]] = []
    looked_at = object()

    def look(given: Any, *, agent: Any = None, models: Any = None) -> Any:
        asked.append((agent, models))
        if models is None:
            raise ValueError("no model is known at this address")
        return looked_at

    guard = guard_of(session(), agent="Writer")
    monkeypatch.setattr(guard.session, "guard", look)
    client = object()
    assert guard.looked_at(client, "prod-chat") is guard.looked_at(client, "prod-chat") is looked_at
    assert asked == [("Writer", None), ("Writer", {"prod-chat": "prod-chat"})]


# What it is made of


def test_a_guard_is_a_budget_or_a_session() -> None:
    spending = session()
    assert session_of(spending, "Guard(...)") is spending
    assert session_of(Budget("$1.00"), "Guard(...)").remaining_usd == 1
    for wrong in (Budget, "1.00", None, 5):
        with pytest.raises(TypeError, match=r"neither a Budget nor a Session: write Guard\(\.\.\.\)"):
            session_of(wrong, "Guard(...)")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("image/png", "an image"),
        ("audio", "audio"),
        ("video/mp4", "a video"),
        ("application/pdf", "a file"),
        (None, "a file"),
    ],
)
def test_media_are_named_by_their_kind(kind: object, word: str) -> None:
    assert medium(kind) == word


@pytest.mark.parametrize(
    ("name", "chosen", "named"),
    [
        ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini"),
        ("openai/gpt-4o", "gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openai/gpt-4o", "azure/gpt-4o-mini", "azure/gpt-4o-mini"),
        ("openrouter/openai/gpt-4o", "gpt-4o-mini", "openrouter/openai/gpt-4o-mini"),
    ],
)
def test_a_cheaper_model_keeps_the_prefix_of_the_one_it_replaces(name: str, chosen: str, named: str) -> None:
    assert with_prefix_of(name, chosen) == named
