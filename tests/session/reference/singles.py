"""Single calls of every kind, at prices that depend on all there is: what each is held for, and what it is booked at.

They are at the prices of `tests/pricing/reference/table.json`, on the days around which these change, of models with
tiers, regions, fees and hours; one after another, so that the next is held for what served the one before.
`python -m tests.session.reference.make` writes them down in `singles.txt.gz`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from budget_guard import (
    Allowance,
    Budget,
    BudgetError,
    DowngradePolicy,
    MemoryLedger,
    ModelCall,
    Prompt,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.calls.seen import Seen
from budget_guard.estimate import tokens
from budget_guard.policy.budget import Mode
from budget_guard.pricing import PriceTable
from budget_guard.pricing.model_price import KINDS, TEXT_ONLY
from budget_guard.session.session import Wiring
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import MOST
from budget_guard.units.usage import UNEXPLAINED
from tests.reference_text import plain
from tests.session.reference.stories import steps_of

SINGLES = 900
GROUPS = 5
"""So many tests tell them."""
_FIRST = 50_000
"""The number of the first one: another beginning than that of any story."""
_TABLE = Path(__file__).parent.parent.parent / "pricing" / "reference" / "table.json"
_OWN: Mapping[str, Any] = {
    "mine": {"input": 1e-6, "output": 4e-6, "max_output": 300, "capabilities": ["tools"], "web_search": 0.01},
    "free": {"input": 0, "output": 0, "max_output": 500},
    "dear": {"input": 0.01, "output": 0.01, "max_output": 2**40},
    "wordy": {"input": 1e-9, "output": 1e-9, "max_output": 2**60},
    "odd": {"input": 1e-6, "output": 2e-6, "requests": 0.001, "other": {"code_interpreter": 0.03}},
    "slow": "gpt-4o",
}
_MODELS: Mapping[str, str | None] = {
    **dict.fromkeys(("gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-4", "gpt-5-6", "o3", "gpt-4o-audio-preview"), "openai"),
    **dict.fromkeys(("claude-sonnet-4-5", "claude-4-6-opus", "claude-4-5-haiku", "claude-3-5-haiku"), "anthropic"),
    **dict.fromkeys(("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.0-flash", "claude-4-5-opus"), "google"),
    **dict.fromkeys(("sonar", "sonar-pro", "sonar-deep-research"), "perplexity"),
    **dict.fromkeys(("deepseek-v4-flash", "deepseek-chat"), "deepseek"),
    **{"openai/gpt-4o": "openrouter", "openai/gpt-oss-120b": "groq", "chatgpt-image-latest": None, "grok-4.20": "x-ai"},
    **dict.fromkeys(("gpt-5-6-luna", "unheard-of", "", *_OWN)),
}
_NAMES = (*_MODELS, *["gpt-4o"] * 6, *["mine"] * 3, "gpt-5", "sonar", "sonar", "sonar-pro")
_DAYS = ("2025-06-09", "2025-06-10", "2026-03-12", "2026-03-13", "2026-08-16", "2026-08-21", "2026-09-10", "2026-11-24")
_PROVIDERS = ("openai", "anthropic", "google", "openrouter", "azure", "nobody")
_TIERS = (*[None] * 12, "auto", "auto", "default", "flex", "priority", "fast", "batch", "standard_only")
_REGIONS = (*[None] * 12, "us", "eu", "global", "us-east-1")
_CONTEXTS = (None, None, None, "low", "high", "pro-low")
_TOOLS: tuple[tuple[str, ...], ...] = (
    *[()] * 12,
    *(("web_search",), ("web_search",), ("web_search", "file_search")),
    *(("code_interpreter",), ("nobody_knows", "web_search")),
)
_FEES: tuple[tuple[tuple[str, int], ...], ...] = (
    *((), (), (("web_search", 7_000_000),), (("file_search", 5), ("nobody_knows", 11))),
)
_ALTERNATIVES = (("gpt-4o-mini",), ("claude-sonnet-4-5", "o3"), ("sonar", "sonar-pro"))
_UNITS = ("code_interpreter", "file_search", "nobody_knows", "web_search_preview", UNEXPLAINED)
_NO_CALL = ToolCall("")
_ERRORS = (BudgetError, TypeError, ValueError)


@cache
def _tables() -> tuple[PriceTable, PriceTable]:
    table = PriceTable.load(_TABLE)
    return table, table.overlaid(_OWN)


class Single:
    """A session for a few calls that are alike."""

    def __init__(self, number: int) -> None:
        self.chance = chance = random.Random(number + _FIRST)
        hour, minute = chance.choice([0, 1, 3, 6, 12, 16, 23]), chance.choice([0, 29, 31])
        day = datetime.fromisoformat(chance.choice(_DAYS))
        clock = FakeClock(day.replace(hour=hour, minute=minute, tzinfo=timezone.utc))
        budget = self._budget()
        ledger = MemoryLedger(clock=clock) if chance.random() < 0.3 else None
        self.session = Session(
            budget,
            ledger=ledger,
            run_id="r1",
            clock=clock,
            on_cancel=chance.choice(["bound", "seen", "seen"]),
            wiring=Wiring(prices=_tables()[chance.random() < 0.7]),
        )
        self.call = self._model_call()
        self.usual = chance.random() < 0.5
        self.model = chance.choice([None, None, None, self.call.model, *_NAMES])
        self.told: list[str] = []
        if chance.random() < 0.5:
            self.session.subscribe(lambda event: self.told.append(f"  {plain(event)}"))
        self.given = f"{clock.now():%m-%d %H:%M} {budget} {plain(self.call)}"

    def _maybe(self, likely: float, value: Any) -> Any:
        return value if self.chance.random() < likely else None

    def _budget(self) -> Budget:
        while True:
            try:
                return self._any_budget()
            except ValueError:  # its limits contradict each other
                continue

    def _any_budget(self) -> Budget:
        chance = self.chance
        policies: Sequence[Any] = (
            DowngradePolicy(to="gpt-4o-mini", at=0.1),
            DowngradePolicy(to={"gpt-4o": "gpt-4o-mini", "claude-sonnet-4-5": "claude-4-5-haiku"}, at=0.4),
            DowngradePolicy(to={"gpt-5": "gpt-4o-mini", "gpt-4o": "gpt-4o-mini"}, at=0.9),
        )
        return Budget(
            max_cost_usd=self._maybe(0.8, chance.choice(["0", "0.001", "0.02", "0.3", "1", "1", "40", "9000000"])),
            max_total_tokens=self._maybe(0.15, chance.choice([0, 300, 5_000, 1_000_000])),
            max_input_tokens=self._maybe(0.1, chance.choice([0, 2_000, 400_000])),
            max_output_tokens=self._maybe(0.15, chance.choice([0, 200, 9_000])),
            max_requests=self._maybe(0.2, chance.choice([0, 1, 2, 90])),
            soft_limit=chance.choice([None, 0.5]),
            downgrade=self._maybe(0.2, chance.choice(policies)),
            mode="hard_gate" if chance.random() < 0.7 else chance.choice(get_args(Mode)),
            unpriced=chance.choice(["deny", "allow"]),
            unbounded=chance.choice(["allow", "allow", "deny"]),
            call_max_output_tokens=self._maybe(0.2, chance.choice([100, 700, 50_000])),
            clamp_output=chance.choice(["when_unset", "when_unset", "always", "never", "reject"]),
            hold_share=chance.choice([0.5, 0.1, 1.0]),
            max_wait_s=0,
            finalization_reserve=self._maybe(0.15, "0.0005"),
            allowance=chance.choice(
                [
                    *[Allowance(input_tokens=50, hosted_tool_calls=2)] * 3,
                    *(Allowance(input_tokens=1), Allowance(hosted_tool_calls=1), Allowance()),
                ]
            ),
            soft_margin_usd=self._maybe(0.1, "0.01"),
            service_tier=self._maybe(0.15, chance.choice(["flex", "priority", "fast"])),
            agents=self._maybe(0.1, {"Named": Budget("0.01")}),
        )

    def _model_call(self) -> ModelCall:
        chance = self.chance
        read = chance.choice([0, 10, 100, 3_000, 127_900, 199_900, 250_000])
        prompt = Prompt(
            read,
            1,
            ((7, 30), (8, 20)) if chance.random() < 0.8 else (),
            chance.choice([50, 50, 0]),
            {8: chance.choice(["an image", "audio"])} if chance.random() < 0.1 else {},
            (chance.choice(["history kept by the provider", "the parameter x"]),) if chance.random() < 0.06 else (),
            chance.choice([0, 5]),
        )
        model = chance.choice(_NAMES)
        most = chance.choice(
            [0, 1, *[90, 900, 20_000] * 5, MOST // 2, *(MOST - most for most in (60, 50, 10, 0)), 2**70]
        )
        return ModelCall(
            model,
            prompt,
            chance.choice([None, _MODELS[model], _MODELS[model], chance.choice(_PROVIDERS)]),
            self._maybe(0.5, most),
            chance.random() < 0.8,
            chance.choice([frozenset(), frozenset(), frozenset({"tools"}), frozenset({"vision", "tools"})]),
            chance.choice(_TIERS),
            chance.choice([1, 1, 1, 2, 3]),
            chance.choice(_TOOLS),
            self._maybe(0.3, chance.choice(["Named", "Other"])),
            chance.random() < 0.3,
            chance.random() < 0.1,
            self._maybe(0.1, DowngradePolicy(to="gpt-4o-mini", at=0.2)),
            chance.choice(_REGIONS),
            chance.choice(
                [*[None, TEXT_ONLY, TEXT_ONLY] * 2, frozenset({"input_image"}), frozenset({chance.choice([*KINDS])})]
            ),
            ((), (), (), (), *_ALTERNATIVES)[chance.randrange(7)],
            chance.choice(_CONTEXTS),
            chance.choice(_FEES),
            chance.choice([(), (), ("Named",)]),
        )

    def _usage(self) -> Usage:
        chance = self.chance
        if self.usual:
            return Usage(input=chance.choice([0, 40, 60]), output=chance.choice([0, 9, 80]))
        counts = [chance.choice([0, 0, 0, 0, 0, 1, 30, 2_000]) for _ in range(12)]
        other = tuple((chance.choice(_UNITS), chance.choice([0, 1, 3])) for _ in range(chance.choice([0, 0, 0, 1, 2])))
        return Usage._make((*counts, chance.choice([0, 1, 1, 1, 2]), other))

    def _bill(self) -> dict[str, Any]:
        chance = self.chance
        others = (("gpt-4o-mini", Usage(input=20, output=30)), ("unheard-of", Usage(web_search=1)))
        bill: dict[str, Any] = {
            "model": self.model,
            "service_tier": chance.choice([None, None, *_TIERS]),
            "region": chance.choice([None, None, *_REGIONS]),
            "cost": self._maybe(0.2, chance.choice([0, 0, 1, 3_000_000_000])),
            "others": others[: chance.choice([0, 0, 0, 1, 2])],
        }
        return bill

    def _otherwise(self, call: ModelCall) -> ModelCall:
        """A call that differs from *call* in a few things."""
        other = self._model_call()
        changed = [name for name in ModelCall._fields if self.chance.random() < 0.1]
        weighs = self.chance.choice([0, 0, 0, -1, 1, 9_000])
        prompt = call.prompt._replace(base=max(call.prompt.base + weighs, 0))
        return call._replace(prompt=prompt)._replace(**{name: getattr(other, name) for name in changed})

    def _settled(self, hold: Any) -> str:
        chance = self.chance
        way = chance.random()
        if way < 0.5:
            usage, bill = self._maybe(0.92, self._usage()), self._bill()
            given = f"{'no usage' if usage is None else tuple(usage)} {plain(bill)}"
            return f"{given}: {self._or_raises(hold.commit, usage, **bill)}"
        if way < 0.75:
            usage = self._maybe(0.5, self._usage())
            seen = Seen(chance.choice(["", "word " * 40, "ß" * 2_000]), usage, chance.choice([None, True, False]))
            return f"{plain(seen.usage)} {seen.thinks}: {self._or_raises(hold.commit_estimate, 'gone', seen)}"
        if way < 0.8:
            return self._or_raises(hold.commit_estimate, "gone")
        if way < 0.9:
            return f"{self._or_raises(hold.cut_short)} {self._or_raises(hold.commit, self._usage())}"
        most = hold.amounts.output_tokens
        told = [self._or_raises(hold.interruption, each) for each in (0, most, most + 1)]
        return f"{told} {self._or_raises(hold.release, '429')}"

    def _or_raises(self, verb: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return plain(verb(*args, **kwargs))
        except _ERRORS as error:
            return f"raises {plain(error)}"

    def steps(self) -> Iterator[str]:
        """The lines of the session: its estimates, decisions and settlements."""
        yield self.given
        session, call = self.session, self.call
        for _ in range(self.chance.choice([1, 2, 3])):
            yield f"  estimate {self._or_raises(session.estimate, call)}"
            try:
                decision = session.authorize(call)
            except _ERRORS as error:
                yield f"  raises {plain(error)}"
                continue
            yield f"  {plain(decision._replace(call=_NO_CALL, reservation=None))}"
            hold = decision.reservation
            if hold is None:
                continue
            sent = [self._otherwise(call) for _ in range(4)]
            covered = [self._or_raises(hold.covers, each) for each in sent]
            capped = call._replace(max_output_tokens=decision.output_cap)
            yield f"  covers {' '.join(covered)} {hold.covers(call)} {hold.covers(capped)}"
            yield f"  {self._settled(hold)} {plain(hold.posting)}"
            call = call._replace(prompt=call.prompt._replace(base=call.prompt.base + self.chance.choice([0, 0, 40])))
        if self.chance.random() < 0.3:
            usage = self._maybe(0.8, self._usage())
            call = self._model_call()
            yield f"  charged {plain(call)} {plain(usage)} {self._or_raises(session.charge_call, call, usage)}"
            yield f"  {self._or_raises(session.authorize, ToolCall('t', 1))}"
        session.close()
        report = session.report()
        yield f"  {plain(report)}"
        yield from self.told
        yield f"  {plain(session.ledger.audit())}"


def lines_of(group: int) -> Iterator[str]:
    """All that becomes of a group of calls."""
    # what a tokenizer makes of an answer that was seen depends on whether one is installed
    with mock.patch.dict(tokens._counts, clear=True), mock.patch.object(tokens, "_counter", lambda encoding: None):
        yield from steps_of("single", lambda number: Single(number).steps(), range(group, SINGLES, GROUPS))
