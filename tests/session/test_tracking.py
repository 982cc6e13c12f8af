"""Tools with a price: what was spent is booked, and what is not spent yet is held before the function runs."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LoopDetected,
    LoopPolicy,
    PriceTable,
    Session,
    ToolCall,
    UnknownPriceError,
    Usage,
    current_session,
    track_tool,
)
from budget_guard.session.answers import KnownAnswers
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import race
from budget_guard.units.money import to_usd
from tests.builders import ZERO, apart, call, session


class NotFound(Exception):
    status_code = 404


def tracked(run: Session, value: object, *, cost: Any, awaits: bool, **options: Any) -> object:
    if awaits:
        return asyncio.run(run.atrack(value, cost=cost, **options))
    return run.track(value, cost=cost, **options)


def state(run: Session) -> tuple[Decimal, Decimal, int]:
    """Dollars spent, dollars held, and tool calls."""
    return run.spent_usd, run.reserved_usd, run.report().breakdown.tools.calls


# --- track: already spent


@pytest.mark.parametrize("awaits", [False, True])
def test_what_was_spent_is_booked_and_the_value_handed_on(awaits: bool) -> None:
    run = session()
    rows = ["a"]

    assert tracked(run, rows, cost=0.01, tool="serp_api", awaits=awaits) is rows
    assert tracked(run, rows, cost="$0.02", awaits=awaits) is rows
    by_tool = run.report().breakdown.tools.by_tool
    assert {name: spend.total for name, spend in by_tool.items()} == {
        "serp_api": Decimal("0.01"),
        "tool": Decimal("0.02"),
    }


@pytest.mark.parametrize("awaits", [False, True])
def test_past_the_limit_it_is_booked_and_the_stop_carries_the_value(awaits: bool) -> None:
    run = session("$0.05")

    with pytest.raises(BudgetExceeded) as caught:
        tracked(run, {"rows": 7}, cost="0.08", awaits=awaits)
    assert caught.value.value == {"rows": 7}
    assert caught.value.dimension == "max_cost_usd"
    assert run.spent_usd == Decimal("0.08")


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("who", ["user", "run", "parent"])
def test_after_a_revocation_it_is_booked_and_raises_with_the_value(who: str, awaits: bool) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$5.00")})
    parent = authority.session(Budget("$1.00"), user="u1")
    run = parent.child(Budget("$0.50", max_tool_calls=9)) if who == "parent" else parent
    run.track(1, cost="0.01")
    if who == "user":
        authority.revoke("user", "u1", reason="compromised")
    else:
        parent.revoke("compromised")

    for paid in (2, 3):
        with pytest.raises(BudgetRevoked, match="compromised") as caught:
            tracked(run, paid, cost="0.01", awaits=awaits)
        assert caught.value.value == paid
    assert run.spent_usd == Decimal("0.03")
    assert run.terminated_by == "revoked"


@pytest.mark.parametrize("cost", [float("nan"), -1, "free", None, True, float("inf")])
def test_a_cost_that_is_no_amount_of_money_books_nothing(cost: Any) -> None:
    run = session()

    with pytest.raises(ValueError, match="cost="):
        run.track("x", cost=cost)
    assert state(run) == (ZERO, ZERO, 0)


# --- track_tool: held before the function runs


def test_a_tool_that_does_not_fit_is_not_run() -> None:
    run, ran = session("$0.05"), list[str]()

    @run.track_tool(cost="0.02")
    def search(query: str) -> str:
        ran.append(query)
        return query.upper()

    assert [search("a"), search("b")] == ["A", "B"]
    with pytest.raises(BudgetExceeded) as caught:
        search("c")
    assert ran == ["a", "b"]
    assert caught.value.decision_id is not None
    assert state(run) == (Decimal("0.04"), ZERO, 2)


def test_of_a_hundred_threads_exactly_as_many_bodies_run_as_fit() -> None:
    run, ran = session("$0.10"), list[int]()

    @run.track_tool(cost="0.01")
    def search() -> bool:
        ran.append(1)
        return True

    def once() -> bool:
        try:
            return search()
        except BudgetExceeded:
            return False

    assert sum(race([once] * 100)) == len(ran) == 10
    assert state(run) == (Decimal("0.10"), ZERO, 10)


async def test_of_a_hundred_tasks_exactly_as_many_bodies_run_as_fit() -> None:
    run = session(Budget("$0.10", max_wait_s=0))

    @run.track_tool(cost="0.01")
    async def search() -> bool:
        await asyncio.sleep(0)
        return True

    found = await asyncio.gather(*(search() for _ in range(100)), return_exceptions=True)
    assert found.count(True) == 10
    assert state(run) == (Decimal("0.10"), ZERO, 10)


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_a_plain_tool_waits_for_room_but_not_where_an_event_loop_would_stand_still(on_a_loop: bool) -> None:
    clock = FakeClock()
    run = session(Budget("$0.11", max_wait_s=30), clock=clock)
    apart(run.authorize, call()).require()
    tool = run.track_tool(cost="0.02", tool="t")(lambda: 1)

    async def within() -> None:
        tool()

    began = clock.monotonic()
    with pytest.raises(BudgetExceeded):
        asyncio.run(within()) if on_a_loop else apart(tool)
    assert clock.monotonic() - began == (0 if on_a_loop else 30)


def test_the_estimate_of_the_arguments_is_held_and_the_cost_of_the_result_is_booked() -> None:
    run = session("$0.10")
    held: list[Decimal] = []

    @run.track_tool(estimate=lambda limit: limit * Decimal("0.0001"), cost=lambda rows: len(rows) * Decimal("0.0001"))
    def query(limit: int) -> list[int]:
        held.append(run.reserved_usd)
        return [1] * (limit // 2)

    query(limit=1_000)
    assert held == [Decimal("0.1")]
    assert state(run) == (Decimal("0.05"), ZERO, 1)
    with pytest.raises(BudgetExceeded):
        query(501)
    assert len(held) == 1


def test_a_cost_above_the_estimate_is_charged_in_full_and_reported() -> None:
    run = session("$1.00")
    run.track_tool(estimate="0.01", cost=lambda result: "0.04")(lambda: 1)()

    assert run.spent_usd == Decimal("0.04")
    assert run.report().overrun == Decimal("0.03")


def test_an_estimate_without_a_cost_is_what_is_booked() -> None:
    run = session("$1.00")
    run.track_tool(estimate="0.01")(lambda: 1)()

    assert run.spent_usd == Decimal("0.01")


def test_a_tool_without_a_price_is_free_and_counted() -> None:
    run = session(Budget(max_tool_calls=2))
    free = run.track_tool()(lambda: 1)
    free(), free()

    with pytest.raises(BudgetExceeded) as caught:
        free()
    assert caught.value.dimension == "max_tool_calls"


KINDS_OF_TOOLS = ("plain", "async", "generator", "async generator", "awaitable")


def failing(price: Callable[[Any], Any], kind: str, error: BaseException) -> Callable[[], Any]:
    """A tool of a kind that raises *error*, called to its end."""

    def fail() -> Any:
        raise error

    async def afail() -> Any:
        fail()

    def generate() -> Generator[int]:
        yield 1
        fail()

    async def agenerate() -> AsyncGenerator[int]:
        yield 1
        fail()

    async def drain() -> None:
        async for _ in price(agenerate)():
            pass

    async def direct() -> None:
        await price(afail)()

    async def handed_on() -> None:
        await price(lambda: afail())()

    ways: dict[str, Callable[[], Any]] = {
        "plain": price(fail),
        "async": lambda: _to_end(direct()),
        "generator": lambda: list(price(generate)()),
        "async generator": lambda: _to_end(drain()),
        "awaitable": lambda: _to_end(handed_on()),
    }
    return ways[kind]


@pytest.mark.parametrize(
    ("error", "spent"), [(ValueError("x"), "0.02"), (NotFound(), "0"), (KeyboardInterrupt(), "0.02")]
)
@pytest.mark.parametrize("kind", KINDS_OF_TOOLS)
def test_what_raises_is_booked_unless_it_provably_was_not_billed(kind: str, error: BaseException, spent: str) -> None:
    run = session()
    with pytest.raises(type(error)):
        failing(run.track_tool(cost="0.02", tool="t"), kind, error)()
    assert (run.spent_usd, run.reserved_usd) == (Decimal(spent), ZERO)


@pytest.mark.parametrize("kind", KINDS_OF_TOOLS)
def test_a_tool_of_any_kind_that_fails_again_and_again_is_in_a_loop(kind: str) -> None:
    run = session(Budget("$1.00", loop=LoopPolicy(max_repeats=2)))
    fail = failing(run.track_tool(cost="0.02", tool="t"), kind, ValueError("no match"))
    for _ in range(4):
        with pytest.raises(ValueError):
            fail()
    with pytest.raises(LoopDetected):
        fail()


def _to_end(coroutine: Any) -> Any:
    """Step through a coroutine on a loop that an interrupt does not tear down."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def test_a_cancelled_tool_is_booked_as_held() -> None:
    run = session()

    @run.track_tool(estimate="0.02", cost=lambda result: "0.01")
    async def slow() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    assert run.reserved_usd == Decimal("0.02")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state(run) == (Decimal("0.02"), ZERO, 1)


