"""What the proxy's guard is started with: words in a TOML file, and in the environment, which wins.

::

    run_budget = "$5.00"
    ledger = "redis://localhost:6379/0"
    ceiling = ["user=$20/day", "team=$300/month"]

They are the words of ``budget-guard serve``. The same in the environment is ``BUDGET_GUARD_RUN_BUDGET``, and so on;
several values are separated by ``;``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args

from budget_guard import Budget
from budget_guard.calls.seen import OnCancel
from budget_guard.policy.budget import Mode, OnLedgerError
from budget_guard_gateway.option_values import ceilings, pairs, price, whole

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "BUDGET_GUARD_"
CONFIG = f"{PREFIX}CONFIG"
"""The variable that names the file."""
_OF_OTHERS = frozenset(f"{PREFIX}{name}" for name in ("CONFIG", "PRICES", "ADMIN_TOKEN"))
"""Variables that are none of these settings."""
_LISTS = frozenset("alternative ceiling downgrade price model max_live_runs passthrough untold_usage".split())
_TEXTS = frozenset(
    "run_budget ledger mode max_output_tokens max_requests max_wait on_cancel on_ledger_error outbox decisions_kept "
    "status run_ttl".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What the guard of one proxy is started with."""

    run_budget: Budget
    """What each run may spend. Its mode is the proxy's."""
    ledger: str = "memory://"
    """Where the counters live, as of `open_ledger`. Several workers need one that they share."""
    ceilings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What each user, key or team may spend, as of `BudgetAuthority`."""
    per_million: Mapping[str, tuple[float, float]] | None = None
    """Prices that win over the bundled ones, in dollars per million tokens."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """The models behind names of one's own: ``{"prod-chat": "gpt-4o"}``."""
    max_live_runs: Mapping[str, int] | None = None
    """How many runs a principal may have open at once, by kind."""
    alternatives: Sequence[str] = ()
    """Models that a refusal names where one of them is cheaper and could take the call, beside those that the budget
    downgrades to."""
    passthrough: Sequence[str] = ()
    """Requests that pass without being held, such as ``POST /v1/moderations``."""
    untold_usage: Sequence[str] = ()
    """Providers, as LiteLLM names them, and models that do not tell what they used: LiteLLM would make it up, so what
    was held is booked."""
    run_ttl_s: float = 3_600
    """Seconds without a call after which a run is put away. It goes on where it stopped with its next call."""
    max_runs: int = 2_000
    """Runs that are kept at hand in each process."""
    on_cancel: OnCancel = "bound"
    """What to book for a stream whose client is gone, as of `Session`."""
    on_ledger_error: OnLedgerError | None = None
    outbox: str | None = None
    """A file to keep what was spent while the ledger could not be reached; in memory by default."""
    decisions_kept_days: float = 30
    """Days for which the record of a decision can be looked up."""
    exceeded_status: int = 402
    """The status where a limit is reached."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: If a value makes no sense.
        """
        if not 400 <= self.exceeded_status <= 599:
            raise ValueError(f"status={self.exceeded_status!r} is no status of a refusal: use 402, or 429")
        for name in ("decisions_kept_days", "run_ttl_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name.removesuffix('_days').removesuffix('_s')} must be above zero")


def read_settings(environment: Mapping[str, str]) -> ProxySettings:
    """The settings in *environment*, and in the file that it names.

    Raises:
        ValueError: If a value makes no sense, or what is there is not known.
        OSError: If the file cannot be read.
    """
    told: dict[str, tuple[str, list[str]]] = {}
    path = environment.get(CONFIG)
    if path:
        for name, value in _read(path).items():
            where = f"{path}: {name}"
            _check_name(name, where)
            told[name] = (where, _texts(where, value))
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable not in _OF_OTHERS and text.strip():
            name = variable.removeprefix(PREFIX).lower()
            _check_name(name, variable)
            told[name] = (variable, [each.strip() for each in text.split(";") if each.strip()])
    return _settings_of(told)


def _read(path: str) -> dict[str, object]:
    try:
        return cast("dict[str, object]", tomllib.loads(Path(path).read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None


def _check_name(name: str, where: str) -> None:
    known = _LISTS | _TEXTS
    if name not in known:
        like = get_close_matches(name, known, n=1)
        hint = f"did you mean {like[0]!r}?" if like else f"use one of {', '.join(sorted(known))}"
        raise ValueError(f"{where} is no setting of budget_guard: {hint}")


def _texts(where: str, value: object) -> list[str]:
    """A value of a file as texts: one, or each of a list."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            raise ValueError(f"{where} must be a text, or a list of texts, as in the environment")
    return [str(each) for each in values]


def _settings_of(told: Mapping[str, tuple[str, list[str]]]) -> ProxySettings:
    for name, (where, texts) in told.items():
        if name in _TEXTS and len(texts) != 1:
            raise ValueError(f"{where} must be one value")

    def text(name: str) -> str | None:
        found = told.get(name)
        return None if found is None else found[1][0]

    def several(name: str) -> tuple[str, list[str]]:
        return told.get(name, (name, []))

    def number(name: str) -> float | None:
        given = text(name)
        try:
            return None if given is None else float(given)
        except ValueError:
            raise ValueError(f"{told[name][0]}={given!r} must be a number") from None

    def count(name: str) -> int | None:
        given = text(name)
        return None if given is None else whole(told[name][0], given)

    dollars = text("run_budget")
    if dollars is None:
        raise ValueError(
            f"budget_guard has no budget: set {PREFIX}RUN_BUDGET, for example to $5.00, or name a file with "
            f'run_budget = "$5.00" in {CONFIG}'
        )
    for name, choices in (
        ("mode", get_args(Mode)),
        ("on_cancel", get_args(OnCancel)),
        ("on_ledger_error", get_args(OnLedgerError)),
    ):
        if (chosen := text(name)) is not None and chosen not in choices:
            raise ValueError(f"{told[name][0]}={chosen!r} is not known: use one of {', '.join(choices)}")
    # where LiteLLM sends no output cap, its callers would have a say in it
    more: dict[str, Any] = {"unbounded": "deny"}
    if (cap := count("max_output_tokens")) is not None:
        more |= {"call_max_output_tokens": cap, "clamp_output": "never"}
    if (wait := number("max_wait")) is not None:
        more["max_wait_s"] = wait
    if (mode := text("mode")) is not None:
        more["mode"] = mode
    budget = Budget(
        dollars, max_requests=count("max_requests"), downgrade=dict(pairs(*several("downgrade"))) or None, **more
    )
    given: dict[str, Any] = {
        "ledger": text("ledger"),
        "run_ttl_s": number("run_ttl"),
        "on_cancel": text("on_cancel"),
        "on_ledger_error": text("on_ledger_error"),
        "outbox": text("outbox"),
        "decisions_kept_days": number("decisions_kept"),
        "exceeded_status": count("status"),
    }
    where, prices = several("price")
    live_where, live = several("max_live_runs")
    return ProxySettings(
        run_budget=budget,
        ceilings=ceilings(*several("ceiling")),
        per_million={model: price(where, model, each) for model, each in pairs(where, prices)} or None,
        models=dict(pairs(*several("model"))),
        max_live_runs={kind: whole(live_where, n) for kind, n in pairs(live_where, live)} or None,
        alternatives=several("alternative")[1],
        passthrough=several("passthrough")[1],
        untold_usage=several("untold_usage")[1],
        **{name: value for name, value in given.items() if value is not None},
    )
