"""The planner of one session: which model takes a call, and how much to hold for it."""

from __future__ import annotations

from budget_guard.calls.ample import AmplePlan, ample_plan
from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.ladder import Ladder
from budget_guard.calls.plan import Fit, Plan, Rung, Space
from budget_guard.calls.worst_case import plan_model, plan_tool
from budget_guard.errors import InvalidDowngradeError, UnknownPriceError
from budget_guard.estimate.calibration import Calibration
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.units.amounts import Limits, Sums

_PLAN_AGE_S = 60.0
"""Seconds for which an ample plan, and so a price that was looked up, is used again."""
_MOST_PLANS = 1_000
"""Names come from outside, so there is no end to them."""
_PLENTY = Limits(*[2**80] * 6)


class _AmplePlans(dict[tuple[object, ...], "AmplePlan | None"]):
    """Ample plans by the kind of call, for one budget and a while."""

    __slots__ = ("budget", "until_s")

    def __init__(self, budget: BudgetPolicy | None, until_s: float) -> None:
        super().__init__()
        self.budget = budget
        self.until_s = until_s


class Planner:
    """Works out plans. Holds no counters: what is left comes in, what is decided goes out, both as values.

    Args:
        ladder: The models that may take a call.
        alone: Whether the run's own limits are all that hold, and no ceilings above it.
    """

    __slots__ = ("_alone", "_ample", "calibration", "ladder")

    def __init__(self, ladder: Ladder, *, alone: bool) -> None:
        self.ladder = ladder
        self.calibration = Calibration()
        self._alone = alone
        self._ample = _AmplePlans(None, 0.0)

    def ample(self, budget: BudgetPolicy, call: ModelCall | ToolCall, at_s: float) -> tuple[Plan, Sums] | None:
        """The plan for *call* where ever so much is left, and the room that proves it; None if what is left matters.

        Args:
            budget: The limits and policies.
            call: The call.
            at_s: When it is made: seconds since any fixed moment.
        """
        if isinstance(call, ToolCall):
            return plan_tool(call, budget)
        plans = self._ample
        if plans.budget is not budget or at_s >= plans.until_s:
            # made whole before it is shared: a thread that is late writes into plans that are no longer looked at
            plans = self._ample = _AmplePlans(budget, at_s + _PLAN_AGE_S)
        kind = call.kind
        found = plans.get(kind, ...)
        if found is ...:
            found = self._ample_plan(budget, call)
            if len(plans) >= _MOST_PLANS:
                plans.clear()
            plans[kind] = found
        return None if found is None else found.fill(call.prompt)

    def _ample_plan(self, budget: BudgetPolicy, call: ModelCall) -> AmplePlan | None:
        policy = call.downgrade or budget.downgrade
        try:
            asked = self.ladder.asked(budget, call, _PLENTY)
            if policy is not None and not self.ladder.cheaper(policy, call, asked):
                policy = None
            if policy is not None and not self._alone:
                return None  # the ledger alone knows the limits that the policy goes by
            return ample_plan(self.calibration[call.model], budget, call, asked, policy)
        except (UnknownPriceError, InvalidDowngradeError):
            return None

    def note_served(self, call: ModelCall, rung: Rung, model: str, tier: str | None, region: str | None) -> None:
        """As `Ladder.note_served`: what was planned before that is planned anew."""
        if self.ladder.note_served(call, rung, model, tier, region):
            self._ample = _AmplePlans(None, 0.0)

    def fit(self, budget: BudgetPolicy, call: ModelCall, rung: Rung, space: Space) -> Fit | None:
        """The most that *call* takes on *rung*, as much of it as it should have in *space*. As `plan_model`."""
        return plan_model(self.calibration[rung.model], budget, call, rung, space)

    def alone(self, budget: BudgetPolicy, call: ModelCall, rung: Rung, left: Limits) -> Plan:
        """The most that *call* takes on *rung* where *left* is left and nothing else is in flight."""
        fit = self.fit(budget, call, rung, Space(left, left, False))
        assert fit is not None
        return fit.plan
