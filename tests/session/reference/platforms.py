"""Made-up platforms, whose accounts are kept in full: many sessions of several principals on one ledger that is out of
reach at times.

They go on where `accounts` leave off: ceilings of several windows, plans, exceptions and kinds of one's own, places and
runs that are counted, calls that come twice with one key or are settled by another process, tools that are tracked,
children within children, and a ledger that answers late, or not at all.
`python -m tests.session.reference.make` writes them down in `platforms.txt.gz`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from datetime import timedelta
from typing import Any

from budget_guard import Budget, BudgetAuthority, BudgetError, MemoryLedger, ModelCall, Session, ToolCall, Usage
from budget_guard.calls.decision_json import decision_text
from budget_guard.calls.enclosing import holds_around
from budget_guard.calls.idempotency import IdempotencyKey
from budget_guard.calls.seen import Seen
from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import FakeClock
from tests.builders import PRICES
from tests.reference_text import plain, without_ids
from tests.session.reference.accounts import Account
from tests.session.reference.stories import steps_of

PLATFORMS = 280
GROUPS = 8
"""So many tests tell them."""
_FIRST = 50_000
_ERRORS = (BudgetError, TypeError, ValueError, KeyError, ConnectionError)


class Weather(LedgerWrapper):
    """The way to a ledger: it may be closed, or lose every third answer."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(MemoryLedger(clock=clock))
        self.mood = "fine"
        self._asked = 0

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        """Pass it on, or do not."""
        if self.mood == "closed":
            raise LedgerUnavailable(detail="no route to host")
        answer = yield verb, arguments
        self._asked += 1
        if self.mood == "lossy" and self._asked % 3 == 0:
            raise LedgerAmbiguous(detail="timed out")
        return answer


class NotFound(ConnectionError):
    status_code = 404


