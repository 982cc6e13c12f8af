"""Coverage: the check that a hold which was made for one request is enough for the one that is really sent."""

from __future__ import annotations

from budget_guard.calls.call import ModelCall
from budget_guard.calls.held import HeldCall
from budget_guard.calls.plan import Rung
from budget_guard.calls.run import Run
from budget_guard.errors import InvalidDowngradeError, UnboundedCallError, UnknownPriceError
from budget_guard.units.amounts import Limits

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
            call = call._replace(prompt=before)  # what it was held for, by what was known of the conversation then
    rung = held.terms.rung
    try:
        if call.model != rung.model:
            price = run.planner.ladder.price_called(call, call.model, rung.price)
            rung = Rung(rung.model, price)
        _, amounts = run.planner.alone(run.budget, call, rung, _PLENTY)
    except (UnboundedCallError, UnknownPriceError, InvalidDowngradeError):
        return False
    return all(needed <= most for needed, most in zip(amounts, held.amounts, strict=True))