async def test_a_cancellation_while_it_is_booked_is_kept_back_until_it_is() -> None:
    run = session()
    booking, go_on = asyncio.Event(), asyncio.Event()

    @run.track_tool(cost="0.02")
    async def search() -> int:
        return 1

    aio: Any = run.ledger.aio
    commit = aio.commit

    async def slow_commit(*arguments: Any) -> Any:
        booking.set()
        await go_on.wait()
        return await commit(*arguments)

    aio.commit = slow_commit
    task = asyncio.create_task(search())
    await booking.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state(run) == (Decimal("0.02"), ZERO, 1)


@pytest.mark.parametrize("wrong", [float("nan"), None, "much", -1])
def test_a_cost_function_that_makes_no_sense_books_what_was_held_and_warns_once(wrong: Any) -> None:
    run = session()
    search = run.track_tool(estimate="0.02", cost=lambda result: wrong, tool="search")(lambda: "found")

    with pytest.warns(RuntimeWarning, match="'search' is not known") as told:
        assert [search(), search()] == ["found", "found"]
    assert len(told) == 1
    assert state(run) == (Decimal("0.04"), ZERO, 2)


def test_a_cost_function_that_raises_loses_no_result_where_warnings_are_errors() -> None:
    run = session()

    def cost(result: object) -> str:
        raise KeyError(result)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.track_tool(estimate="0.02", cost=cost)(lambda: "found")() == "found"
    assert run.spent_usd == Decimal("0.02")


