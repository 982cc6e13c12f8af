"""What budgets and other policies make of many values, alone and together, and what money and windows are told as."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from budget_guard import Allowance, Budget, DowngradePolicy, LoopPolicy
from budget_guard.policy.budget import fails_open
from budget_guard.policy.misspelt import BUDGET_WORDS, meant, unknown_keyword
from budget_guard.units.amounts import Amounts, Limits, in_unit
from budget_guard.units.money import cost_nano, format_usd, limit_nano, nano_of, parse_usd, to_usd, usd_text
from budget_guard.units.printable import escaped, no_formula, printable
from budget_guard.units.scope import LONGEST_FIRST, Scope, Window, window_end, window_start
from budget_guard.units.usage import Usage

FIELDS = [each.name for each in dataclasses.fields(Budget)]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, 7, 10, 11, -1, 2**53 - 1, 2**53, 10**15, 10**15 + 1, 10**400),
    *(0.0, 0.5, 0.9, 1.0, 1.0000001, 2.0, 1e9, -0.5, 1e15, 1.1e15, float("nan"), float("inf"), 5e-324, 1e-9, 9e-10),
    *("", " ", "x", "0", "0.5", "$5", "$0.000000001", "$0.0000000009", "1,5", "1,000", "none", "day", "minute"),
    *("hard_gate", "soft_gate", "advisory_estimate", "actuals_only", "deny", "allow", "warn", "never", "always"),
    *("when_unset", "book", "release", "flex", "summarise", "raise", "gpt-4o-mini", "/x", "/", "x://y", "/a?b", "x/y"),
    *(Decimal("0.1"), Decimal("-0"), Decimal("NaN"), [], ["x"], (), ("x",), ("x", ""), ("x", 5), {}, {"a": "b"}),
    *({"a": "b", "b": "a"}, {"a": 5}, {5: "a"}, {"/x": "$1"}, {"/x": -1}, {"x": 1}, 1j, b"x"),
    *(DowngradePolicy(to="m"), LoopPolicy(), Allowance(input_tokens=5), Budget("$1"), {"R": Budget("$1")}),
    *({"R": Budget(max_requests=1, task="x")}, {"R": Budget.metered()}, {"": Budget("$1")}, {"R": 5}),
)
_SOME = {
    "max_cost_usd": ("$5", 1, 0.1, "0.000000001", 10**7),
    "soft_margin_usd": ("$1", 0, 10**9),
    "finalization_reserve": ("$1", "$4.99", "$5", "0.000000001", 10**7),
    "max_usd_per_minute": ("$1", 0.5),
    "soft_limit": (None, 0.5, 1, 0.9),
    "hold_share": (0.25, 1),
    "downgrade": ("m", {"a": "b"}, DowngradePolicy(to="m", at=0.5)),
    "mode": ("soft_gate", "hard_gate", "advisory_estimate", "actuals_only"),
    "unpriced": ("deny", "allow"),
    "unbounded": ("deny", "allow"),
    "clamp_output": ("when_unset", "never", "always"),
    "server_errors": ("book", "release"),
    "window": ("none", "day", "month"),
    "service_tier": ("flex",),
    "task": ("summarise",),
    "allowance": (Allowance(), Allowance(input_tokens=5)),
    "loop": (LoopPolicy(), LoopPolicy(max_repeats=2, exempt=["a"])),
    "agents": ({"R": Budget("$1")}, {"R": Budget(max_requests=1), "W": Budget(max_tool_calls=0)}),
    "max_duration_s": (0.5, 60),
    "max_wait_s": (0, 30, 60.0),
}
"""Values that are taken, of each field that is no count."""


def lines_of(name: str) -> Iterator[str]:
    """The lines of that table."""
    yield from (f"{name}: {line}" for line in TABLES[name]())


def told(make: Callable[[Any], Any], given: Any) -> str:
    """The value that *make* returns for *given*, or the error that it raises, as one line."""
    try:
        made = make(given)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:400]}"
    return repr(made)[:400]


def _shown(value: Any) -> str:
    return repr(value)[:60]


_BESIDE: tuple[dict[str, Any], ...] = ({}, {"max_total_tokens": 9}, {"max_cost_usd": 5, "mode": "soft_gate"})


def _of_budget(budget: Budget) -> str:
    parts = [repr(budget), tuple(budget.limits), budget.kept_back, budget.soft_margin]
    parts += [budget.refuses_unpriced(limited) for limited in (True, False)]
    return " ".join(map(str, parts))


def _budgets() -> Iterator[str]:
    """Budgets with one field, alone and beside a limit."""
    for field in FIELDS:
        for value in VALUES:
            for beside in _BESIDE:
                made = told(lambda given: _of_budget(Budget(**given)), {**beside, field: value})
                yield f"{field}={_shown(value)} {[*beside]}: {made}"


def _budgets_together() -> Iterator[str]:
    """Budgets with several fields, and what is made of them."""
    for number in range(500):
        chance = random.Random(number)
        given, changes = _some(chance, [1, 2, 3, 5, 9]), _some(chance, [1, 2])
        if number % 3:
            given.setdefault("max_cost_usd", chance.choice(_SOME["max_cost_usd"]))
        yield f"{number} {given}: {told(lambda given: _of_budget(Budget(**given)), given)}"
        yield f"{number} metered: {told(lambda given: Budget.metered(**given), given)}"
        try:
            budget = Budget(**given) if number % 7 else Budget.metered(task="x")
        except ValueError:
            continue
        for name, make in _MADE_OF.items():
            yield f"{number} {name} {changes}: {told(make, (budget, changes))}"


def _some(chance: random.Random, many: Sequence[int]) -> dict[str, Any]:
    names = chance.sample(FIELDS, chance.choice(many))
    return {each: chance.choice(_SOME.get(each, (None, 1, 2, 1_000))) for each in names}


def _read_again(budget: Budget) -> Budget:
    """The budget that its text says."""
    known = {each.__name__: each for each in (Budget, DowngradePolicy, LoopPolicy, Allowance, Decimal)}
    made: Budget = eval(repr(budget), {**known})
    return made


_MADE_OF: Mapping[str, Callable[[tuple[Budget, dict[str, Any]]], Any]] = {
    "replaced": lambda given: given[0].replace(**given[1]),
    "raised": lambda given: given[0].raised(**given[1]),
    "without": lambda given: given[0].replace(**dict.fromkeys(given[1])),
    "and another model": lambda given: given[0].with_downgrade("m", 0.5),
    "and no other model": lambda given: given[0].with_downgrade(None, 0.8),
    "and a share of none": lambda given: given[0].with_downgrade(None, 0.5),
    "read again": lambda given: (_read_again(given[0]) == given[0], hash(_read_again(given[0])) == hash(given[0])),
}


def _policies() -> Iterator[str]:
    """Downgrades, loops and allowances, with one field of theirs."""
    shares: tuple[Any, ...] = (0.8, 0, 1, 1.1, True, None, "0.5", float("nan"), 0.3)
    for value in VALUES:
        shown = _shown(value)
        for at in shares if value in ("m", "x", {"a": "b"}) else shares[:1]:
            yield f"to={shown} at={at}: {told(lambda way: DowngradePolicy(*way), (value, at))}"
        for kind in (LoopPolicy, Allowance):
            for field in dataclasses.fields(kind):
                yield f"{field.name}={shown}: {told(_maker(kind), {field.name: value})}"
        for mode in ("hard_gate", "soft_gate", "advisory_estimate", "actuals_only"):
            if value is None or isinstance(value, str):
                yield f"{mode} {shown}: {told(lambda way: fails_open(*way), (mode, value))}"
    for share in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1):
        policy = DowngradePolicy(to="m", at=share)
        yield f"{share}: {[policy.threshold(limit) for limit in (0, 1, 2, 3, 7, 10, 999, 10**9, 2**53 - 1, 2**62)]}"
    ladders: tuple[Any, ...] = ({"a": "b", "b": "c", "c": "d"}, {"a": "d", "b": "d"}, {"x": "a"}, "b")
    for to in ladders:
        for left_out in ("", "a", "b", "c", "d", "ab", "bc", "bd", "abcd"):
            kept = DowngradePolicy(to=to, at=0.5).only(_not_in(left_out))
            rungs = None if kept is None else [kept.ladder(model) for model in "abcdx"]
            yield f"{to} without {left_out!r}: {kept} {rungs}"


def _maker(kind: type[Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda given: kind(**given)


def _not_in(names: str) -> Callable[[str], bool]:
    return lambda name: name not in names


def _end_of(window: Window) -> Callable[[datetime], str]:
    return lambda start: window_end(window, start).isoformat()


def _misspelt() -> Iterator[str]:
    """Keywords that nobody takes."""
    several = (FIELDS, ["max_requests", "max_cost_usd"], ["mode", "models"], list[str]())
    for word in (*FIELDS, *BUDGET_WORDS, "colour", "x", "", "max_cost", "MAX_COST_USD", "sofft_limit", "moed", "agent"):
        for known in several:
            near = meant(word, dict.fromkeys(known), BUDGET_WORDS)
            said = [str(unknown_keyword("f", word, known, remedy))[:200] for remedy in ("", "read the docs")]
            yield f"{word} {len(known)}: {near} {said}"
        if word not in FIELDS:
            yield f"Budget({word}=): {told(lambda given: Budget('$1', **given), {word: None})}"


_MORE_NANO = (2**53, 2**62, 2**63 - 1, 149_999, 150_000, 250_000, 350_000, 12_345_678_901)
_POWERS = [many * 10**e for e in range(19) for many in (1, 5)]
_NANO = sorted({sign * (power + more) for power in _POWERS for more in (-1, 0, 1) for sign in (1, -1)})


def _money() -> Iterator[str]:
    """Nano-dollars as dollars, and what people write as dollars."""
    for nano in (*_NANO, *_MORE_NANO):
        units = [in_unit(each, nano) for each in (0, 1, 5)]
        yield f"{nano}: {format_usd(nano)} {usd_text(nano)} {to_usd(nano)} {units}"
    for value in VALUES:
        yield f"{_shown(value)}: {told(lambda value: (parse_usd(value, 'f'), nano_of(value, 'f')), value)}"
    for places in range(22):
        for digits in ("1", "15", "25", "99", "5"):
            amount = Decimal(digits).scaleb(4 - places)
            yield f"{amount}: {limit_nano(amount)} {cost_nano(amount)} {limit_nano(-amount)} {cost_nano(-amount)}"


def _windows() -> Iterator[str]:
    """Windows around times at which one begins."""
    zone = timezone(timedelta(hours=5, minutes=45))
    for day in ("2024-02-28", "2024-12-31", "2025-01-01", "2025-03-03", "2026-02-01"):
        for seconds in (-1, 0, 1, 59, 60, 3_599, 3_600, 86_399, 86_400, 86_401, 90_061):
            at = datetime.fromisoformat(f"{day}T00:00:00.000007+00:00") + timedelta(seconds=seconds)
            for window in LONGEST_FIRST:
                starts = [window_start(window, each) for each in (at, at.astimezone(zone))]
                ends = told(_end_of(window), starts[0] or at)
                yield f"{at} {window}: {[None if each is None else each.isoformat() for each in starts]} {ends}"
    for kind in ("user", "user@day", "", "@", "a@b@c"):
        scope = Scope(kind, "u1")
        yield f"{kind}: {scope} {scope.principal} {[str(scope.in_window(window)) for window in LONGEST_FIRST]}"


def _texts() -> Iterator[str]:
    """Names as they are shown."""
    texts: list[Any] = [
        "",
        "a",
        "é",
        "\n",
        "\x1b[1m",
        "\u202e",
        "\ud83d",
        "a\tb",
        "\u200b",
        "漢字",
        "=1",
        "+1",
        "-1",
        "@x",
    ]
    texts += ["\t=", " =", "\uff1d1", "x" * 499, "x" * 500, "x" * 501, "\n" * 501, 5, None, ["\n"], Scope("a", "\n")]
    for text in texts:
        shown = [printable(text), escaped(str(text))[:90], no_formula(str(text))[:90]]
        yield f"{ascii(text)[:60]}: {shown!a}"


def _usages() -> Iterator[str]:
    """Sums of usages and amounts."""
    for number in range(120):
        chance = random.Random(number)
        counts = [chance.choice([0, 0, 1, 5, 300]) for _ in range(13)]
        names = ["unexplained_tokens", "output_video_tokens", "input_video_tokens", "cache_image_read_tokens", "pages"]
        other = tuple((each, chance.choice([0, 2, 9])) for each in chance.sample(names, chance.choice([0, 0, 1, 3])))
        usage = Usage._make((*counts, other))
        sums = (usage.input_tokens, usage.output_tokens, usage.cached, usage.cache_written, usage.total_tokens)
        one, two = (Amounts(*(chance.randrange(-9, 99) for _ in range(6))) for _ in range(2))
        yield f"{counts} {other}: {sums} {tuple(one.plus(two))} {tuple(one.minus(two))} {Limits(*one[:3])}"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "budgets": _budgets,
    "budgets together": _budgets_together,
    "policies": _policies,
    "misspelt": _misspelt,
    "money": _money,
    "windows": _windows,
    "texts": _texts,
    "usages": _usages,
}
"""All of them."""
