"""Made-up calls of guarded models, whole and streamed, one within another, and all that becomes of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from typing import Any

from budget_guard import Budget, BudgetError, DowngradePolicy, LoopPolicy, Session, Usage
from budget_guard.adapter import Stops, stops_for
from budget_guard.adapter.handle import SessionSettings, check_budget, check_choice, check_principals, forked
from budget_guard.adapter.model_guard import Answered, ModelGuard, refusal_in, session_of
from budget_guard.adapter.tool_costs import ToolCosts
from budget_guard.adapter.wrapping import check_instance
from budget_guard.testing import FakeClock
from tests.builders import PRICES, call, session
from tests.reference_text import plain, without_ids

HISTORIES = 100


class _Refused(Exception):
    """The base of a framework's errors."""


_STOPS: Stops = stops_for(_Refused)


class _History:
    """A guarded model, perhaps of one that is guarded already, and a few calls of it."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.awaits = number % 2 == 1
        self.clock = FakeClock()
        self.told: list[str] = []

    def session(self, name: str) -> Session:
        chance = self.chance
        dear = chance.random() < 0.3
        budget = Budget(
            max_cost_usd=chance.choice(["0.02", "0.05", "0.5"]),
            max_requests=1 if dear else None,
            soft_limit=chance.choice([None, 0.5]),
            downgrade=chance.choice([None, None, DowngradePolicy(to={"large": "small"}, at=0.1)]),
            mode=chance.choice(["hard_gate", "hard_gate", "hard_gate", "soft_gate"]),
            call_max_output_tokens=chance.choice([None, None, 20]),
            max_wait_s=0,
            loop=chance.choice([None, None, LoopPolicy(max_repeats=2)]),
        )
        made = session(budget, clock=self.clock, run_id=name)
        made.subscribe(lambda event: self.told.append(f"{name} {plain(event)}"))
        return made

    async def lines(self) -> list[str]:
        chance, lines = self.chance, []
        below = ModelGuard(self.session("b"), _STOPS, owner="m", agent=chance.choice([None, "inner"]))
        inner = chance.choice([None, None, below])
        own = below.session if chance.random() < 0.15 else self.session("a")
        guard = ModelGuard(own, _STOPS, owner="m", agent=chance.choice([None, "outer"]), inner=inner)
        lines.append(f"{[each.id for each in guard.sessions]} {guard.agent} {guard.budget.mode}")
        for _ in range(chance.choice([1, 2, 3])):
            try:
                if chance.random() < 0.25:
                    with guard.around():
                        await self._call(guard, below, lines)
                else:
                    await self._call(guard, below, lines)
            except BaseException as error:
                lines.append(
                    f"raises {type(error).__mro__[1].__name__} {plain(error)} {type(error.__cause__).__name__}"
                )
                if isinstance(error, BudgetError):
                    lines.append(f"  partial {error.partial_output!r}")
            latched = guard.latch.get()
            lines.append(f"latched {latched and plain(latched.error)}")
            lines += [f"  {line}" for line in self.told]
            self.told.clear()
            if chance.random() < 0.1:
                guard.raise_limits(max_cost_usd="0.9")
            if chance.random() < 0.1:
                guard.revoke("enough")
        for each in dict.fromkeys((guard.session, below.session)):
            if each is guard.session or inner is not None:
                lines.append(f"{each.id} {each.spent_usd} {each.reserved_usd} {each.report().breakdown.llm.calls}")
        return lines

    async def _call(self, guard: ModelGuard, below: ModelGuard, lines: list[str]) -> None:
        chance = self.chance
        asked = call(
            chance.choice(["large", "large", "small", "unheard-of"]), tokens=40, cap=chance.choice([None, 30, 900])
        )
        held = await guard.ahold(asked) if self.awaits else guard.hold(asked)
        lines.append(f"held {held.name} {held.output_cap} {[each.id for each in held.sessions]}")
        answer = Answered(
            chance.choice([None, Usage(input=30, output=20), Usage(input=30, output=9_000)]),
            chance.random() < 0.3,
            chance.choice([None, "Hello"]),
        )
        what = chance.choice(["fine", "fine", "fine", "error", "refused", "unchanged", "inside", "left"])
        if chance.random() < 0.5:
            await self._whole(guard, below, held, answer, what, lines)
        else:
            await self._stream(guard, below, held, answer, what, lines)

    def _fail(self, guard: ModelGuard, below: ModelGuard, held: Any, what: str, lines: list[str]) -> None:
        if what == "error":
            raise self.chance.choice([ValueError("odd"), TimeoutError("late"), KeyboardInterrupt()])
        if what == "refused":
            try:
                raise below.stops.recast(_refusal()) if self.chance.random() < 0.5 else _refusal()
            except BudgetError as error:
                if self.chance.random() < 0.5:
                    raise
                raise RuntimeError("the client's own") from error
        if what == "unchanged":
            raise guard.cannot_be_changed(call("large"), held, self)
        if what == "inside":
            again = below.hold(call("small", tokens=40, cap=20))
            lines.append(f"inside {again.name} {len(again.sessions)}")
            with below.making(again):
                pass
            below.settle(again, Answered(Usage(input=9, output=9)))

    async def _whole(
        self, guard: ModelGuard, below: ModelGuard, held: Any, answer: Answered, what: str, lines: list[str]
    ) -> None:
        if self.awaits:
            async with guard.amaking(held):
                self._fail(guard, below, held, what, lines)
            await guard.asettle(held, answer)
        else:
            with guard.making(held):
                self._fail(guard, below, held, what, lines)
            guard.settle(held, answer)

    async def _stream(
        self, guard: ModelGuard, below: ModelGuard, held: Any, answer: Answered, what: str, lines: list[str]
    ) -> None:
        at, seen = self.chance.randrange(4), [0]
        size = self.chance.choice([1, 400, 30_000])

        def pieces() -> Iterator[int]:
            try:
                for number in range(3):
                    if number == at:
                        self._fail(guard, below, held, what, lines)
                    yield number
            finally:
                lines.append("closed")

        async def later() -> AsyncIterator[int]:
            for number in pieces():
                yield number

        def read(piece: int) -> int:
            seen[0] += size
            return seen[0]

        async def told() -> Answered:
            return answer

        if self.awaits:
            stream = guard.astream(held, later(), read, told)
            async for piece in stream:
                lines.append(f"piece {piece}")
                if what == "left" and piece == at:
                    await stream.aclose()
                    return
        else:
            whole = guard.stream(held, pieces(), read, lambda: answer)
            for piece in whole:
                lines.append(f"piece {piece}")
                if what == "left" and piece == at:
                    whole.close()
                    return


def _refusal() -> BudgetError:
    run = session("$0.01")
    error = run.authorize(call("dime")).error
    assert error is not None
    return error


def guards() -> Iterator[str]:
    """What becomes of the calls of guarded models."""
    for number in range(HISTORIES):
        for line in Context().run(asyncio.run, _History(number).lines()):
            yield f"{number}: {without_ids(line)}"


# The parts that adapters are made with

_ODD: tuple[Any, ...] = (None, "$5", 5, Budget, Session, [], Budget("$1"))


def parts() -> Iterator[str]:
    """Settings, costs and checks, by what they are given."""
    for given in _ODD:
        for check in (check_budget, session_of):
            yield f"{check.__name__} {given!r}: {_tried(check, given, 'Guard(Budget(...))')}"
    for value in ("raise", "keep", "odd", None, 3):
        yield f"{value!r}: {_tried(check_choice, 'on_cut_off', value, _choices())}"
    for principals in ({}, {"user": "u"}, {"user": ""}, {"user": 3, "team": None}, {"feature": "f"}):
        for authority in (None, object()):
            yield f"{principals} {authority is None}: {_tried(check_principals, principals, authority, ModelGuard)}"
    costs: tuple[Any, ...] = (
        None,
        {},
        {"f": "0.5", "g": lambda result: len(result)},
        {"f": -1},
        {"f": "x"},
        {"f": None},
        {"h": 0.25, "i": 0},
    )
    for given in costs:
        yield f"costs {given and sorted(given)}: {_tried(_costs, given)}"
    for depth in range(20):
        error: BaseException = _refusal()
        for _ in range(depth):
            above = RuntimeError("above")
            above.__cause__ = error
            error = above
        yield f"{depth}: {type(refusal_in(error)).__name__} {refusal_in(ValueError('x'))}"
    for given in (ModelGuard, 3, "x", ToolCosts(None)):
        told = _tried(check_instance, "model", given, ToolCosts, "model", "guard(model)")
        yield f"{type(given).__name__}: {told}"
    every: tuple[dict[str, Any], ...] = (
        *(
            {},
            {"user": "u1"},
            {"pricing": PRICES, "team": "t"},
            {"run_log": 3},
            {"run_log": []},
            {"ledger": "memory://"},
        ),
        *({"on_cancel": "x"}, {"key": "k", "feature": "f", "agent": "a"}, {"per_million": {"large": (1, 2)}}),
    )
    changes: tuple[dict[str, Any], ...] = (
        *({}, {"user": "u2"}, {"odd": 1}, {"budget": Budget("$2")}, {"ledger": "memory://"}, {"downgrade_to": "tiny"}),
        {"budget": Budget("$2", downgrade=DowngradePolicy(to="small"))},
        {"budget": Budget("$2", downgrade=DowngradePolicy(to="small")), "downgrade_to": "tiny"},
    )
    for settings in every:
        for change in changes:
            yield f"settings {sorted(settings)} {sorted(change)}: {_tried(_settings, settings, change)}"


def _settings(given: dict[str, Any], changes: dict[str, Any]) -> Any:
    usual = dict.fromkeys(("authority", "user", "key", "team", "feature", "pricing"))
    made = SessionSettings(**{**usual, **given})
    opened = made.open(Budget("$1", soft_limit=None), "r1")
    own = {"downgrade_to": "small", "downgrade_at": 0.8}
    changed = forked(Budget("$1"), made, own, changes, ModelGuard.hold)
    told = {name: value for name, value in changed.items() if isinstance(value, (str, float, type(None)))}
    return opened.id, sorted(opened.report().tags.items()), told, sorted(changed), made.past_runs()


def _choices() -> Any:
    from budget_guard.adapter.handle import OnCutOff

    return OnCutOff


def _costs(given: Any) -> Any:
    made = ToolCosts(given)
    found = [tuple(made.call(name, agent)) for name in ("f", "g", "h", "none") for agent in (None, "a")]
    results = [(made.depends_on_result(name), made.of_result(name, "four")) for name in ("f", "g", "h", "none")]
    before = sorted(made.unseen), made.looked
    made.saw(["f", "none"])
    return found, results, before, sorted(made.unseen), made.looked, made.seen_any


def _tried(function: Any, *args: Any) -> Any:
    try:
        told = function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200].split(' at 0x')[0]}"
    return "a session" if isinstance(told, Session) else told