@pytest.mark.parametrize("field", ["cost", "estimate"])
@pytest.mark.parametrize("wrong", [float("nan"), "much", -1, True])
def test_an_amount_that_is_none_is_refused_at_decoration(field: str, wrong: Any) -> None:
    run = session()

    def serp_api() -> None: ...

    with pytest.raises(ValueError, match=f"{field} of the tool 'serp_api'"):
        run.track_tool(**{field: wrong})(serp_api)


def test_an_estimate_of_the_arguments_that_makes_no_sense_runs_nothing() -> None:
    run, ran = session(), list[str]()
    search = run.track_tool(estimate=lambda query: float("nan"), tool="search")(ran.append)

    with pytest.raises(ValueError, match="estimate of the tool 'search'"):
        search("x")
    assert (ran, state(run)) == ([], (ZERO, ZERO, 0))


# --- every kind of function


def test_a_generator_is_held_from_its_first_item_to_its_end() -> None:
    run = session()

    @run.track_tool(cost="0.02")
    def pages(first: int) -> Generator[int, int, str]:
        got = yield first
        yield got
        return "done"

    made = pages(1)
    assert run.reserved_usd == ZERO
    assert next(made) == 1
    assert run.reserved_usd == Decimal("0.02")
    assert made.send(5) == 5
    with pytest.raises(StopIteration) as end:
        next(made)
    assert end.value.value == "done"
    assert state(run) == (Decimal("0.02"), ZERO, 1)


