"""Made-up runs of sessions, the same ones each time, and what each of their steps came to.

`python -m tests.session.reference.make` writes them down in `stories.txt.gz`.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, get_args

from budget_guard import (
    Allowance,
    Budget,
    BudgetAuthority,
    BudgetError,
    DowngradePolicy,
    LoopPolicy,
    MemoryLedger,
    ModelCall,
    Prompt,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.calls.seen import Seen
from budget_guard.policy.budget import Mode
from budget_guard.session.told import Told
from budget_guard.testing import FakeClock
from tests.builders import PRICES
from tests.reference_text import without_ids

STORIES = 400
GROUPS = 20
"""So many tests tell them."""
_MODELS = (*["large"] * 6, *["dime"] * 2, *["small"] * 2, "tiny", "brief", "endless", "searcher", "penny", "unheard-of")


_OF_REPORT = (
    *("session_id", "tags", "total_spent", "reserved", "remaining", "duration_seconds"),
    *("terminated_by", "unpriced_calls", "uncertain", "from_provider", "overrun", "bound_violations"),
)
_OF_EVENT = ("name", "held", "cost", "uncertain", "source", "overrun", "bound_tokens", "scope", "dimension", "limit")
_OF_ERROR = ("dimension", "limit", "actual", "scope", "retry_after_s", "resets_at", "model", "missing")


def _shown(event: Any) -> str:
    """What an event says, without its words and what is added to events from time to time."""
    found = [f"{name}={getattr(event, name)}" for name in _OF_EVENT if getattr(event, name, None) is not None]
    return f"{type(event).__name__} {' '.join(found)}"


def _named(error: Any) -> str:
    """An error without its words."""
    found = [f"{name}={getattr(error, name)}" for name in _OF_ERROR if getattr(error, name, None) is not None]
    return f"{type(error).__name__} {' '.join(found)}"


class Story:
    """One session with its budget and ceilings, all by chance."""

    def _begin(self, number: int) -> None:
        self.chance = random.Random(number)
        self.clock = FakeClock()
        self.open: list[Any] = []
        self.children: list[Session] = []
        self.told: list[str] = []

    def __init__(self, number: int) -> None:
        self._begin(number)
        options: dict[str, Any] = {"pricing": PRICES, "clock": self.clock}
        thresholds: dict[str, Any] = {
            name: self._hear(name) for name in ("on_soft_limit", "on_hard_limit", "on_loop_detected", "on_downgrade")
        }
        if self.chance.random() < 0.4:
            ceilings = {"user": self._budget(plain=True), "team": self._budget(plain=True)}
            self.authority: BudgetAuthority | None = BudgetAuthority(
                MemoryLedger(clock=self.clock), ceilings, **options
            )
            self.session = self.authority.session(
                self._budget(), user="u1", team="t1", feature="search", run_id="r1", **thresholds
            )
        else:
            self.authority = None
            told = Told(**thresholds, run_log=self)
            self.session = Session(self._budget(), run_id="r1", told=told, **options)
        self._listen()

    def _listen(self) -> None:
        self.session.subscribe(lambda event: self.told.append(f"  event {_shown(event)}"))

    def add(self, record: Any) -> None:
        """Take the record of a run."""
        self.told.append(f"  record {record.outcome} {record.task}")

    def _hear(self, name: str) -> Callable[[Any], None]:
        return lambda event: self.told.append(f"  {name} {type(event).__name__}")

    def _maybe(self, likely: float, value: Any) -> Any:
        return value if self.chance.random() < likely else None

    def _budget(self, plain: bool = False) -> Budget:
        while True:
            try:
                return self._any_budget(plain)
            except ValueError as error:
                self.told.append(f"  no budget: {str(error).partition(' ')[0]}")

    def _any_budget(self, plain: bool) -> Budget:
        chance = self.chance
        limits: dict[str, Any] = {
            "max_cost_usd": self._maybe(0.8, chance.choice(["0.002", "0.05", "0.31", "1", "1", "5", "20"])),
            "max_total_tokens": self._maybe(0.2, chance.choice([500, 12_000, 90_000])),
            "max_input_tokens": self._maybe(0.1, 4_000),
            "max_output_tokens": self._maybe(0.15, chance.choice([300, 9_000, 40_000])),
            "max_requests": self._maybe(0.25, chance.choice([1, 3, 9, 9])),
            "max_tool_calls": self._maybe(0.3, chance.choice([0, 1, 3])),
        }
        if plain:
            if not any(limits.values()):
                limits["max_cost_usd"] = "2"
            return Budget(**limits, window=chance.choice(["none", "minute", "day"]))
        return Budget(
            **limits,
            max_duration_s=self._maybe(0.2, 100),
            soft_limit=chance.choice([None, 0.5, 0.9]),
            downgrade=self._maybe(
                0.5,
                chance.choice(
                    [
                        DowngradePolicy(to="small", at=0.5),
                        DowngradePolicy(to={"large": "small", "small": "tiny"}, at=0.2),
                        {"large": "small", "dime": "penny"},
                        {"large": "tiny", "dime": "penny"},
                        *(["penny"] if chance.random() < 0.1 else []),
                    ]
                ),
            ),
            mode="hard_gate" if chance.random() < 0.6 else chance.choice(get_args(Mode)),
            unpriced=chance.choice(["deny", "allow"]),
            unbounded=chance.choice(["allow", "allow", "deny"]),
            call_max_output_tokens=self._maybe(0.2, 700),
            clamp_output=chance.choice(["when_unset", "when_unset", "always", "never"]),
            hold_share=chance.choice([0.5, 0.5, 0.1, 1.0]),
            max_wait_s=chance.choice([0, 30]),
            finalization_reserve=self._maybe(0.2, "0.001"),
            allowance=self._maybe(0.3, Allowance(input_tokens=50, hosted_tool_calls=2)),
            loop=self._maybe(0.3, LoopPolicy(max_repeats=2, on_loop=chance.choice(["raise", "warn"]))),
            agents=self._maybe(0.2, {"Named": Budget("0.01")}),
            max_usd_per_minute=self._maybe(0.1, "0.05"),
        )

    def _model_call(self) -> ModelCall:
        chance = self.chance
        return ModelCall(
            chance.choice(_MODELS),
            Prompt(
                chance.choice([10, 100, 3_000]),
                1,
                ((7, 30), (8, 20)),
                50,
                {8: "an image"} if chance.random() < 0.05 else {},
                ("history kept by the provider",) if chance.random() < 0.03 else (),
                chance.choice([0, 5]),
            ),
            max_output_tokens=self._maybe(0.5, chance.choice([5, 90, 900, 20_000])),
            can_cap=chance.random() < 0.8,
            needs=frozenset(["tools"]) if chance.random() < 0.2 else frozenset(),
            service_tier=self._maybe(0.05, "flex"),
            choices=chance.choice([1, 1, 1, 3]),
            hosted_tools=("web_search",) if chance.random() < 0.05 else (),
            agent=self._maybe(0.3, chance.choice(["Named", "Other"])),
            hour_cache=chance.random() < 0.1,
            final=chance.random() < 0.1,
            alternatives=("small",) if chance.random() < 0.1 else (),
        )

    def _usage(self) -> Usage | None:
        chance = self.chance
        if chance.random() < 0.1:
            return None
        return Usage(
            input=chance.choice([0, 60, 150, 4_000]),
            cache_read=chance.choice([0, 0, 30]),
            cache_write_5m=chance.choice([0, 0, 0, 0, 10]),
            output=chance.choice([0, 5, 80, 2_000]),
            reasoning=chance.choice([0, 0, 40]),
            web_search=chance.choice([0, 0, 0, 0, 0, 1]),
        )

    # Steps

    def authorize(self) -> str:
        decision = self.session.authorize(self._model_call(), may_wait=self.chance.random() < 0.5)
        return self._decided(decision)

    def tool(self) -> str:
        chance = self.chance
        name = chance.choice(["serp", "mail"])
        asked = ToolCall(name, chance.choice([0, 10_000_000]), self._maybe(0.3, "Named"), counts=chance.random() < 0.8)
        asked = self.session.with_trail(asked, {"q": chance.choice([1, 1, 2])})
        return self._decided(self.session.authorize(asked))

    def _decided(self, decision: Any) -> str:
        if decision.reservation is not None:
            self.open.append(decision.reservation)
        error = decision.error
        said = "" if error is None else f" {_named(error)}"
        terms = (decision.output_cap, decision.output_clamped, decision.bounded)
        held = f"{terms} {tuple(decision.held)} {decision.scopes}"
        return f"{decision.action} {decision.name} {held}{said}"

    def commit(self) -> str:
        hold = self.open[self.chance.randrange(len(self.open))]
        return f"{hold.commit(self._usage(), model=self._maybe(0.2, self.chance.choice(_MODELS[:-1])))}"

    def settle(self) -> str:
        hold = self.open.pop(0)
        return f"{hold.commit_cost('0.01') if isinstance(hold.call, ToolCall) else hold.commit(self._usage())}"

    def settle_tool(self) -> str:
        hold = self.open.pop(0)
        return f"{hold.commit_cost(self._maybe(0.7, self.chance.choice(['0', '0.02'])))}"

    def estimate(self) -> str:
        seen = self._maybe(0.4, Seen(self.chance.choice(["", "x" * 40, "word " * 900]), None))
        return f"{self.open.pop(0).commit_estimate('timed out', seen)}"

    def release(self) -> str:
        return f"{self.open.pop().release('429')}"

    def forward(self) -> str:
        return f"{self.open[-1].forward()}"

    def interruption(self) -> str:
        return _named(self.open[-1].interruption(self.chance.choice([10, 5_000])))

    def charge(self) -> str:
        self.session.charge("serp", self.chance.choice(["0", "0.004", "0.3"]), agent=self._maybe(0.3, "Named"))
        return "charged"

    def charge_call(self) -> str:
        self.session.charge_call(self._model_call(), self._usage())
        return "charged"

    def raise_limits(self) -> str:
        more: dict[str, Any] = self.chance.choice([{"max_cost_usd": "7"}, {"max_requests": 40}, {"max_tool_calls": 9}])
        self.session.raise_limits(**more)
        return "raised"

    def child(self) -> str:
        child = self.session.child(Budget("0.01", max_requests=2, max_total_tokens=200, max_output_tokens=90))
        self.children.append(child)
        return f"{child.budget.max_cost_usd}"

    def close_child(self) -> str:
        child = self.children.pop()
        spent = child.authorize(ModelCall("small", Prompt(10, 1, (), 0), max_output_tokens=20))
        if spent.reservation is not None and self.chance.random() < 0.7:
            spent.reservation.commit(Usage(input=9, output=9))
        child.close()
        return f"{spent.action} {child.spent_usd}"

    def later(self) -> str:
        self.clock.advance(self.chance.choice([1, 20, 70, 90_000]))
        return f"{self.clock.now():%d %H:%M:%S}"

    def revoke(self) -> str:
        if self.chance.random() < 0.9:
            return "not now"
        if self.authority is not None:
            self.authority.revoke("user", "u1", reason="stolen")
        else:
            self.session.revoke("stolen")
        return "revoked"

    def balances(self) -> str:
        session = self.session
        figures = (session.spent_usd, session.reserved_usd, session.remaining_usd, session.least_remaining_usd())
        return f"{figures} {session.near_limit} {session.spent_fraction:.6f} {session.terminated_by}"

    _STEPS = (
        *(["authorize"] * 6 + ["settle"] * 4 + ["commit", "tool", "tool", "settle_tool", "estimate", "release"]),
        *("forward", "interruption", "charge", "charge_call", "raise_limits", "child", "close_child", "later", "later"),
        *("revoke", "balances", "balances", "commit", "commit"),
    )

    def steps(self) -> Iterator[str]:
        """What each step comes to, and what is told meanwhile."""
        yield from self.told
        self.told.clear()
        for _ in range(16):
            name = self.chance.choice(self._STEPS)
            if (name in ("child", "close_child") and self.children) != (name == "close_child"):
                continue
            if name in ("commit", "settle", "settle_tool", "estimate", "release", "forward", "interruption"):
                if not self.open:
                    continue
            try:
                said = getattr(self, name)()
            except (BudgetError, TypeError, ValueError) as error:
                said = f"raises {_named(error)}"
            yield f"{name}: {said}"
            yield from self.told
            self.told.clear()
        for hold in self.open:
            hold.commit_estimate("the end")
        for child in self.children:
            child.close()
        self.session.close()
        yield from self.told
        yield f"  at the end {self.session.outcome}"
        report = self.session.report()
        llm, tools = report.breakdown.llm, report.breakdown.tools
        yield f"  llm {llm.total} {llm.calls} tools {tools.total} {tools.calls}"
        for model, each in llm.by_model.items():
            yield f"  {model} {each.total} {each.calls} {each.input_tokens} {each.output_tokens}"
        yield from (f"  {tool} {each.total} {each.calls}" for tool, each in tools.by_tool.items())
        yield from (
            f"  {agent} {each.total} {each.calls} {each.with_started}" for agent, each in report.by_agent.items()
        )
        yield from (f"  {child} {each.total} {each.calls}" for child, each in report.by_child.items())
        yield f"  {' '.join(f'{field}={getattr(report, field)}' for field in _OF_REPORT)}"
        yield f"  {self.session.ledger.audit()} {len(self.session.decisions())} {len(self.session.events())}"


@contextmanager
def logged(lines: list[str]) -> Iterator[None]:
    """Have *lines* take what is logged."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"  log {record.levelname}")

    log, keep = logging.getLogger("budget_guard"), Keep()
    before = log.level
    log.addHandler(keep)
    log.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
        ours = [each for each in warned if "never awaited" not in str(each.message)]  # which other tests have left
        lines.extend(f"  warned {each.category.__name__}" for each in ours)
    finally:
        log.removeHandler(keep)
        log.setLevel(before)


def steps_of(kind: str, told_by: Callable[[int], Iterable[str]], numbers: Iterable[int]) -> Iterator[str]:
    """All steps of made-up runs of one *kind*, by their numbers, with the ids in them left out."""

    def all_of(number: int) -> list[str]:
        return list(told_by(number))

    for number in numbers:
        said: list[str] = []
        with logged(said):
            told = Context().run(all_of, number)  # inside of no hold of others
        yield f"{kind} {number}"
        yield from map(without_ids, (*told, *said))


def lines_of(group: int) -> Iterator[str]:
    """All steps of a group of stories."""
    return steps_of("story", lambda number: Story(number).steps(), range(group, STORIES, GROUPS))
