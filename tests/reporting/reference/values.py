"""Reports, sums, charts and bars of made-up values, which no run needs to have had, and figures at every edge."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from unittest import mock

from budget_guard.reporting import BudgetReport, RunRecord, advise, forecast, text, view
from budget_guard.reporting.course import SpentAt, thinned
from budget_guard.reporting.files import markdown
from budget_guard.reporting.html import chart, page
from budget_guard.reporting.spend import (
    AgentSpend,
    Breakdown,
    LimitUse,
    LlmSpend,
    ModelSpend,
    RunSpend,
    TaskSpend,
    ToolSpend,
    ToolsSpend,
    as_plain,
)
from tests.reference_text import plain

_START = datetime(2026, 11, 1, 9, 30, tzinfo=timezone.utc)
_AMOUNTS = ("0", "0", "0.000000001", "0.01", "0.5", "1.234567891", "40", "12345.6")
_NAMES = (
    "large",
    "small",
    "a name that is far too long for any column of a table to hold",
    "日本語のモデル",
    "évé`|x",
    "=1+1",
)
_LIMITS = ("max_cost_usd", "max_total_tokens", "max_requests", "max_tool_calls", "max_duration_s", "max_input_tokens")


class _Made:
    """Made-up values."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)

    def usd(self) -> Decimal:
        return Decimal(self.chance.choice(_AMOUNTS))

    def count(self) -> int:
        return self.chance.choice([0, 0, 1, 7, 999, 1_000, 9_999, 10_000, 45_678, 10_000_000])

    def some(self, make: Callable[[], Any], most: int = 3) -> dict[str, Any]:
        names = self.chance.sample(_NAMES, self.chance.randint(0, most))
        return {name: make() for name in names}

    def model(self) -> ModelSpend:
        return ModelSpend(
            total=self.usd(),
            calls=self.count(),
            input_tokens=self.count(),
            output_tokens=self.count(),
            cached_tokens=self.count(),
            cache_written_tokens=self.count(),
            reasoning_tokens=self.count(),
        )

    def tool(self) -> ToolSpend:
        return ToolSpend(total=self.usd(), calls=self.count())

    def agent(self) -> AgentSpend:
        models, tools = self.some(self.model, 2), self.some(self.tool, 2)
        total = sum((each.total for each in (*models.values(), *tools.values())), Decimal(0))
        calls = sum(each.calls for each in (*models.values(), *tools.values()))
        return AgentSpend(total=total, calls=calls, with_started=total + self.usd(), by_model=models, by_tool=tools)

    def breakdown(self, agents: Mapping[str, AgentSpend]) -> Breakdown:
        """Of which the agents' spend is a part."""
        models: dict[str, ModelSpend] = {}
        tools: dict[str, ToolSpend] = {}
        for each in (*agents.values(), AgentSpend(by_model=self.some(self.model), by_tool=self.some(self.tool))):
            for name, spend in each.by_model.items():
                models[name] = view.added([models[name], spend]) if name in models else spend
            for name, tool in each.by_tool.items():
                known = tools.get(name, ToolSpend())
                tools[name] = ToolSpend(total=known.total + tool.total, calls=known.calls + tool.calls)
        return Breakdown(
            llm=LlmSpend(
                total=sum((each.total for each in models.values()), Decimal(0)),
                calls=sum(each.calls for each in models.values()),
                by_model=models,
            ),
            tools=ToolsSpend(
                total=sum((each.total for each in tools.values()), Decimal(0)),
                calls=sum(each.calls for each in tools.values()),
                by_tool=tools,
            ),
        )

    def limit(self, own: str) -> LimitUse:
        chance = self.chance
        limit = Decimal(chance.choice([0, 1, 100, 12_345]))
        return LimitUse(
            scope=chance.choice([own, own, "user:u1", "team:" + "t" * 50]),
            name=chance.choice([*_LIMITS, "max_usd_per_minute"]),
            limit=limit,
            spent=limit
            * Decimal(
                chance.choice(
                    ["0", "0.001", "0.0099", "0.01", "0.14", "0.149", "0.2", "0.5", "0.899", "0.9", "0.95", "1", "1.2"]
                )
            ),
            held=limit * Decimal(chance.choice(["0", "0", "0.1", "0.7"])),
            resets_at=chance.choice([None, None, _START + timedelta(days=1)]),
        )

    def events(self) -> list[dict[str, Any]]:
        return [self.event(at) for at in range(self.chance.choice([0, 1, 4, 12]))]

    def event(self, at: int) -> dict[str, Any]:
        chance = self.chance
        at_s = chance.choice([0.0, 1.5, 59.94, 60.0, 3_599.0, 90_000.0])
        made: dict[str, Any] = {"event": chance.choice(_EVENTS), "at_s": at_s, "decision_id": f"d{at // 2}"}
        if made["event"] == "CallCommitted":
            made |= {"name": chance.choice(_NAMES), "cost_usd": chance.choice(_AMOUNTS)}
        if made["event"] == "AnswerCutOff":
            made["output_cap"] = 1_000
        given: Mapping[str, list[Any]] = {
            "agent": [None, "writer"],
            **{f"{each}_tokens": [0, 1_234] for each in ("input", "cached", "output", "reasoning")},
            **{each: [True, False] for each in ("uncertain", "unpriced", "stopped")},
            "source": ["provider", "price"],
            "scope": ["run:r1", "user:u1"],
            "fraction": [0.9],
            "dimension": ["max_cost_usd"],
            "model": ["large"],
            "target": ["small"],
            "limit": ["max_requests", None],
            "limits": [["max_cost_usd", "max_requests"]],
            "before": [[1, 5], [2]],
            "reason": ["leaked"],
            "tool": ["search"],
        }
        return made | {name: chance.choice(values) for name, values in given.items() if chance.random() < 0.6}

    def course(self) -> list[SpentAt]:
        found, at_s = [SpentAt(0.0)], 0.0
        for _ in range(self.chance.choice([0, 0, 1, 3, 9])):
            at_s += self.chance.choice([0.0, 0.3, 5.0, 70.0, 4_000.0])
            more = SpentAt(at_s, int(self.usd() * 10**9), self.count(), self.count(), 1, self.chance.randint(0, 2))
            found.append(found[-1].plus(more)._replace(at_s=at_s))
        return found[1:]

    def report(self, ident: str, *, is_sum: bool = False) -> BudgetReport:
        chance = self.chance
        agents = self.some(self.agent)
        breakdown = self.breakdown(agents)
        here = breakdown.llm.total + breakdown.tools.total
        runs = [
            RunSpend(
                session_id=f"r{number}",
                task=chance.choice([None, "write"]),
                total_spent=self.usd(),
                remaining=chance.choice([None, self.usd()]),
                terminated_by=chance.choice([None, "max_requests", "revoked"]),
            )
            for number in range(3 if is_sum else 0)
        ]
        events = self.events()
        return BudgetReport(
            session_id=ident,
            budget=chance.choice(
                [{}, {"soft_limit": 0.9}, {"soft_limit": 0.5, "downgrade": {"to": "small", "at": 0.3}}]
            ),
            tags=chance.choice([{}, {"user": "u1"}, {"user": "u1", "team": "t"}]),
            total_spent=here + chance.choice([Decimal(0), Decimal(0), self.usd()]),
            reserved=self.usd(),
            remaining=chance.choice([None, self.usd(), -self.usd()]),
            breakdown=breakdown,
            spent_here=chance.choice([None, None, here / 2]),
            by_agent=agents,
            by_child=self.some(self.agent, 2),
            duration_seconds=chance.choice([0.0, 0.4, 4.99, 5.0, 59.94, 59.96, 61.5, 3_599.6, 90_000.0, 200_000.0]),
            terminated_by=chance.choice([None, None, "max_cost_usd", "max_requests", "revoked"]),
            unpriced_calls=self.count(),
            uncertain=self.usd(),
            from_provider=self.usd(),
            overrun=self.usd(),
            bound_violations=self.count(),
            events=events,
            limits=[self.limit(f"run:{ident}") for _ in range(chance.choice([0, 1, 2, 4, 13]))],
            by_task=self.some(
                lambda: TaskSpend(total=self.usd(), calls=self.count(), tool_calls=self.count(), runs=2), 2
            ),
            runs=runs,
            started_at=chance.choice([None, _START, _START + timedelta(seconds=chance.choice([1, 90]))]),
            over_time=self.course(),
            marks=[each for each in self.events() if each["event"] != "CallCommitted"],
        )