@pytest.mark.parametrize("how", ["close", "throw", "collect"])
def test_a_generator_that_is_given_up_is_booked(how: str) -> None:
    run = session()

    @run.track_tool(cost="0.02")
    def pages() -> Generator[int]:
        yield 1
        yield 2

    made: Any = pages()
    next(made)
    if how == "close":
        made.close()
    elif how == "throw":
        with pytest.raises(ValueError):
            made.throw(ValueError("x"))
    del made
    gc.collect()
    assert state(run) == (Decimal("0.02"), ZERO, 1)


async def test_an_async_generator_hands_on_what_is_sent_and_thrown() -> None:
    run, seen = session(), list[str]()

    @run.track_tool(cost="0.02")
    async def pages() -> AsyncGenerator[Any, Any]:
        try:
            seen.append((yield 1))
        except ValueError as error:
            yield f"caught {error}"

    made = pages()
    assert await made.__anext__() == 1
    assert run.reserved_usd == Decimal("0.02")
    assert await made.athrow(ValueError("x")) == "caught x"
    await made.aclose()
    assert state(run) == (Decimal("0.02"), ZERO, 1)
    made = pages()
    await made.__anext__()
    with pytest.raises(StopAsyncIteration):
        await made.asend("sent")
    assert seen == ["sent"]
    assert run.reserved_usd == ZERO


@pytest.mark.parametrize("awaits", [False, True])
def test_a_generator_whose_cost_only_a_result_would_tell_is_refused(awaits: bool) -> None:
    def plain() -> Generator[int]:
        yield 1

    async def later() -> AsyncGenerator[int]:
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        session().track_tool(cost=lambda result: 1)(later if awaits else plain)


async def test_a_plain_function_that_hands_on_an_awaitable_is_booked_when_that_is_done() -> None:
    run = session("$9.00")

    async def inner(result: int) -> int:
        return result

    def hand_on(result: int) -> Awaitable[int]:
        return inner(result)

    price = run.track_tool(estimate="0.02", cost=lambda result: result)
    later = price(hand_on)(1)
    assert run.reserved_usd == Decimal("0.02")
    assert await later == 1
    assert await price(functools.partial(inner, 0))() == 0
    assert await price(lambda: asyncio.ensure_future(inner(2)))() == 2
    assert state(run) == (Decimal(3), ZERO, 3)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_an_awaitable_that_nobody_awaits_is_booked_and_not_leaked() -> None:
    run = session()

    async def inner() -> int:
        return 1

    later = run.track_tool(cost="0.02", tool="t")(lambda: inner())()
    del later
    gc.collect()
    assert state(run) == (Decimal("0.02"), ZERO, 1)


def test_methods_and_objects_that_can_be_called_are_tools_too() -> None:
    run = session()

    class Service:
        def __init__(self) -> None:
            self.bound = run.track_tool(cost="0.01")(self.find)

        def find(self, query: str) -> str:
            return query

        @run.track_tool(cost="0.01")
        def method(self, query: str) -> str:
            return query

        def __call__(self, query: str) -> str:
            return query

    service = Service()
    called = run.track_tool(cost="0.01")(service)
    assert [service.bound("a"), service.method("b"), called("c")] == ["a", "b", "c"]
    assert set(run.report().breakdown.tools.by_tool) == {"find", "method", "Service"}


async def test_an_object_whose_call_is_async_is_awaited() -> None:
    run = session()

    class Service:
        async def __call__(self) -> int:
            return 1

    assert await run.track_tool(cost="0.01")(Service())() == 1
    assert run.spent_usd == Decimal("0.01")


def test_signature_name_and_documentation_stay() -> None:
    def search(query: str, limit: int = 3) -> list[str]:
        """Search it."""
        return [query] * limit

    found = session().track_tool(cost=1)(search)
    assert inspect.signature(found) == inspect.signature(search)
    assert (found.__name__, found.__doc__) == ("search", "Search it.")
    assert not inspect.iscoroutinefunction(found)


@pytest.mark.parametrize("wrong", [3, "search", None])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        session().track_tool(cost=1)(wrong)


# --- an adapter above


