"""The ample plan: what to hold for a call where so much is left that what is left does not matter.

This is the fast path of planning, and the only one. `worst_case.plan_model` is the rule; an ample plan is its result,
worked out once for all calls of a kind but for the size of the input, with a *room* that proves that it applies. The
ledger is asked to hold the plan only where the room fits into every limit of every scope. Where it does not fit, the
balances are looked at, and `plan_model` decides.

Why it decides the same. `plan_model` looks at what is left in three places, and an admitted room answers each:

1. Whether a limit exists at all: a call for which that matters has no ample plan (see `ample_plan`, the None cases).
2. Whether the session must send a lower output cap of its own. It must not where the whole hold, with the highest
   cap that there is, is within ``hold_share`` of what is left beside the money that is kept back, and nobody waits: the
   call wants that much then, whatever is known of recent answers. The room asks for the hold ``ceil(1 / hold_share)``
   times, plus what is kept back: ``committed + reserved + room <= limit`` says just that. A final call, and one that no
   cap can be sent with, want the highest cap in any case: there the room asks for the hold once. While others wait, no
   ample plan is asked for.
3. Which model takes the call. A downgrade policy keeps to the model asked for while less than its threshold is spent,
   and that fits. The room asks for ``limit - threshold + 1`` of every limit that the policy goes by, and
   ``committed + room <= limit`` then says ``committed < threshold``. That needs the limits themselves, so it serves a
   run without ceilings above it: the limits of a run are those that its session set.

`tests/calls/test_planner.py` compares both ways on random budgets, calls and balances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from budget_guard.calls.call import ModelCall
from budget_guard.calls.ladder import SAVED_BY_A_CHEAPER_MODEL
from budget_guard.calls.plan import Plan, Rung, Terms
from budget_guard.calls.worst_case import cap_to_send, may_clamp, output_caps, rejected_cap
from budget_guard.estimate.calibration import ModelCalibration
from budget_guard.estimate.prompt import Prompt
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.units.amounts import MOST, NOTHING, Amounts, Checked, Limits, Sums, unchecked


@dataclass(frozen=True, slots=True)
class AmplePlan:
    """A plan of all calls of one kind, but for the size of the input."""

    terms: Terms
    calibration: ModelCalibration
    """What past calls to the model were billed for."""
    output_tokens: int
    hour_cache: bool
    kinds: frozenset[str] | None
    line: tuple[int, int, int] | None
    """The cost as `ModelPrice.worst_line`; None where it has bends."""
    times: int
    """How often the hold must fit for the call to need no lower output cap."""
    kept_cost: int
    """Nano-dollars that must be left beside it."""
    room_requests: int
    """Requests that must be left."""
    below_threshold: Sums | None
    """What must be left for less than a downgrade policy's threshold to be spent; None without such a policy."""

    def fill(self, prompt: Prompt) -> tuple[Plan, Sums] | None:
        """The plan for a call with *prompt*, and the room that proves that enough is left for it.

        None if the prompt has no bound, or it is more than a ledger takes.
        """
        input_tokens, unweighed = self.calibration.bound(prompt)
        if unweighed is not None:
            return None
        output_tokens, times = self.output_tokens, self.times
        if self.line is not None:
            slope, start, scale = self.line
            cost = (input_tokens * slope + start) // scale
        elif self.terms.rung.price is None:  # what has no price costs nothing
            cost = 0
        else:
            price = self.terms.rung.price
            cost = price.worst(input_tokens, output_tokens, hour_cache=self.hour_cache, kinds=self.kinds)
        total = input_tokens + output_tokens
        room_cost, room_total = cost * times + self.kept_cost, total * times
        most = room_cost + room_total
        if type(most) is not int or most > MOST or input_tokens < 0:
            return None
        amounts = unchecked(Checked, (cost, input_tokens, output_tokens, total, 1, 0))
        room_output = output_tokens * times
        if self.below_threshold is None:
            return (self.terms, amounts), (room_cost, input_tokens, room_output, room_total, self.room_requests, 0)
        least_cost, least_input, least_output, least_total, _, _ = self.below_threshold
        room = (
            room_cost if room_cost > least_cost else least_cost,
            input_tokens if input_tokens > least_input else least_input,
            room_output if room_output > least_output else least_output,
            room_total if room_total > least_total else least_total,
            self.room_requests,
            0,
        )
        return (self.terms, amounts), room


def ample_plan(
    calibration: ModelCalibration,
    budget: BudgetPolicy,
    call: ModelCall,
    rung: Rung,
    policy: DowngradePolicy | None = None,
) -> AmplePlan | None:
    """The ample plan of calls such as *call*; None if what is left matters to them.

    Args:
        calibration: What past calls to the rung's model were billed for.
        budget: The limits and policies.
        call: One of the calls.
        rung: The model to plan for.
        policy: What may put a cheaper model in its place, if anything does.

    Raises:
        UnknownPriceError: If text has no price on *rung*.
    """
    if budget.mode != "hard_gate" or call.hosted_tools or (rung.price is not None and rung.price.own_tools):
        return None
    own, cap = output_caps(budget, call, rung.price)
    if cap is None or rejected_cap(budget, call, rung.price) is not None:
        return None
    sent, bounded = cap_to_send(call, cap, own)
    if not bounded and budget.unbounded == "deny":
        return None
    output_tokens = cap * call.choices
    if type(output_tokens) is not int or output_tokens < 0:
        return None
    line: tuple[int, int, int] | None = (0, 0, 1)
    if rung.price is not None:
        line = rung.price.worst_line(output_tokens, hour_cache=call.hour_cache, kinds=call.kinds)
    # Exact: a hold is small enough if it fits so often into what is left.
    wants_part = may_clamp(budget, call) and not call.final and call.can_cap
    times = math.ceil(1 / Fraction(budget.hold_share)) if wants_part else 1
    kept = NOTHING if call.final else budget.kept_back
    terms = Terms(rung, sent, False, bounded)
    below = None if policy is None else _below_threshold(budget.limits, policy)
    if below is not None and max(below) > MOST:
        return None
    return AmplePlan(
        terms, calibration, output_tokens, call.hour_cache, call.kinds, line, times, kept.cost, 1 + kept.requests, below
    )


def _below_threshold(limits: Limits, policy: DowngradePolicy) -> Sums:
    counted = {name: getattr(limits, name) for name in SAVED_BY_A_CHEAPER_MODEL}
    return Amounts(
        **{name: limit - policy.threshold(limit) + 1 for name, limit in counted.items() if limit is not None}
    )
