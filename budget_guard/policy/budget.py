"""Budgets: the limits and policies of one unit of work."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from budget_guard.policy.allowance import Allowance
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.policy.loops import LoopPolicy
from budget_guard.policy.misspelt import BUDGET_WORDS, meant, tells_what_was_meant
from budget_guard.units.amounts import DIMENSIONS, MOST, NOTHING, Amounts, Limits
from budget_guard.units.money import UsdLike, cost_nano, format_usd, limit_nano, parse_usd
from budget_guard.units.scope import Window

if TYPE_CHECKING:
    from typing_extensions import Self

Mode: TypeAlias = Literal["hard_gate", "soft_gate", "advisory_estimate", "actuals_only"]
ClampOutput: TypeAlias = Literal["when_unset", "always", "never", "reject"]
Unpriced: TypeAlias = Literal["deny", "allow"]
Unbounded: TypeAlias = Literal["allow", "deny"]

ServerErrors: TypeAlias = Literal["book", "release"]

OnLedgerError: TypeAlias = Literal["closed", "open"]
"""``closed`` refuses calls, ``open`` lets them pass without a hold and books them later."""

_LIMITS = (*DIMENSIONS, "max_duration_s", "max_usd_per_minute")
_DOWNGRADE_AT = 0.8
"""Where an adapter's ``downgrade_at`` is if nobody sets it."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class BudgetPolicy:
    """The limits and policies of a `budget_guard.Budget`, which adds the way to open a session."""

    max_cost_usd: Decimal | None
    """Dollars for model calls and priced tools together."""
    max_total_tokens: int | None
    """Input plus output tokens, cached and reasoning ones included."""
    max_input_tokens: int | None
    max_output_tokens: int | None
    max_requests: int | None
    """Model calls, each attempt of a retried call included."""
    max_tool_calls: int | None
    max_duration_s: float | None
    """Seconds from the first call; a call that starts later is refused."""
    window: Window
    """When the limits begin anew, for a ceiling that many runs share: each UTC ``day``, for example."""
    soft_limit: float | None
    """Warn once per limit at this fraction of it; None never warns."""
    downgrade: DowngradePolicy | None
    mode: Mode
    """``hard_gate``: no call without its worst case reserved. ``soft_gate``: calls pass as long as anything is left, or
    within `soft_margin_usd`, so the last ones may go over. ``advisory_estimate``: never refuses, says what it would
    have refused. ``actuals_only``: no estimates; books what was spent and refuses once a limit is reached."""
    soft_margin_usd: Decimal | None
    """Dollars by which the estimate of a call may exceed what is left in a ``soft_gate``, whatever is left; None to let
    calls pass as long as anything is."""
    unpriced: Unpriced
    """``deny`` refuses a model without a known price wherever a dollar limit applies; ``allow`` counts its tokens and
    requests and reports the call as unpriced."""
    unbounded: Unbounded
    """What to do with a call whose output cannot be capped: ``allow`` holds what a capped one would, warns once and
    says ``bounded=False``; ``deny`` refuses."""
    call_max_output_tokens: int | None
    """The most output tokens that any one call may have."""
    clamp_output: ClampOutput
    """Whether the guard sends an output cap of its own: ``when_unset`` where the caller sets none, ``always``, or
    ``never``. ``reject`` as ``never``, and a call is refused whose own cap is above `call_max_output_tokens`, or above
    the most that its model writes, in place of lowering that."""
    hold_share: float
    """The fraction of what is left that one answer may be worth. Where the model's own maximum is worth more, the guard
    sends a cap: of this fraction before any answer of the model is known, later of about four times what recent ones
    took, or of a quarter of this fraction, whichever is more."""
    max_wait_s: float
    """Seconds that a call may wait for room that other calls in flight are holding; 0 never waits."""
    finalization_reserve: Decimal | None
    """Dollars kept back for one final answer once everything else is spent."""
    server_errors: ServerErrors
    """What to do with a call that ended in a 500 with the provider's own body: ``book`` what was held, for it may be
    billed, or ``release`` it. Every budget that holds a call has to say ``release``."""
    service_tier: str | None
    """The provider's price tier at which calls are held that ask for none; None for the standard one."""
    task: str | None
    """The kind of work, for records and advice: ``"summarise"``."""
    allowance: Allowance
    """What to reserve for content that cannot be weighed: images, files, server-side history, hosted tools."""
    loop: LoopPolicy | None
    """When to warn of a run that repeats itself, and to stop it; None never looks."""
    agents: Mapping[str, BudgetPolicy] | None
    """What each agent may take of it, by the agent's name: limits alone, for the calls that it makes itself."""
    max_runs: int | None
    """Distinct runs that a principal may begin in a window; of a ceiling alone. A run id counts once."""
    max_usd_per_minute: Decimal | None
    """Dollars that the session may take in any sixty seconds, from its tenth second on: a brake for what runs away. A
    single call is never too much."""

    @tells_what_was_meant(BUDGET_WORDS)
    def __init__(
        self,
        max_cost_usd: UsdLike | None = None,
        *,
        max_total_tokens: int | None = None,
        max_input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        max_requests: int | None = None,
        max_tool_calls: int | None = None,
        max_duration_s: float | None = None,
        window: Window = "none",
        soft_limit: float | None = 0.9,
        downgrade: DowngradePolicy | Mapping[str, str] | str | None = None,
        mode: Mode = "hard_gate",
        soft_margin_usd: UsdLike | None = None,
        unpriced: Unpriced = "deny",
        unbounded: Unbounded = "allow",
        call_max_output_tokens: int | None = None,
        clamp_output: ClampOutput = "when_unset",
        hold_share: float = 0.5,
        max_wait_s: float = 30,
        finalization_reserve: UsdLike | None = None,
        server_errors: ServerErrors = "book",
        service_tier: str | None = None,
        task: str | None = None,
        allowance: Allowance | None = None,
        loop: LoopPolicy | None = None,
        agents: Mapping[str, BudgetPolicy] | None = None,
        max_runs: int | None = None,
        max_usd_per_minute: UsdLike | None = None,
    ) -> None:
        """Check every value.

        Raises:
            ValueError: If a value is senseless, naming the field, the value and the remedy.
        """
        values: dict[str, Any] = {
            "max_cost_usd": None if max_cost_usd is None else _dollars("max_cost_usd", max_cost_usd),
            "max_total_tokens": _count("max_total_tokens", max_total_tokens),
            "max_input_tokens": _count("max_input_tokens", max_input_tokens),
            "max_output_tokens": _count("max_output_tokens", max_output_tokens),
            "max_requests": _count("max_requests", max_requests),
            "max_tool_calls": _count("max_tool_calls", max_tool_calls, least=0),
            "max_duration_s": None if max_duration_s is None else _seconds("max_duration_s", max_duration_s),
            "window": _one_of("window", window),
            "soft_limit": None if soft_limit is None else _fraction("soft_limit", soft_limit),
            "downgrade": _policy(downgrade),
            "mode": _one_of("mode", mode),
            "soft_margin_usd": None if soft_margin_usd is None else parse_usd(soft_margin_usd, "soft_margin_usd"),
            "unpriced": _one_of("unpriced", unpriced),
            "unbounded": _one_of("unbounded", unbounded),
            "call_max_output_tokens": _count("call_max_output_tokens", call_max_output_tokens),
            "clamp_output": _one_of("clamp_output", clamp_output),
            "hold_share": _fraction("hold_share", hold_share),
            "max_wait_s": _seconds("max_wait_s", max_wait_s, zero=True),
            "finalization_reserve": None
            if finalization_reserve is None
            else _dollars("finalization_reserve", finalization_reserve),
            "server_errors": _one_of("server_errors", server_errors),
            "service_tier": _tier(service_tier),
            "task": _task(task),
            "allowance": _allowance(allowance),
            "loop": _loop(loop),
            "agents": None if agents is None else _AgentCaps.checked(agents),
            "max_runs": _count("max_runs", max_runs),
            "max_usd_per_minute": None
            if max_usd_per_minute is None
            else _dollars("max_usd_per_minute", max_usd_per_minute),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if all(values[name] is None for name in (*_LIMITS, "max_runs")):
            raise ValueError('Budget has no limit at all: set at least one, for example Budget("$5.00")')
        if self.soft_margin_usd is not None and self.mode != "soft_gate":
            raise ValueError(
                f'soft_margin_usd={soft_margin_usd!r} has no effect with mode={mode!r}: set mode="soft_gate", or leave '
                "it out"
            )
        reserve, ceiling = self.finalization_reserve, self.max_cost_usd
        if reserve is not None and (ceiling is None or reserve >= ceiling):
            raise ValueError(
                f"finalization_reserve={finalization_reserve!r} must be less than max_cost_usd={max_cost_usd!r}: "
                "it is a part of it"
            )
        if reserve is not None and cost_nano(reserve) > 2**53 - 1:
            raise ValueError(
                f"finalization_reserve={finalization_reserve!r} is more than a ledger can hold for one call"
            )
        if reserve is not None and self.max_requests == 1:
            raise ValueError(
                "max_requests=1 leaves no call but the final one: allow more, or drop finalization_reserve"
            )

    @property
    def limits(self) -> Limits:
        """The limits that a ledger enforces."""
        return Limits(
            None if self.max_cost_usd is None else limit_nano(self.max_cost_usd),
            self.max_input_tokens,
            self.max_output_tokens,
            self.max_total_tokens,
            self.max_requests,
            self.max_tool_calls,
        )

    @property
    def kept_back(self) -> Amounts:
        """The part that no call but the final one may touch."""
        if self.finalization_reserve is None:
            return NOTHING
        return Amounts(cost=cost_nano(self.finalization_reserve), requests=1)

    @property
    def soft_margin(self) -> int:
        """The margin of a soft gate, in nano-dollars; 0 without one."""
        return 0 if self.soft_margin_usd is None else min(limit_nano(self.soft_margin_usd), MOST)

    @classmethod
    def metered(cls, **policies: Any) -> Self:
        """A budget that counts and limits nothing, to see what a run costs.

        Args:
            **policies: Fields that are no limits, such as ``allowance``.

        Raises:
            ValueError: If one of them is a limit, or makes no sense.
        """
        for name, value in policies.items():
            if name in _LIMITS and value is not None:
                raise ValueError(f"{name}={value!r} is a limit, and a metered budget has none: use Budget({name}=...)")
        given: dict[str, Any] = {**policies, "max_requests": 1}
        budget = cls(**given)
        object.__setattr__(budget, "max_requests", None)
        return budget

    def __repr__(self) -> str:
        shown: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != (None if field.name == "max_requests" else getattr(_plain(), field.name)):
                dollars = isinstance(value, Decimal)
                words = repr(f"${value:f}") if dollars else repr(value)
                shown.append(words if field.name == "max_cost_usd" else f"{field.name}={words}")
        made = ".metered" if self._is_metered else ""
        return f"{type(self).__name__}{made}({', '.join(shown)})"

    @property
    def _is_metered(self) -> bool:
        return all(getattr(self, name) is None for name in _LIMITS)

    def replace(self, **changes: Any) -> Self:
        """A copy with *changes*, checked like a new one."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        if self._is_metered and all(values.get(name) is None for name in _LIMITS):
            return type(self).metered(**{name: value for name, value in values.items() if name not in _LIMITS})
        return type(self)(**values)

    def refuses_unpriced(self, dollars_limited: bool) -> bool:
        """Whether what has no known price is refused, where a dollar limit applies or not."""
        return self.unpriced == "deny" and self.mode != "advisory_estimate" and dollars_limited

    def with_downgrade(self, to: str | Mapping[str, str] | None, at: float) -> Self:
        """A copy that switches to the cheaper model *to* at the fraction *at*; itself where *to* is None.

        Raises:
            ValueError: If it has a policy already, or a value is senseless.
        """
        if to is None:
            if at != _DOWNGRADE_AT:
                remedy = "give DowngradePolicy(to=..., at=...)" if self.downgrade else "name the cheaper model as well"
                raise ValueError(f"downgrade_at={at!r} has no effect without downgrade_to: {remedy}, or leave it out")
            return self
        if self.downgrade is not None:
            raise ValueError(f"downgrade_to={to!r} is set, and Budget.downgrade too: set one of them")
        return self.replace(downgrade=DowngradePolicy(to=to, at=at))

    def raised(self, **limits: Any) -> Self:
        """A copy with higher *limits*.

        Args:
            **limits: New values of ``max_...`` fields; None removes a limit.

        Raises:
            ValueError: If a name is not a limit, or a value is lower than the limit it replaces.
        """
        for name, value in limits.items():
            if name not in _LIMITS:
                near = meant(name, dict.fromkeys(_LIMITS), BUDGET_WORDS)
                asked = "" if near is None else f"did you mean {near}? Else "
                raise ValueError(f"{name}={value!r} is not a limit: {asked}use one of {', '.join(_LIMITS)}")
        raised = self.replace(**limits)
        for name, value in limits.items():
            old, new = getattr(self, name), getattr(raised, name)
            if new is not None and old is None:
                raise ValueError(
                    f"{name}={value!r} would be a new limit, for the budget has no {name}, and limits can only be "
                    f"raised: start with Budget(..., {name}={value!r})"
                )
            if new is not None and new < old:
                was = format_usd(limit_nano(old)) if isinstance(old, Decimal) else old
                raise ValueError(f"{name}={value!r} is lower than the limit of {was}: limits can only be raised")
        return raised


class _AgentCaps(dict[str, BudgetPolicy]):
    """The caps of agents by name. It is never changed, so that a budget can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, for it may change
        return hash(frozenset(self.items()))

    @classmethod
    def checked(cls, agents: object) -> _AgentCaps:
        """*agents*, if that names agents and gives each limits alone.

        Raises:
            ValueError: If it does not.
        """
        example = 'use agents={"Researcher": Budget("$0.20")}'
        if not isinstance(agents, Mapping) or not agents:
            raise ValueError(f"agents={agents!r} names no agents: {example}")
        caps = cls()
        for name, cap in cast("Mapping[object, object]", agents).items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"agents: {name!r} is no name of an agent: {example}")
            if not isinstance(cap, BudgetPolicy):
                raise ValueError(f"agents[{name!r}]={cap!r} is not a Budget: {example}")
            for field in fields(cap):
                value = getattr(cap, field.name)
                if field.name not in DIMENSIONS and value != getattr(_plain(), field.name):
                    raise ValueError(
                        f"agents[{name!r}] sets {field.name}={value!r}: the cap of an agent has limits alone, so set "
                        "it in the budget of the run"
                    )
            if not any(limit is not None for limit in cap.limits):
                raise ValueError(f"agents[{name!r}] has no limit: {example}")
            caps[name] = cap
        return caps