def test_a_call_that_an_adapter_counts_is_counted_once_and_its_cost_added() -> None:
    run = session(Budget("$1.00", max_tool_calls=2))
    search = run.track_tool(cost="0.02", tool="search")(lambda: 1)

    above = run.authorize(ToolCall("search", 10_000_000)).require()
    search()
    above.commit_cost()
    assert state(run) == (Decimal("0.03"), ZERO, 1)
    assert run.committed.tool_calls == 1
    search()
    assert run.committed.tool_calls == 2
    with pytest.raises(BudgetExceeded):
        search()


def test_each_call_that_an_adapter_counts_is_claimed_once_and_by_its_name() -> None:
    run = session("$1.00")
    search = run.track_tool(cost="0.01", tool="search")(lambda: 1)

    @run.track_tool(cost="0.01")
    def recursive(again: bool) -> int:
        return recursive(False) if again else 1

    above = run.authorize(ToolCall("search")).require()
    search(), search(), recursive(True)
    above.commit_cost()
    assert run.committed.tool_calls == 4  # the second search, and each of the recursive ones, is a call of its own


def test_what_nobody_awaited_by_the_end_of_the_process_is_left_to_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.finalize[..., Any]] = []

    class Noted(weakref.finalize):  # type: ignore[type-arg]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    async def later() -> int:
        return 1

    monkeypatch.setattr(weakref, "finalize", Noted)
    run = session()
    waiting = run.track_tool(cost="0.01")(lambda: later())()  # no coroutine function, but what returns one
    assert made and not any(each.atexit for each in made)
    assert asyncio.run(waiting) == 1
    assert run.spent_usd == Decimal("0.01")


# --- tools of a module


@track_tool(cost="0.02", tool="module_tool")
def module_tool() -> int:
    return 1


def test_a_function_that_is_decorated_for_the_session_of_its_caller_runs_as_before() -> None:
    @track_tool(cost="0.02", tool="doubling", agent="Named")
    def double(number: int) -> int:
        return 2 * number

    with session() as run:
        assert double(3) == 6
    assert run.report().breakdown.tools.by_tool["doubling"].total == Decimal("0.02")
    assert run.report().by_agent["Named"].total == Decimal("0.02")


def test_a_tool_of_a_module_spends_from_the_session_that_it_is_called_in() -> None:
    with session() as outer:
        module_tool()
        with session() as inner:
            module_tool()
            assert current_session() is inner
        assert current_session() is outer
    assert (outer.spent_usd, inner.spent_usd) == (Decimal("0.02"), Decimal("0.02"))


async def test_tasks_and_async_blocks_have_their_own_current_session() -> None:
    async def one() -> Session:
        async with session() as run:
            await asyncio.sleep(0)
            module_tool()
            assert current_session() is run
            return run

    assert [run.spent_usd for run in await asyncio.gather(one(), one(), one())] == [Decimal("0.02")] * 3


def test_outside_of_any_session_a_tool_of_a_module_says_so_and_does_not_run() -> None:
    told: list[str] = []

    def elsewhere() -> None:
        try:
            module_tool()
        except TypeError as error:
            told.append(str(error))

    with session() as run:
        lost = threading.Thread(target=elsewhere)
        found = threading.Thread(target=contextvars.copy_context().run, args=(elsewhere,))
        for thread in (lost, found):
            thread.start()
            thread.join()
    with pytest.raises(TypeError, match="no session is open"):
        current_session()
    assert len(told) == 1 and "copy_context" in told[0]
    assert run.spent_usd == Decimal("0.02")


def test_a_session_that_is_closed_elsewhere_leaves_the_block_as_it_was() -> None:
    with session() as outer:
        inner = session()
        inner.__enter__()
        threading.Thread(target=inner.__exit__, args=(None, None, None)).start()
        inner.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        assert current_session() is outer


# --- revoked, priced by another process


def test_a_revoked_user_runs_no_tool() -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$5.00")})
    run, ran = authority.session(Budget("$1.00"), user="u1"), list[int]()
    search = run.track_tool(cost="0.01")(lambda: ran.append(1))
    search()
    authority.revoke("user", "u1", reason="compromised")

    with pytest.raises(BudgetRevoked, match="compromised"):
        search()
    assert ran == [1]


