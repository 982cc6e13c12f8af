"""Asking every budget of a call for its hold, in LangChain's terms."""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard import BudgetExceeded, ModelCall, Reservation, Session, ToolCall
from budget_guard_langchain.approval import ask_human
from budget_guard_langchain.errors import BudgetDowngrade, recast
from budget_guard_langchain.steering import Steering


def hold_in_all(
    sessions: Sequence[Session],
    call: ModelCall | ToolCall,
    *,
    takes: str | None = None,
    steering: Steering | None = None,
    asks: bool,
    may_wait: bool,
) -> tuple[Reservation, ...]:
    """Hold *call* in every session, or in none.

    Args:
        sessions: The budgets that it spends from.
        call: The call.
        takes: The model that makes it, where that is not the one asked for.
        steering: What can switch its model and cap its output; None where nothing can.
        asks: Whether a human is asked before it is refused for want of budget.
        may_wait: Whether it may block until there is room.

    Raises:
        BudgetError: In LangChain's terms, if it is refused.
        BudgetDowngrade: If a cheaper model is to make it, and it cannot be switched.
    """
    holds: list[Reservation] = []
    try:
        for session in sessions:
            holds.append(_hold(session, call, takes, steering, asks, may_wait))
    except BaseException:
        for hold in holds:
            hold.release("another budget refused the call")
        raise
    return tuple(holds)


def _hold(
    session: Session,
    call: ModelCall | ToolCall,
    takes: str | None,
    steering: Steering | None,
    asks: bool,
    may_wait: bool,
) -> Reservation:
    while True:
        asked = steering.ask(call) if steering is not None and isinstance(call, ModelCall) else call
        decision = session.authorize(asked, may_wait=may_wait, sent=True)
        error = decision.error
        if error is None:
            break
        if not asks or not isinstance(error, BudgetExceeded) or not ask_human(session, error):
            raise recast(error) from error.__cause__
    hold = decision.require()
    if decision.name not in (decision.requested, takes) and (steering is None or not steering.takes(decision.name)):
        hold.release("the call is left to the cheaper model")
        raise BudgetDowngrade(
            model=decision.requested, target=decision.name, reason=decision.reason, decision_id=decision.id
        )
    if steering is not None:
        steering.answer(decision)
    return hold