@functools.cache
def _plain() -> BudgetPolicy:
    """A budget that differs from the defaults in one limit alone."""
    return BudgetPolicy(max_requests=1)


def _dollars(field: str, value: UsdLike) -> Decimal:
    amount = parse_usd(value, field)
    if limit_nano(amount) == 0:
        raise ValueError(f'{field}={value!r} is nothing: use an amount above zero, such as "$1.00", or None')
    return amount


def _policy(downgrade: object) -> DowngradePolicy | None:
    if downgrade is None or isinstance(downgrade, DowngradePolicy):
        return downgrade
    if isinstance(downgrade, str):
        return DowngradePolicy(to=downgrade)
    if isinstance(downgrade, Mapping):
        return DowngradePolicy(to=dict(cast("Mapping[str, str]", downgrade)))
    raise ValueError(f'downgrade={downgrade!r} is no policy: use a model such as "gpt-4o-mini", or a mapping of models')


def _task(task: object) -> str | None:
    if task is not None and (not isinstance(task, str) or not task.strip()):
        raise ValueError(f'task={task!r} is no name of a kind of work: use a text such as "summarise", or None')
    return task


def _tier(tier: object) -> str | None:
    if tier is not None and (not isinstance(tier, str) or not tier.strip()):
        remedy = 'use the provider\'s own, such as "flex" or "priority", or None'
        raise ValueError(f"service_tier={tier!r} is no name of a tier: {remedy}")
    return tier


