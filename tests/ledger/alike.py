"""Made-up histories that two ledgers live through, and where the answers of one differ from those of the other.

`machine` compares a ledger with a naive one by what it has to be right in; this compares every answer in full: each
field of a refusal, each sum of the history by any of its labels and hours, names, errors, and what is kept beside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from budget_guard.errors import BudgetError
from budget_guard.ledger import Ledger, Refused, Settled
from budget_guard.ledger.history import BY, By, Labels, UsageLine, UsageQuery
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.ledger.machine import REMEMBERED_S

SCOPES = (Scope("run", "r1"), Scope("user", "u1"), Scope("user", "u2"), Scope("team", "t1"), Scope("run", "r2"))
_SETS = (SCOPES[:1], SCOPES[:2], (SCOPES[0], SCOPES[1], SCOPES[3]), (SCOPES[4], SCOPES[2], SCOPES[3]), SCOPES[1:3])
STEPS = 60


class History:
    """One history, in which each step is made up without looking at the ledger."""

    def __init__(self, number: int, clock: FakeClock, late: bool, crowded: bool, by: Sequence[By]) -> None:
        self.chance = random.Random(number)
        self.clock = clock
        self.late = late
        self.crowded = crowded
        self.by = by
        self.ids: list[str] = []
        self.scopes: dict[str, tuple[Scope, ...]] = {}
        """What each id was made for."""

    def steps(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The verbs and their arguments."""
        for scope in SCOPES:
            yield "set_limits", (scope, Limits(), "none")
        yield "set_limits", (SCOPES[0], Limits(cost=900, output_tokens=90), "none", "user:u1")
        yield "set_limits", (SCOPES[1], Limits(cost=2_000, requests=12), "day")
        for _ in range(STEPS):
            yield self._step()
        if self.crowded:
            for by in (("hour", *self.by[3:]), self.by[:1], self.by[2:]):
                yield "usage", (UsageQuery("user", None, 0, None, tuple(by)),)

    def _step(self) -> tuple[str, tuple[Any, ...]]:
        chance = self.chance
        if chance.random() < (0.2 if self.crowded else 0.15):
            seconds = chance.choice(_PAUSES_OF_MONTHS if self.crowded else _PAUSES)
            self.clock.advance(seconds)
            if self.crowded or (seconds > REMEMBERED_S and not self.late):
                self.ids.clear()  # of the hours before nothing is booked late
        verb = chance.choice(_MOSTLY_BOOKING if self.crowded else _VERBS)
        scopes = chance.choice(_SETS)
        arguments: dict[str, Callable[[], tuple[Any, ...]]] = {
            "set_limits": lambda: (
                chance.choice(SCOPES),
                Limits(
                    cost=self._maybe([0, 500, 5_000]),
                    total_tokens=self._maybe([50, 400]),
                    requests=self._maybe([1, 9]),
                    tool_calls=self._maybe([0, 3]),
                ),
                chance.choice(["none", "none", "minute", "hour", "day", "month"]),
            ),
            "reserve": lambda: (
                self._id(scopes),
                scopes,
                self._amounts(),
                chance.choice([None, self._amounts()]),
                chance.choice([5, 100, 10**6]),
                chance.random() < 0.5,
                chance.random() < 0.5,
            ),
            "forward": lambda: (self._known(),),
            "extend": lambda: (self._known(), chance.choice([5, 100])),
            "commit": lambda: (*self._of_its_own(scopes), self._amounts(), chance.random() < 0.3, self._lines()),
            "release": lambda: self._of_its_own(scopes),
            "charge": lambda: (self._id(scopes), scopes, self._amounts(), self._lines()),
            "adjust": lambda: (
                self._id(scopes),
                chance.choice(SCOPES),
                self._amounts()._replace(cost=-3),
                "credit note",
            ),
            "balances": lambda: (scopes,),
            "usage": lambda: (self._query(),),
            "names": lambda: (chance.choice(["run", "user", "team"]), chance.choice(["", "u", "u1", "x"])),
            "revoke": lambda: (chance.choice(SCOPES), chance.choice(["stolen", "paused"])),
            "restore": lambda: (chance.choice(SCOPES),),
            "swap": lambda: (
                chance.choice("ab"),
                chance.choice([None, None, "one"]),
                chance.choice([None, "one", "two"]),
                chance.choice([5, 100]),
            ),
            "sweep": lambda: (chance.choice([1, 1_000]),),
            "suspended": lambda: (chance.choice([1, 1_000]),),
            "audit": lambda: (),
        }
        return verb, arguments[verb]()

    def _maybe(self, values: list[int]) -> int | None:
        return self.chance.choice(values) if self.chance.random() < 0.5 else None

    def _id(self, scopes: tuple[Scope, ...]) -> str:
        if not self.ids or self.chance.random() < 0.8:
            self.ids.append(hold_id(self.clock.now_ms(), f"h{len(self.ids)}"))
            self.scopes[self.ids[-1]] = scopes
            return self.ids[-1]
        return self._known()

    def _of_its_own(self, scopes: tuple[Scope, ...]) -> tuple[str, tuple[Scope, ...]]:
        """A hold and mostly the scopes that it is in."""
        known = self._known()
        return known, self.scopes.get(known, scopes) if self.chance.random() < 0.85 else scopes

    def _known(self) -> str:
        return self.chance.choice(self.ids[-6:]) if self.ids else hold_id(self.clock.now_ms(), "none")

    def _amounts(self, of_a_line: bool = False) -> Amounts:
        chance = self.chance
        if self.crowded and not of_a_line and chance.random() < 0.3:
            return Amounts(*(chance.choice([0, 1, 2**52, 2**53 - 1]) for _ in Amounts._fields))
        read, written = chance.choice([0, 10, 30]), chance.choice([0, 5, 20])
        return Amounts(chance.choice([0, 7, 100, 400]), read, written, read + written, chance.choice([0, 1]), 0)

    def _lines(self) -> tuple[UsageLine, ...]:
        chance = self.chance
        return tuple(
            UsageLine(
                Labels(
                    chance.choice(["", "search"]),
                    chance.choice(["", "Writer", "Coder"]),
                    chance.choice(["", "summarise"]),
                    chance.choice(["large", "small"]),
                    chance.choice(["", "", "serp"]),
                ),
                self._amounts(of_a_line=True),
                *(chance.choice([0, 0, 4]) for _ in range(4)),
            )
            for _ in range(chance.choice([0, 1, 1, 2, 4] if self.crowded else [0, 1, 1, 2]))
        )

    def _query(self) -> UsageQuery:
        chance = self.chance
        now = self.clock.now_ms() // 3_600_000
        since = chance.choice([0, 0, now - 1, now, now - 24, now - 200])
        until = chance.choice([None, None, now, now + 1, now - 24])
        by = chance.sample(self.by, chance.randint(0, 3))
        if "hour" in by and "day" in by:
            by.remove("day")
        kind, id = chance.choice([("run", "r1"), ("user", "u1"), ("user", None), ("team", "t1"), ("run", None)])
        return UsageQuery(kind, id, max(0, since), until, tuple(by))


