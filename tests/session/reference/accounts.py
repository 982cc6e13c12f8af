"""Made-up runs whose accounts are kept in full: every field of every decision, event, error, record and report.

They go on where `stories` leave off: each verb is blocking in one of them and awaited in another, half of them tell
nobody of their events, holds are settled again and late, limits are of one's own speed and tools, and what the ledger
says of users and runs is read. `python -m tests.session.reference.make` writes them down in `accounts.txt.gz`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from budget_guard import BudgetError, ToolCall, Usage
from tests.reference_text import plain
from tests.session.reference.stories import Story, steps_of

ACCOUNTS = 300
GROUPS = 10
"""So many tests tell them."""
_FIRST = 10_000
"""The number of the first one: another beginning than that of any story."""
_TIERS = ("flex", "priority", "standard")
_ERRORS = (BudgetError, TypeError, ValueError)


class Account(Story):
    """One session, and all that there is to know of it."""

    def __init__(self, number: int) -> None:
        self.awaits = number % 2 == 1
        super().__init__(number + _FIRST)
        self.over: list[Any] = []
        self.decisions: list[Any] = []
        """All of them: what became of a hold that nobody knows is a matter of the garbage collector."""

    def _listen(self) -> None:
        self.told.clear()
        self.silent = self.chance.random() < 0.5
        if not self.silent:
            self.session.subscribe(lambda event: self.told.append(f"  {plain(event)}"))

    def add(self, record: Any) -> None:
        """Take the record of a run."""
        self.told.append(f"  {plain(record)}")

    def do(self, of: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Perform a verb in one of its two ways."""
        if self.awaits and hasattr(of, f"a{verb}"):
            awaiting = getattr(of, f"a{verb}")

            async def main() -> Any:
                return await awaiting(*args, **kwargs)

            return asyncio.run(main())
        return getattr(of, verb)(*args, **kwargs)

    def authorize(self) -> str:
        options = {} if self.awaits else {"may_wait": self.chance.random() < 0.5}
        decision = self.do(self.session, "authorize", self._model_call(), sent=self.chance.random() < 0.3, **options)
        return self._decided(decision)

    def tool(self) -> str:
        chance = self.chance
        asked = ToolCall(chance.choice(["serp", "mail"]), chance.choice([0, 10_000_000]), self._maybe(0.3, "Named"))
        asked = self.session.with_trail(asked, {"q": chance.choice([1, 1, 2])})
        return self._decided(self.do(self.session, "authorize", asked))

    def _decided(self, decision: Any) -> str:
        self.decisions.append(decision)
        if decision.reservation is not None:
            self.open.append(decision.reservation)
        return plain(decision._replace(call=None, reservation=None))

    def _bill(self) -> dict[str, Any]:
        chance = self.chance
        bill: dict[str, Any] = {
            "model": self._maybe(0.2, chance.choice(["large", "small", "unheard-of"])),
            "service_tier": self._maybe(0.1, chance.choice(_TIERS)),
            "region": self._maybe(0.05, "eu"),
            "cost": self._maybe(0.15, chance.choice([0, 1_000_000, 3_000_000_000])),
            "others": (("small", Usage(input=20, output=30)),) if chance.random() < 0.1 else (),
        }
        return {name: value for name, value in bill.items() if value}

    def commit(self) -> str:
        hold = self.open.pop(self.chance.randrange(len(self.open)))
        self.over.append(hold)
        if isinstance(hold.call, ToolCall):
            return f"{self.do(hold, 'commit_cost', self.chance.choice([None, '0', '0.02']))} {plain(hold.posting)}"
        return f"{self.do(hold, 'commit', self._usage(), **self._bill())} {plain(hold.posting)}"

    def settle(self) -> str:
        hold = self.open.pop(0)
        self.over.append(hold)
        if isinstance(hold.call, ToolCall):
            return f"{self.do(hold, 'commit_cost', self._maybe(0.5, '0.01'))}"
        return f"{self.do(hold, 'commit', self._usage())} {plain(hold.posting)}"

    def again(self) -> str:
        """Settle what is settled: late, twice, or in another way."""
        if not self.over:
            return "nothing"
        hold = self.chance.choice(self.over)
        way = self.chance.choice(["commit", "commit", "estimate", "release", "forward"])
        if way == "commit":
            return f"{self.do(hold, 'commit', self._usage(), **self._bill())} {plain(hold.posting)}"
        if way == "estimate":
            return f"{self.do(hold, 'commit_estimate', 'timed out')} {plain(hold.posting)}"
        return f"{self.do(hold, *(('release', '429') if way == 'release' else ('forward',)))}"

    def estimate(self) -> str:
        hold = self.open.pop(0)
        self.over.append(hold)
        return f"{self.do(hold, 'commit_estimate', 'timed out')} {plain(hold.posting)}"

    def release(self) -> str:
        hold = self.open.pop()
        self.over.append(hold)
        return f"{self.do(hold, 'release', '429')}"

    def cut(self) -> str:
        """Have an answer cut off, where a cap of ours could have done it."""
        hold = self.open.pop(0)
        stop = hold.cut_short() if not isinstance(hold.call, ToolCall) else None
        self.over.append(hold)
        return plain(stop)

    def interruption(self) -> str:
        return plain(self.open[-1].interruption(self.chance.choice([10, 5_000])))

    def track(self) -> str:
        cost = self.chance.choice(["0", "0.004", "0.3"])
        return f"{self.do(self.session, 'track', 'found', cost=cost, tool='serp', agent=self._maybe(0.3, 'Named'))}"

    def charge_call(self) -> str:
        self.do(self.session, "charge_call", self._model_call(), self._usage())
        return "charged"

    def wrap(self) -> str:
        """Book an answer that was asked for without the guard."""
        usage = {"prompt_tokens": 50, "completion_tokens": self.chance.choice([0, 30]), "total_tokens": 80}
        answer = {
            "id": f"chatcmpl-{self.chance.randrange(9)}",
            "object": "chat.completion",
            "model": self.chance.choice(["large", "small", "unheard-of"]),
            "choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "index": 0}],
            "usage": self._maybe(0.8, usage),
        }
        return f"{self.do(self.session, 'wrap', answer) is answer}"

    def raise_limits(self) -> str:
        more: dict[str, Any] = self.chance.choice(
            [{"max_cost_usd": "7"}, {"max_requests": 40}, {"max_output_tokens": 9_000}]
        )
        self.do(self.session, "raise_limits", **more)
        return "raised"

    def child(self) -> str:
        child = self.do(self.session, "child", self._budget(plain=True))
        self.children.append(child)
        return plain(child.budget.max_cost_usd)

    def close_child(self) -> str:
        child = self.children.pop()
        spent = self.do(child, "authorize", self._model_call())
        self.decisions.append(spent)
        if spent.reservation is not None and self.chance.random() < 0.7:
            self.do(spent.reservation, "commit", Usage(input=9, output=9))
        self.do(child, "close")
        return f"{spent.action} {child.spent_usd} {plain(child.report().total_spent)}"

    def run(self) -> str:
        """A run of its own in the same session."""
        with self.session.run():
            return f"{self.tool()} {self.tool()}"

    def ask(self) -> str:
        """What a call would come to."""
        return plain(self.do(self.session, "estimate", self._model_call()))

    def ceilings(self) -> str:
        """What is known of the user and the team."""
        authority, chance = self.authority, self.chance
        if authority is None:
            return "no authority"
        kind, id = chance.choice([("user", "u1"), ("team", "t1"), ("run", "r1")])
        by = chance.choice([("day", "model"), ("hour", "tool"), ("agent", "feature"), ("id",), ("month", "task")])
        look = chance.choice(["usage", "top", "snapshot", "list", "decisions", "set", "revoke", "restore"])
        if look == "usage":
            return plain(self.do(authority, "usage", kind, id, by=by))
        if look == "top":
            return plain(self.do(authority, "top", kind, chance.choice([1, 5])))
        if look == "snapshot":
            return plain(self.do(authority, "snapshot", "user" if kind == "run" else kind, id))
        if look == "list":
            return plain(self.do(authority, "list", kind))
        if look == "decisions":
            return plain([each.action for each in authority.decisions(kind, id)])
        if look == "set":
            self.do(authority, "set_ceiling", "user", "u1", self._maybe(0.7, self._budget(plain=True)))
        elif look == "restore":
            return f"{self.do(authority, 'restore', 'user', 'u1')}"
        elif chance.random() < 0.3:
            self.do(authority, "revoke", "user", "u1", reason="stolen")
        return look

    _STEPS = (
        *(
            ["authorize"] * 7
            + ["settle"] * 4
            + ["commit"] * 4
            + ["again"] * 4
            + ["tool", "tool", "estimate", "release"]
        ),
        *("cut", "interruption", "track", "charge_call", "wrap", "wrap", "raise_limits", "child", "close_child"),
        *("later", "run", "ask", *["ceilings"] * 3, "balances", "forward", "loop"),
    )

    def loop(self) -> str:
        """Call the same tool over and over."""
        asked = self.session.with_trail(ToolCall("mail"), {"q": 1})
        self.decisions += [self.session.authorize(asked) for _ in range(3)]
        return " ".join(each.action for each in self.decisions[-3:])

    def steps(self) -> Iterator[str]:
        yield f"awaits={self.awaits} silent={self.silent}"
        for _ in range(22):
            name = self.chance.choice(self._STEPS)
            if (name in ("child", "close_child") and self.children) != (name == "close_child"):
                continue
            if not self.open and name in ("commit", "settle", "estimate", "release", "forward", "interruption", "cut"):
                continue
            try:
                said = getattr(self, name)()
            except _ERRORS as error:
                said = f"raises {plain(error)}"
            yield f"{name}: {said}"
            yield from self.told
            self.told.clear()
        for child in self.children:
            self.do(child, "close")
        report = self.do(self.session, "report")
        self.do(self.session, "close")
        yield from self.told
        yield plain(report)
        yield f"{report!s} {report!r}"
        yield from map(plain, report.events)
        yield plain(self.session.ledger.audit())


def lines_of(group: int) -> Iterator[str]:
    """All steps of a group of accounts."""
    return steps_of("account", lambda number: Account(number).steps(), range(group, ACCOUNTS, GROUPS))