_EVENTS = (
    *("CallCommitted", "CallCommitted", "CallCommitted", "SoftLimitReached", "ModelDowngraded", "CallBlocked", "Odd"),
    *("AnswerCutOff", "LoopNoticed", "LimitsRaised", "SessionRevoked", "OverrunCharged", "BoundViolated"),
)


def _reports() -> Iterator[str]:
    for number in range(70):
        report = _Made(number).report(f"r{number}", is_sum=number % 6 == 5)
        yield f"{number}: {report} {report!r} {report.spent_elsewhere} {report.total_spent_here}"
        yield f"{number}: {view.facts(report)} {view.cautions(report)}"
        yield from markdown(report).split("\n")
        width = (28, 50, 80, 110)[number % 4]
        with mock.patch.object(text, "takes_unicode", return_value=number % 2 == 0):
            for line in text.lines(report, width):
                yield "|".join(f"{part.style} {part.text}" for part in line)
        html = page.page(report) if number % 2 else page.fragment(report)
        yield from re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL).replace("><", ">\n<").split("\n")


def _sums() -> Iterator[str]:
    for number in range(160):
        first, second = _Made(number), _Made(number + 1_000)
        ident = "r1" if number % 3 else "r2"
        one, other = first.report("r1", is_sum=number % 7 == 6), second.report(ident, is_sum=number % 11 == 10)
        if number % 4 == 0:
            other = other.model_copy(update={"total_spent": one.total_spent})
        try:
            yield f"{number}: {(one + other).model_dump_json()}"
        except ValueError as error:
            yield f"{number}: {type(error).__name__}"