class Platform(Account):
    """An authority and the sessions that it opens."""

    authority: BudgetAuthority

    def __init__(self, number: int) -> None:
        self.awaits = number % 2 == 1
        self._begin(number + _FIRST)
        self.over: list[Any] = []
        self.decisions: list[Any] = []
        self.weather = Weather(self.clock)
        self.silent = True
        chance = self.chance
        windows = [Budget("2", max_requests=30, window="day"), Budget("$5", window="month")]
        hints = Budget("0.05", mode="advisory_estimate")
        ceilings: dict[str, Any] = {
            "user": chance.choice([windows, self._budget(plain=True), Budget("$9", max_runs=3, window="day")]),
            **({"team": hints} if chance.random() < 0.4 else {}),
            **({"org": self._budget(plain=True)} if chance.random() < 0.4 else {}),
            **({"agent": Budget("0.2")} if chance.random() < 0.4 else {}),
        }
        self.plans = ["free", "pro"] if chance.random() < 0.4 else []
        plans: dict[str, dict[str, Any]] = {
            "free": {"user": Budget("0.04", window="day"), "org": Budget("$1")},
            "pro": {"user": [Budget("$3", window="day"), Budget("$8", window="month")]},
        }
        self.authority = BudgetAuthority(
            self.weather,
            None if self.plans and chance.random() < 0.3 else ceilings,
            plans=plans if self.plans else None,
            pricing=PRICES,
            clock=self.clock,
            kinds=("org",),
            max_live_runs={"user": 2} if chance.random() < 0.3 else None,
            run_ttl_s=chance.choice([60, 3_600]),
            on_ledger_error=chance.choice([None, None, "open", "closed"]),
            require=chance.choice([None, None, None, ("user",), ()]),
        )
        self.sessions: list[Session] = []
        self.texts: list[str] = []
        self.told.clear()
        if self.plans:
            self.authority.assign("user", "u1", chance.choice(self.plans))
        self._open(user="u1", run_id="r1")

    def _open(self, **named: Any) -> str:
        options = {name: self._hear(name) for name in ("on_soft_limit", "on_hard_limit", "on_downgrade")}
        session = self.do(
            self.authority,
            "session",
            self._budget(),
            run_log=self._maybe(0.5, self),
            on_cancel=self.chance.choice(["bound", "bound", "seen"]),
            **options,
            **named,
        )
        if self.chance.random() < 0.5:
            session.subscribe(lambda event: self.told.append(f"  {plain(event)}"))
        if self.chance.random() < 0.2:
            session.add_agent("Named")
        self.sessions.append(session)
        self.session = session
        return f"{session.id} {session._run.scopes} {session._run.tags}"

    def _hear(self, name: str) -> Callable[[Any], None]:
        return lambda report: self.told.append(f"  {name} {plain(report.total_spent)}")

    def _model_call(self) -> ModelCall:
        """A call as of stories, and with all that other calls may have."""
        asked, chance = super()._model_call(), self.chance
        more: dict[str, Any] = {
            "tool_fees": self._maybe(0.1, chance.choice([(("web_search", 5_000_000), ("ocr", 30)), (("ocr", 30),)])),
            "kinds": self._maybe(
                0.15, frozenset(chance.choice([[], ["input_audio"], ["input_audio", "output_image"]]))
            ),
            "provider": self._maybe(0.1, chance.choice(["openai", "anthropic"])),
            "region": self._maybe(0.1, "eu"),
            "search_context": self._maybe(0.1, "high"),
            "started_by": ("Other",) if chance.random() < 0.1 else (),
        }
        if more["tool_fees"]:
            more["hosted_tools"] = ("web_search", "ocr")
        return asked._replace(**{name: value for name, value in more.items() if value is not None and value != ()})

    def _usage(self) -> Usage | None:
        usage, chance = super()._usage(), self.chance
        if usage is None or chance.random() < 0.8:
            return usage
        kinds = ("input_audio", "cache_audio", "input_image", "output_audio", "output_image", "cache_write_1h")
        more: dict[str, Any] = {name: chance.choice([0, 0, 20]) for name in kinds}
        units = [(), (("ocr", 2),), (("ocr", 1), ("unexplained_tokens", 30)), (("input_video_tokens", 9),)]
        return usage._replace(**more, other=chance.choice(units))

    # Steps

    def estimate(self) -> str:
        """Give an answer up, of which more or less was seen."""
        hold, chance = self.open.pop(0), self.chance
        self.over.append(hold)
        text = chance.choice(["", "x" * 40, "word " * 900])
        seen = self._maybe(0.8, Seen(text, self._usage(), chance.choice([None, True, False])))
        return f"{self.do(hold, 'commit_estimate', 'timed out', seen)} {plain(hold.posting)}"

    def open_one(self) -> str:
        """Open another session, or one run again."""
        chance = self.chance
        named = {
            "user": self._maybe(0.85, chance.choice(["u1", "u1", "u2"])),
            "team": self._maybe(0.4, "t1"),
            "org": self._maybe(0.4, "o1"),
            "agent": self._maybe(0.3, "Other"),
            "feature": self._maybe(0.3, "search"),
            "run_id": self._maybe(0.7, chance.choice(["r1", "r2", "r3"])),
        }
        return self._open(**named)

    def switch(self) -> str:
        """Go on with another session."""
        self.session = self.chance.choice(self.sessions)
        return f"{self.session.tags if hasattr(self.session, 'tags') else self.sessions.index(self.session)}"

    def close_one(self) -> str:
        """Close the session, which may go on all the same."""
        how = self.chance.choice(["close", "close", "with", "failing"])
        if how == "close":
            self.do(self.session, "close")
        else:
            try:
                with self.session:
                    if how == "failing":
                        raise ConnectionError
            except ConnectionError:
                pass
        return f"{how} {self.session.outcome} {self.session.terminated_by}"

    def change_weather(self) -> str:
        """Close the way to the ledger, have it lose answers, or open it again."""
        self.weather.mood = self.chance.choice(["fine", "closed", "lossy"])
        return self.weather.mood

    def clear_up(self) -> str:
        """Open the way to the ledger."""
        self.weather.mood = "fine"
        return f"{self.authority.outbox.pending} {len(self.authority.outbox.entries())}"

    def keyed(self) -> str:
        """Ask for a call that may have come before."""
        chance = self.chance
        key = chance.choice(["k1", "k2", IdempotencyKey("k1", "other"), IdempotencyKey("k3", "body")])
        asked = chance.choice([self._model_call(), ToolCall("serp", 10_000_000), ToolCall("mail", 5, counts=False)])
        if chance.random() < 0.6:
            asked = ToolCall("serp", 10_000_000)
        decision = self.do(self.session, "authorize", asked, idempotency_key=key, sent=chance.random() < 0.5)
        return f"{key} {self._decided(decision)}"

    def lasting(self) -> str:
        """Hold a call for longer than others."""
        decision = self.do(self.session, "authorize", self._model_call(), hold_ttl_s=self.chance.choice([5.0, 4_000.0]))
        return self._decided(decision)

    def put_in_writing(self) -> str:
        """Hand a decision to another process."""
        text = decision_text(self.decisions[-1])
        self.texts.append(text)
        return without_ids(text)

    def take_up(self) -> str:
        """Go on with a call of another process."""
        if not self.texts:
            return "nothing"
        decision = self.session.take_up(self.chance.choice(self.texts))
        return self._decided(decision)

    def others(self) -> str:
        """Which models could take what was refused."""
        found = self.do(self.session, "alternatives", self.decisions[-1], models=["small", "tiny", "unheard-of"])
        return plain(found)

    def tool_function(self) -> str:
        """Call a function that is tracked."""
        chance = self.chance
        error = self._maybe(0.3, chance.choice([NotFound(), ConnectionError("gone")]))
        how: dict[str, Any] = chance.choice(
            [
                {"cost": "0.01"},
                {"estimate": "0.02"},
                {"estimate": "0.02", "cost": lambda found: len(found) * 0.01},
                {"cost": lambda found: "much"},
                {},
            ]
        )
        found = "x" * chance.choice([0, 1, 5])
        kind = chance.choice(["plain", "async", "generator", "async generator"])
        tracked = self.session.track_tool(**how, tool="find", agent=self._maybe(0.2, "Named"))
        if kind.endswith("generator") and callable(how.get("cost")):
            kind = "plain"
        return f"{kind} {how.keys()} {_called(kind, tracked, found, error)}"

    def nested(self) -> str:
        """A child of a child, which spends."""
        budget = Budget("0.3", max_requests=4, max_total_tokens=90_000, max_output_tokens=50_000, max_tool_calls=3)
        child = self.do(self.session, "child", budget)
        inner = self.do(child, "child", budget)
        spent = self.do(inner, "authorize", ToolCall("serp", 10_000_000))
        self.decisions.append(spent)
        around = len(holds_around(()))
        if spent.reservation is not None and self.chance.random() < 0.7:
            self.do(spent.reservation, "commit_cost", "0.02")
        for each in (inner, child) if self.chance.random() < 0.8 else (child, inner):
            self.do(each, "close")
        return f"{spent.action} {around} {plain(child.report().total_spent)} {plain(inner.report().total_spent)}"

    def wrap_other(self) -> str:
        """Book answers of many kinds that were asked for without the guard."""
        chance = self.chance
        answers: list[Any] = [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "model": "small",
                "content": [],
                "usage": {"input_tokens": 40, "output_tokens": 9},
            },
            {
                "object": "response",
                "id": "resp_1",
                "model": "large",
                "output": [],
                "usage": {"input_tokens": 40, "output_tokens": 9, "total_tokens": 49},
            },
            {"candidates": [], "modelVersion": "tiny", "usageMetadata": {"promptTokenCount": 40}},
            {"unheard": "of"},
            iter(()),
            "text",
            None,
        ]
        model = self._maybe(0.2, "dime")
        answer = chance.choice(answers)
        return f"{type(answer).__name__} {self.do(self.session, 'wrap', answer, model=model, agent='Named') is answer}"

    def exceptions(self) -> str:
        """Make an exception of a user, or give one a plan."""
        chance, authority = self.chance, self.authority
        kind, id = chance.choice([("user", "u1"), ("user", "u2"), ("org", "o1"), ("team", "t9")])
        look = chance.choice(["set", "own", "assign", "report", "cut off", "give back", "earlier", "since"])
        if look == "set":
            given = [None, self._budget(plain=True), [Budget("$1", window="day"), Budget("$2", window="month")]]
            self.do(authority, "set_ceiling", kind, id, chance.choice(given))
        elif look == "own":
            return plain([each.limits for each in self.do(authority, "own_ceiling", kind, id) or ()])
        elif look == "earlier":
            return plain(self.do(authority, "snapshot", kind, id, window=-chance.choice([1, 2])))
        elif look == "since":
            now = self.clock.now()
            since, until = chance.choice([(None, now), (now.date(), None), (now - timedelta(hours=30), now)])
            rows = self.do(authority, "usage", kind, id, since=since, until=until, by=("hour", "day", "month"))
            return f"{plain(rows)} {plain(self.do(authority, 'top', kind, 2, since=since, until=until))}"
        elif look == "assign":
            self.do(authority, "assign", kind, id, chance.choice([None, *self.plans]))
        elif look == "report":
            return plain(self.do(authority, "report", chance.choice(["r1", "r2", "r9"])))
        elif look == "cut off" and chance.random() < 0.4:
            self.do(authority, "revoke", kind, id, reason="stolen")
        elif look == "give back":
            return f"{self.do(authority, 'restore', kind, id)}"
        return f"{look} {kind} {id}"

    def carry_over(self) -> str:
        """Go on from what was spent elsewhere."""
        self.session.carry_over(self.session.committed.plus(self.session.committed))
        return plain(self.session.committed)

    def much_later(self) -> str:
        """Three months later what happened by the hour is known by the day, or in all."""
        self.clock.advance(95 * 86_400)
        return f"{self.clock.now():%d %H:%M:%S}"

    def figures(self) -> str:
        """What can be asked of a session, in the other of the two ways as well."""
        left = self.do(self.session, "least_remaining_usd")
        known = [self.session.knows_price_of(name) for name in ("large", "unheard-of")]
        return f"{plain(left)} {known} {self.session.near_limit} {plain(self.session.spent_fraction)}"

    _STEPS = (
        *["authorize"] * 4,
        *["settle"] * 4,
        *["commit"] * 2,
        *["again"] * 2,
        *["open_one"] * 5,
        *["switch"] * 4,
        *["change_weather"] * 3,
        *["clear_up"] * 3,
        *["keyed"] * 5,
        *["tool_function"] * 4,
        *["exceptions"] * 4,
        *["ceilings"] * 3,
        *("close_one", "lasting", "put_in_writing", "take_up", "take_up", "others", "others", "nested", "wrap_other"),
        *(
            "wrap_other",
            "carry_over",
            "figures",
            "tool",
            "estimate",
            "release",
            "later",
            "later",
            "ask",
            "raise_limits",
        ),
    )

    def steps(self) -> Iterator[str]:
        yield f"awaits={self.awaits} {self.authority.kinds} {self.plans}"
        for _ in range(26):
            name = self.chance.choice(self._STEPS)
            if not self.open and name in ("commit", "settle", "estimate", "release"):
                continue
            if not self.decisions and name in ("put_in_writing", "others"):
                continue
            try:
                said = getattr(self, name)()
            except _ERRORS as error:
                said = f"raises {plain(error)}"
            yield f"{name}: {said}"
            yield from self.told
            self.told.clear()
        self.weather.mood = "fine"
        for each in self.sessions:
            try:
                self.do(each, "close")
            except _ERRORS as error:
                yield f"raises {plain(error)}"
            report = self.do(each, "report")
            yield plain(report)
            yield from map(plain, report.events)
        yield from self.told
        for kind in ("user", "team", "org", "run"):
            yield plain(self.do(self.authority, "list", kind))
            # the ids of runs are made up anew each time, and so is their order
            yield plain(self.do(self.authority, "usage", kind, by=("model",) if kind == "run" else ("id", "model")))
        outbox = self.authority.outbox
        yield f"{plain(self.weather.audit())} {len(outbox.entries())} {len(outbox.rejected)} {len(outbox.releases)}"


def _called(kind: str, tracked: Callable[[Any], Any], found: str, error: Exception | None) -> str:
    """What a tool of a kind brings that finds *found* or raises *error*."""

    def find() -> str:
        if error is not None:
            raise error
        return found

    async def afind() -> str:
        return find()

    def finds() -> Generator[str]:
        yield from find()

    async def afinds() -> AsyncGenerator[str]:
        for each in find():
            yield each

    async def awaiting() -> str:
        if kind == "async":
            return str(await tracked(afind)())
        return "".join([each async for each in tracked(afinds)()])

    if kind == "plain":
        return str(tracked(find)())
    return "".join(tracked(finds)()) if kind == "generator" else asyncio.run(awaiting())


def lines_of(group: int) -> Iterator[str]:
    """All steps of a group of platforms."""
    return steps_of("platform", lambda number: Platform(number).steps(), range(group, PLATFORMS, GROUPS))