@pytest.mark.parametrize("header", ["x-request-id", "request-id", None])
def test_a_response_whose_body_names_no_id_is_known_by_that_of_its_request(header: str | None) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}
    body = {"object": "chat.completion", "model": "large", "choices": [choice], "usage": usage}

    def response(ident: str) -> Any:
        headers = {} if header is None else {header: ident}
        return SimpleNamespace(status_code=200, url="https://e/v1/chat/completions", headers=headers, json=lambda: body)

    run = session()
    for ident in ("a", "a", "b"):
        run.wrap(response(ident))
    assert run.report().breakdown.llm.calls == (3 if header is None else 2)


@pytest.mark.parametrize("method", ["__next__", "__anext__", "__aiter__"])
def test_a_stream_of_any_kind_is_refused_and_counted_as_a_call_of_unknown_cost(method: str) -> None:
    run, stream = session(), type("Stream", (), {method: lambda self: None})()
    with pytest.raises(TypeError, match="stream"):
        run.wrap(stream)
    assert run.report().unpriced_calls == 1


@pytest.mark.parametrize(("status", "json"), [(200, {"a": 1}), ("200", dict), (True, dict), (None, dict)])
def test_what_is_no_response_of_an_http_library_is_no_answer(status: Any, json: Any) -> None:
    run = session()
    with pytest.raises(TypeError, match="SimpleNamespace is none that is known"):
        run.wrap(SimpleNamespace(status_code=status, json=json, url="https://e/v1/chat/completions", headers={}))
    assert run.report().breakdown.llm.calls == 0


async def test_an_answer_that_can_be_parsed_and_is_no_raw_response_is_read_as_it_is() -> None:
    class Parsed(dict[str, Any]):
        def parse(self) -> Any:
            raise AssertionError("nobody asked for it")

    usage = {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}
    answer = Parsed(object="chat.completion", model="large", choices=[choice], usage=usage)
    for spending, wrapped in ((run := session(), run.wrap(answer)), (run := session(), await run.awrap(answer))):
        assert wrapped is answer
        assert spending.spent_usd == Decimal("0.00035")


@pytest.mark.parametrize("tier", ["default", "priority", "flex"])
def test_an_answer_that_is_wrapped_costs_what_its_tier_does(tier: str) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}
    run = session()
    run.wrap({"object": "chat.completion", "model": "gpt-5", "choices": [choice], "usage": usage, "service_tier": tier})
    price = PriceTable.bundled().find("gpt-5", service_tier=tier)
    assert run.spent_usd == to_usd(price.cost(Usage(input=50, output=30))) > 0


def test_an_answer_that_has_to_be_awaited_is_refused_and_leaves_no_warning() -> None:
    async def answered_later() -> dict[str, Any]:
        return {}

    class Raw:
        http_response = None

        def parse(self) -> Any:
            return answered_later()

    run = session()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(TypeError, match="given a coroutine"):
            run.wrap(cast("object", answered_later()))
        with pytest.raises(TypeError, match="given a raw response that has to be awaited"):
            run.wrap(Raw())
        gc.collect()
    assert [each for each in warned if "answered_later" in str(each.message)] == []
    assert run.spent_usd == 0


def test_an_answer_is_not_taken_for_one_that_was_where_it_is_now() -> None:
    class Answer:
        pass

    known, gone, answer = KnownAnswers(), Answer(), Answer()
    known._objects[id(answer)] = weakref.ref(gone)
    assert [known.add_object(answer) for _ in range(2)] == [True, False]
    known.forget(None, answer)
    assert known.add_object(answer)
    plain: dict[str, Any] = {}  # nothing can refer to it weakly
    assert [known.add_object(plain) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("said", "missing"), [({}, "a part of the usage"), ({"usage": None}, "the usage")])
def test_an_answer_of_unknown_cost_says_what_of_it_is_missing(said: dict[str, Any], missing: str) -> None:
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}
    heard = {"prompt_tokens_details": {"audio_tokens": 5}}
    usage = {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80, **heard}
    run = session()
    with pytest.raises(UnknownPriceError) as stop:
        run.wrap({"object": "chat.completion", "model": "large", "choices": [choice], "usage": usage, **said})
    assert stop.value.missing == missing
    assert run.report().unpriced_calls == 1