def _charts() -> Iterator[str]:
    """Charts of every length and height, and with many marks."""
    for number in range(220):
        chance = random.Random(number)
        end_s = chance.choice(
            [0.01, 0.4, 1.0, 4.99, 5.0, 7.0, 59.9, 60.0, 61.0, 700.0, 3_599.0, 3_600.0, 172_799.0, 172_800.0, 9e6]
        )
        most = chance.choice([0.0, 1.0, 3.0, 9.0, 20.0, 26.0, 99.0, 1_234.0, 5e9])
        limit = chance.choice([None, most, most * 2, most * 6.66, most * 6.7, most * 50, most * 0.9])
        course = chart.Course(
            words="Dollars spent",
            points=[(0.0, 0.0), (end_s / 3, most / 2), (end_s, most)],
            limit=limit or None,
            limit_before=chance.choice([[], [(end_s / 2, most / 1.5)]]) if limit else [],
            soft_limit=chance.choice([None, 0.9, 0.99]),
            downgrade_at=chance.choice([None, 0.5, 0.88]),
            end_s=end_s,
            write=lambda value: f"{value:.3g}",
        )
        places = sorted(
            chance.random() * end_s * chance.choice([0.2, 1, 1.1]) for _ in range(chance.choice([0, 1, 4, 20]))
        )
        marks = [chart.Mark(at_s, chance.choice(["warn", "stop", "cut"]), f"mark {at_s:.2f}") for at_s in places]
        width, height = chance.choice([(1_040, 320), (380, 260), (600, 261), (601, 200)])
        yield f"{number}: {chart.draw(course, marks, width=width, height=height, id_='c')}"
        yield f"{number}: {chart.legend(course, marks, number % 3)}"
    for number in (0, 1, 19, 20, 21, 40):
        chance = random.Random(number)
        report = (
            _Made(number)
            .report("r1")
            .model_copy(
                update={"marks": [_Made(number + at).event(at) | {"at_s": chance.random()} for at in range(number * 2)]}
            )
        )
        yield f"{number} marks: {chart.marks_of(report)}"