_PAUSES = (1, 5, 20, 61, 95, 100, 3_600, 3_600, 7 * 3_600, 86_400, 8 * 86_400)
_PAUSES_OF_MONTHS = (
    5,
    3_600,
    3_600,
    4 * 3_600,
    5 * 3_600,
    7 * 3_600,
    11 * 3_600,
    86_400,
    86_400,
    2 * 86_400,
    8 * 86_400,
    31 * 86_400,
)
_VERBS = (
    *["reserve"] * 7,
    *["commit"] * 5,
    *["charge"] * 3,
    *["usage"] * 6,
    *("set_limits", "set_limits", "forward", "extend", "release", "release", "adjust", "balances", "balances", "names"),
    *("revoke", "restore", "swap", "swap", "sweep", "suspended", "audit"),
)
_MOSTLY_BOOKING = (*_VERBS, *["charge"] * 12, *["reserve", "commit"] * 4)


def answer_of(ledger: Ledger, verb: str, arguments: tuple[Any, ...], awaits: bool) -> str:
    """What *ledger* answers, in full; of an error which one it is."""
    try:
        if awaits:

            async def main() -> Any:
                return await getattr(ledger.aio, verb)(*arguments)

            answer = asyncio.run(main())
        else:
            answer = getattr(ledger, verb)(*arguments)
    except (BudgetError, ValueError) as error:
        return type(error).__name__
    if isinstance(answer, Refused):
        answer = answer._replace(version=0)  # versions are only told apart
    if isinstance(answer, Settled):  # sums come as they are kept
        above = [(tuple(each.committed), each.limits) for each in answer.above]
        return f"{tuple(answer.committed)} {answer.charged} {answer.uncertain} {above}"
    if verb in ("usage", "suspended"):
        answer = sorted(answer, key=repr)
    return repr(list(answer) if verb in ("balances", "names", "audit", "suspended", "usage") else answer)


def differences(
    number: int,
    ledgers: tuple[Ledger, Ledger],
    clock: FakeClock,
    *,
    awaits: bool = False,
    late: bool = True,
    crowded: bool = False,
    by: Sequence[By] = BY,
) -> list[str]:
    """Where the second of the *ledgers* does not answer as the first one does, in history *number*.

    Args:
        number: Which history.
        ledgers: Both are empty, and read the time from *clock*.
        clock: It goes on as the history does.
        awaits: Whether the second one is asked by its awaitable verbs.
        late: Whether ids are used that not every ledger remembers any more.
        by: What may be asked for in the history.
        crowded: Whether much is booked, for many things, by days and months, and some of it is as large as can be.
    """
    one, other = ledgers
    found: list[str] = []
    before = clock.now()
    for step, (verb, arguments) in enumerate(History(number, clock, late, crowded, by).steps()):
        if clock.now() != before:  # when a hold that is due is swept is each ledger's own matter
            swept = [sum(iter(ledger.sweep, 0)) for ledger in ledgers]
            if swept[0] != swept[1]:
                found.append(f"{step}: swept {swept}")
            before = clock.now()
        expected, answered = answer_of(one, verb, arguments, False), answer_of(other, verb, arguments, awaits)
        if expected != answered:
            found.append(f"{step}: {verb}{arguments}\n  {expected}\n  {answered}")
    for ledger in ledgers:
        with suppress(BudgetError):
            ledger.close()
    return found
