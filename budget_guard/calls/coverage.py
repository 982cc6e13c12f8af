"""Coverage: the check that a hold which was made for one request is enough for the one that is really sent."""

from __future__ import annotations

from budget_guard.calls.call import ModelCall
from budget_guard.calls.held import HeldCall
from budget_guard.calls.run import Run
from budget_guard.errors import InvalidDowngradeError, UnboundedCallError, UnknownPriceError
from budget_guard.units.amounts import Limits

_SETS_THE_PRICE = ("provider", "service_tier", "region", "alternatives", "search_context")
_PLENTY = Limits(*[2**80] * 6)


def covers(run: Run, held: HeldCall, call: ModelCall) -> bool:
    """Whether what is held for a call is the worst case of *call* as well, which is what is really sent.

    Args:
        run: The run.
        held: The hold.
        call: What is really sent, with the output cap that it carries.
    """
    planned = held.call
    if not isinstance(planned, ModelCall):
        return False
    before, now = planned.prompt, call.prompt
    if not (now.opaque or now.unweighed) or before.opaque or before.unweighed:
        if now.base + now.text <= before.base + before.text:
            if call.kind == planned.kind and not held.terms.clamped:
                return True  # it is the very call that was planned
            call = call._replace(prompt=before)  # what it was held for, by what was known of the conversation then
    rung = held.terms.rung
    try:
        if not call.model:
            pass  # a stored prompt names the model that answers, and only who planned the call was told it
        elif call.model != rung.model or _served_otherwise(call, planned):
            rung = run.planner.ladder.asked(run.budget, call, _PLENTY)
        _, amounts = run.planner.alone(run.budget, call, rung, _PLENTY)
    except (UnboundedCallError, UnknownPriceError, InvalidDowngradeError):
        return False
    return all(needed <= most for needed, most in zip(amounts, held.amounts, strict=True))


def _served_otherwise(call: ModelCall, planned: ModelCall) -> bool:
    """Whether *call* names something that sets the price beside the model, and that was not planned for."""
    return any((now := getattr(call, name)) is not None and now != getattr(planned, name) for name in _SETS_THE_PRICE)