def _figures() -> Iterator[str]:
    for value in (0, 0.04, 0.05, 59.94, 59.95, 59.99, 60, 60.4, 61, 119.6, 3_599, 3_599.5, 3_600, 86_399, 86_400, 1e6):
        yield f"{value}: {view.seconds(value)} {view.moment(value)}"
    for count in (0, 9, 999, 1_000, 9_999, 10_000, 10_001, 99_950, 9_999_999, 10**7, 10**10 - 1, 10**10, 5 * 10**12):
        yield f"{count}: {view.compact(count)}"
    for spent, limit in (
        ("0", "1"),
        ("0.001", "1"),
        ("0.0099", "1"),
        ("0.01", "1"),
        ("0.999", "1"),
        ("1", "1"),
        ("3", "1"),
        ("1", "0"),
    ):
        for name in (*_LIMITS, "max_usd_per_minute"):
            use = LimitUse(
                scope="run:r", name=name, limit=Decimal(limit) * 5, spent=Decimal(spent) * 5, held=Decimal(1)
            )
            shown = view.limit(use, "")
            told = [
                shown.percent,
                shown.is_reached,
                view.limit(use, "", is_stop=True).is_reached,
                use.left,
                use.fraction,
            ]
            yield f"{spent} of {limit} {name}: {shown} {told} {text.drawn(shown, 7)} {page.bar(shown, 0.9)}"
    for words in ("", "abc", "日本", "e\u0301tude", "x" * 9):
        for width in (1, 2, 3, 4, 8, 9, 10):
            filled = text.fill(words, width, right=width % 2 == 0)
            yield f"{words} {width}: {text.cells(words)} {text.cut(words, width)} {filled!r}"
    for encoding in (None, "utf-8", "UTF8", "utf-16", "ascii", "latin-1"):
        with mock.patch("sys.stdout", mock.Mock(encoding=encoding)):
            yield f"{encoding}: {text.takes_unicode()}"
    for number in (0, 1, 2, 5, 255, 256, 257, 600, 1_000):
        points = [SpentAt(float(at), at) for at in range(number)]
        kept = thinned(points, 256)
        yield f"{number} points: {len(kept)} {kept[:3]} {kept[-2:]} {len(thinned(points, 5))} {thinned(points, 3)[-1:]}"
    yield f"{as_plain({1: [Decimal('1E+2'), (None, True)], 'a': {'b': Decimal('0.10')}})}"


def _records(chance: random.Random) -> list[RunRecord]:
    low = chance.choice([0, 1, 100])
    return [
        RunRecord(
            id=f"r{at}",
            task=chance.choice(["write", "write", None]),
            started_at=_START + timedelta(minutes=chance.choice([0, 30, 60, 61, 3_000])),
            outcome=chance.choice(["ok", "ok", "ok", "stopped", "failed"]),
            cost=chance.choice([0, low, 1, 10, 40, 41, 100, 400]) * chance.choice([1, 1, 10**7]),
            limit=chance.choice([None, None, 0, 20, 100, 10**8]),
            terminated_by=chance.choice([None, "max_cost_usd", "max_requests"]),
        )
        for at in range(chance.choice([0, 1, 2, 3, 4, 5, 6, 9, 19, 20, 21, 40]))
    ]


def _advice() -> Iterator[str]:
    for number in range(500):
        chance = random.Random(number)
        records = _records(chance)
        until = _START + timedelta(minutes=chance.choice([-1, 0, 30, 60, 61, 90, 4_000]))
        days = chance.choice([None, 0.01, 1, 30])
        told = forecast(records, until=until) if days is None else forecast(records, until=until, days=days)
        advice = advise(records, task=chance.choice([None, "write"]))
        yield f"{number}: {advice} {plain(advice)} {advice.share_stopped:.9g} {advice.suggested_cap_usd}"
        yield f"{number}: {told} {plain(told)}"
    # just at each threshold: two of forty runs stopped, four times the median, raised to just the cap
    good = [RunRecord(id=f"r{at}", started_at=_START, outcome="ok", cost=100) for at in range(60)]
    stop = RunRecord(id="s", started_at=_START, outcome="stopped", cost=90, limit=100, terminated_by="max_cost_usd")
    for total in (20, 38, 39, 40, 41, 60):
        for stops in (0, 1, 2, 3):
            for limit in (90, 133, 134, 500):
                under = [each.model_copy(update={"limit": limit}) for each in good[: total - stops]]
                runs = [*under, *[stop.model_copy(update={"limit": limit})] * stops]
                yield f"{total} {stops} {limit}: {advise(runs)}"
    for dear in (399, 400, 401, 500):
        for many in (1, 2, 3):
            costs = [each.model_copy(update={"cost": dear}) if at < many else each for at, each in enumerate(good[:21])]
            yield f"{dear} {many}: {advise(costs)}"
    for days in (0, -1, float("inf"), float("nan")):
        try:
            yield f"{days}: {forecast(good, until=_START, days=days)}"
        except ValueError as error:
            yield f"{days}: {error}"


VALUES: Mapping[str, Callable[[], Iterator[str]]] = {
    "made-up reports": _reports,
    "made-up sums": _sums,
    "charts": _charts,
    "figures": _figures,
    "advice at its edges": _advice,
}
