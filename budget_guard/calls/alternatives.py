"""Alternatives: the cheaper models that could take a call that was refused. Nothing is held to find them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from budget_guard.calls.authorizer import Authorizer
from budget_guard.calls.call import ModelCall
from budget_guard.calls.decision import Decision
from budget_guard.calls.queue import Steps
from budget_guard.errors import BudgetError, BudgetExceeded
from budget_guard.ledger.base import Balance
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.units.money import limit_nano, to_usd

MOST_ALTERNATIVES = 20
"""So many models are looked at, the first ones: each takes as long as planning a call."""
_SAVED = ("max_cost_usd", "max_usd_per_minute")
"""The limits that a cheaper model takes less of, whatever it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A cheaper model that could take a refused call, and what it would take."""

    model: str
    estimate: int
    """The most that the call may cost on it, in nano-dollars."""
    fits_budget: bool
    """True if the call would be admitted on it now. What others take meanwhile may change that."""
    supports_tools: bool | None
    """None where it is not known."""
    supports_json_schema: bool | None
    context_window_tokens: int | None
    """The most tokens of one call; None where it is not known."""

    @property
    def estimate_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.estimate)


def refused_for_its_cost(decision: Decision) -> ModelCall | None:
    """The call of a refusal that a cheaper model could change: of a model call, for what that may cost; else None.

    Where the provider may choose among several models, the others might still answer.
    """
    call = decision.call
    return call if isinstance(call, ModelCall) and _is_for_its_cost(decision.error) and not call.alternatives else None


def _is_for_its_cost(error: BudgetError | None) -> bool:
    return isinstance(error, BudgetExceeded) and error.dimension in _SAVED


def find_alternatives(authorizer: Authorizer, call: ModelCall, models: Iterable[str]) -> Steps[list[Alternative]]:
    """As `Session.alternatives`: each model is judged by the rules by which a call of it is decided on, all of them by
    what is left at one moment.

    Args:
        authorizer: Who decided.
        call: The refused call, as `refused_for_its_cost` gives it.
        models: Models to look at beside those of the downgrade policy.
    """
    run = authorizer.run
    policy = call.downgrade or run.budget.downgrade
    named = dict.fromkeys([*(() if policy is None else policy.ladder(call.model)), *models])
    ladder, found = run.planner.ladder, list[Alternative]()
    balances: Sequence[Balance] | None = None
    most = 0
    for model in list(named)[:MOST_ALTERNATIVES]:
        price = ladder.cheaper_price(call, model)
        if price is None:
            continue
        if balances is None:
            balances = yield "balances", (run.scopes,)
            as_asked = call._replace(downgrade=DowngradePolicy(to=call.model))  # which has no cheaper one for it
            most = (yield from authorizer.foresee(as_asked, balances)).held.cost
        estimate = yield from authorizer.foresee(call._replace(model=model), balances)
        if not estimate.admitted and not _is_for_its_cost(estimate.error):
            continue  # what is left of the money makes no difference
        if estimate.held.cost >= most:
            continue
        known = price.capabilities
        found.append(
            Alternative(
                model=model,
                estimate=estimate.held.cost,
                fits_budget=estimate.admitted and not _is_too_fast(authorizer, estimate.held.cost),
                supports_tools=None if known is None else "tools" in known,
                supports_json_schema=None if known is None else "json_schema" in known,
                context_window_tokens=price.context_window,
            )
        )
    return found


def _is_too_fast(authorizer: Authorizer, cost: int) -> bool:
    """True if a call of *cost* would take more in a minute than the budget allows."""
    run = authorizer.run
    most = run.budget.max_usd_per_minute
    if most is None or run.budget.mode == "advisory_estimate":
        return False
    at_s = run.recorder.timeline.at()
    return run.rate.look(cost, limit_nano(most), at_s, hard=run.budget.mode == "hard_gate") is not None