def _allowance(allowance: object) -> Allowance:
    if allowance is None or isinstance(allowance, Allowance):
        return allowance or Allowance()
    raise ValueError(f"allowance={allowance!r} is not known: use Allowance(input_tokens=...)")


def _loop(loop: object) -> LoopPolicy | None:
    if loop is None or isinstance(loop, LoopPolicy):
        return loop
    raise ValueError(f"loop={loop!r} is no policy: use LoopPolicy(), or LoopPolicy(exempt=('job_status',))")


def _count(field: str, value: int | None, *, least: int = 1) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{field}={value!r} is not a whole number: use an int such as 1000, or None for no limit")
    if value < least:
        raise ValueError(f"{field}={value!r} is less than {least}: use a larger number, or None for no limit")
    if value > 2**53 - 1:
        raise ValueError(f"{field}={value!r} is more than a ledger can hold (2**53 - 1): use None for no limit")
    return value


def _number(field: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e15:
        raise ValueError(f"{field}={value!r} is not a number of that kind: use one such as 0.5")
    return float(value)


def _seconds(field: str, value: float, *, zero: bool = False) -> float:
    seconds = _number(field, value)
    if seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"{field}={value!r} must be {'zero or more' if zero else 'more than zero'} seconds")
    return seconds


def _fraction(field: str, value: float) -> float:
    fraction = _number(field, value)
    if not 0 < fraction <= 1:
        raise ValueError(f"{field}={value!r} must be a fraction above 0 and at most 1, for example 0.9")
    return fraction


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "window": get_args(Window),
    "mode": get_args(Mode),
    "unpriced": get_args(Unpriced),
    "unbounded": get_args(Unbounded),
    "clamp_output": get_args(ClampOutput),
    "server_errors": get_args(ServerErrors),
}


def _one_of(field: str, value: str) -> str:
    allowed = _CHOICES[field]
    if value not in allowed:
        raise ValueError(f"{field}={value!r} is not known: use one of {', '.join(map(repr, allowed))}")
    return value


def fails_open(mode: Mode, chosen: OnLedgerError | None) -> bool:
    """Whether calls pass while the ledger cannot be reached: as *chosen*, else where the mode promises no ceiling.

    Raises:
        ValueError: If *chosen* is not known.
    """
    if chosen is None:
        return mode in ("advisory_estimate", "actuals_only")
    if chosen not in get_args(OnLedgerError):
        raise ValueError(f"on_ledger_error={chosen!r} is not known: use 'closed', 'open', or None to go by the mode")
    return chosen == "open"
