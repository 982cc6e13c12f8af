"""Decisions in writing, so that another process, or the next one, can go on with what one has decided.

As plain JSON. What a decision was made of, the text of its call, is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from budget_guard.calls.authorizer import Authorizer
from budget_guard.calls.call import ModelCall, ToolCall, name_of
from budget_guard.calls.decision import Decision
from budget_guard.calls.plan import Plan, Rung, Terms
from budget_guard.calls.reservation import Reservation
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    LoopDetected,
    UnboundedCallError,
    UnknownPriceError,
    rebuilt,
)
from budget_guard.estimate.prompt import Prompt
from budget_guard.units.amounts import Amounts, unchecked

_ERRORS: Mapping[str, type[BudgetError]] = {
    each.__name__: each
    for each in (
        *(BudgetExceeded, BudgetRevoked, ForeignRun, InvalidDowngradeError, LedgerUnavailable, LoopDetected),
        *(UnboundedCallError, UnknownPriceError),
    )
}
_UNWRITTEN = ("report", "value", "decision_id", "partial_output")
"""Fields of errors that are of the moment in which they were raised."""


def decision_text(decision: Decision) -> str:
    """*decision* with its call in writing, for `Session.take_up`."""
    return json.dumps({"call": written_call(decision.call), "decision": written(decision)})


def taken_up(text: str, authorizer_of: Callable[[str | None], Authorizer]) -> Decision:
    """The decision that `decision_text` wrote.

    Args:
        text: What it wrote.
        authorizer_of: Who decides on the calls of an agent, in the run in which it was decided.
    """
    told = json.loads(text)
    call = read_call(told["call"])
    return read(told["decision"], call, authorizer_of(call.agent))


def written(decision: Decision) -> dict[str, Any]:
    """*decision* as JSON has it, without its call."""
    terms = decision.terms
    return {
        "id": decision.id,
        "action": decision.action,
        "name": decision.name,
        "reason": decision.reason,
        "held": list(decision.held),
        "terms": None if terms is None else [terms.rung.model, terms.output_cap, terms.clamped, terms.bounded],
        "error": None if decision.error is None else _written_error(decision.error),
    }


def read(text: Mapping[str, Any], call: ModelCall | ToolCall, authorizer: Authorizer) -> Decision:
    """The decision that was written, on a call that is equal to that one, with a hold that can be settled.

    Args:
        text: What `written` has made of it.
        call: The call.
        authorizer: Of the run in which it was decided.
    """
    run = authorizer.run
    at_s = run.recorder.timeline.at()
    amounts = unchecked(Amounts, tuple(text["held"]))
    plan: Plan | None = None
    if text["terms"] is not None:
        name, cap, clamped, bounded = text["terms"]
        plan = Terms(_rung(authorizer, call, name, text["reason"]), cap, clamped, bounded), amounts
    if text["error"] is not None or plan is None:
        error = _read_error(text["error"] or {"is": "LedgerUnavailable", "detail": text["reason"]})
        error.decision_id = text["id"]
        return authorizer.refusal(text["id"], at_s, call, plan, error)
    return Decision(
        id=text["id"],
        at_s=at_s,
        action=text["action"],
        call=call,
        requested=name_of(call),
        name=text["name"],
        terms=plan[0],
        held=amounts,
        basis=authorizer.basis,
        reason=text["reason"],
        error=None,
        reservation=Reservation(text["id"], call, plan, run),
    )


def _rung(authorizer: Authorizer, call: ModelCall | ToolCall, name: str, why: str) -> Rung:
    """The model that takes the call, at the price that it has now."""
    run = authorizer.run
    if isinstance(call, ToolCall):
        return Rung(name, None)
    try:
        asked = run.planner.ladder.asked(run.budget, call._replace(model=name), run.limits)
    except UnknownPriceError:  # it had one when the call was held: what is held is what is booked
        return Rung(name, None)
    return Rung(name, asked.price, why if name != call.model else "", asked.exact)


def written_call(call: ModelCall | ToolCall) -> dict[str, Any]:
    """*call* as JSON has it, by what it weighs: what settling it takes."""
    if isinstance(call, ToolCall):
        return {"tool": call.tool, "cost": call.cost, "agent": call.agent, "counts": call.counts}
    return {
        "model": call.model,
        "provider": call.provider,
        "input_tokens": call.prompt.base + call.prompt.text,
        "max_output_tokens": call.max_output_tokens,
        "can_cap": call.can_cap,
        "needs": sorted(call.needs),
        "service_tier": call.service_tier,
        "choices": call.choices,
        "hosted_tools": list(call.hosted_tools),
        "agent": call.agent,
        "hour_cache": call.hour_cache,
        "region": call.region,
        "kinds": None if call.kinds is None else sorted(call.kinds),
        "alternatives": list(call.alternatives),
        "search_context": call.search_context,
        "tool_fees": [list(each) for each in call.tool_fees],
    }


def read_call(text: Mapping[str, Any]) -> ModelCall | ToolCall:
    """The call that `written_call` wrote. Its prompt is a number of tokens: nothing is learned from it."""
    if "tool" in text:
        return ToolCall(text["tool"], text["cost"], text["agent"], text["counts"])
    rest = {name: value for name, value in text.items() if name != "input_tokens"}
    for name in ("hosted_tools", "alternatives"):
        rest[name] = tuple(rest[name])
    rest["needs"] = frozenset(rest["needs"])
    rest["kinds"] = None if rest["kinds"] is None else frozenset(rest["kinds"])
    rest["tool_fees"] = tuple((name, fee) for name, fee in rest["tool_fees"])
    return ModelCall(prompt=prompt_of_tokens(text["input_tokens"]), **rest)


def prompt_of_tokens(tokens: int) -> Prompt:
    """A prompt of which it is known alone that it takes at most *tokens*."""
    return Prompt(tokens, 0, (), 0)


def _written_error(error: BudgetError) -> dict[str, Any]:
    fields = {name: _plain(value) for name, value in error.fields().items() if name not in _UNWRITTEN}
    known = next((name for name, cls in _ERRORS.items() if type(error) is cls), "")
    if not known:  # a ledger's, or of a kind that is not kept
        return {"is": "LedgerUnavailable", "detail": str(error)}
    return {"is": known, **fields}


def _read_error(text: Mapping[str, Any]) -> BudgetError:
    fields = {name: _value(value) for name, value in text.items() if name != "is"}
    return rebuilt(_ERRORS[text["is"]], fields)


def _plain(value: object) -> Any:
    if isinstance(value, Decimal):
        return {"decimal": f"{value:f}"}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _value(value: object) -> Any:
    if isinstance(value, dict):
        marked = cast("dict[str, str]", value)
        return Decimal(marked["decimal"]) if "decimal" in marked else datetime.fromisoformat(marked["time"])
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
