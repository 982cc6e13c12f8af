"""Problems: what a service answers instead of passing a call on, as RFC 9457 has it.

https://www.rfc-editor.org/rfc/rfc9457. The ``code`` tells programs what to do, ``detail`` tells people. An ``error``
member says the same once more in the form that the SDKs of model providers read. Of scopes above the caller's own run
neither names nor amounts are told, but for what is left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from budget_guard.calls.alternatives import Alternative
from budget_guard.calls.call import ModelCall
from budget_guard.calls.decision import Decision
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    LoopDetected,
    ReservationConflict,
    ReservationError,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.protocol.words import is_within_run, quantity, scope_kind, usd
from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import printable

PROBLEM_JSON = "application/problem+json"
"""The media type."""
_PAGE = "https://github.com/budget-guard/budget-guard/blob/main/docs/protocol.md#"
_LONGEST_NAME = 200
"""Characters of a model's name for which it is looked up what it might have meant."""


class ProblemType(NamedTuple):
    """What all problems of one type have in common."""

    name: str
    status: int
    title: str
    retry: bool = False
    """Whether the same request may be answered otherwise if it is sent again."""

    @property
    def uri(self) -> str:
        """Its type URI, which is the address of its description."""
        return _PAGE + self.name


PROBLEM_TYPES: Mapping[str, ProblemType] = {
    each.name: each
    for each in (
        # of budgets
        ProblemType("ceiling_reached", 402, "The budget does not allow this call"),
        ProblemType("limit_reached", 402, "A limit other than money does not allow this call"),
        ProblemType("reserved", 402, "Other calls in flight hold what this call needs", retry=True),
        ProblemType("too_many_runs", 429, "Too many runs", retry=True),
        ProblemType("loop_detected", 402, "The run repeats itself"),
        ProblemType("revoked", 403, "The run, or whom it belongs to, was cut off"),
        ProblemType("foreign_run", 403, "The run belongs to another principal"),
        ProblemType("unknown_price", 422, "No price is known for this call"),
        ProblemType("unbounded_call", 422, "Nothing bounds what this call costs"),
        ProblemType("output_cap_too_high", 422, "The call sets a higher output cap than it may"),
        ProblemType("invalid_downgrade", 422, "The cheaper model cannot stand in"),
        ProblemType("ledger_unavailable", 503, "The budget cannot be checked now", retry=True),
        ProblemType("conflict", 409, "The same id came with other parameters"),
        ProblemType("unknown_reservation", 404, "There is no such reservation"),
        # of a service
        ProblemType("unauthorized", 401, "A key is needed"),
        ProblemType("model_not_allowed", 403, "The key may not use this model"),
        ProblemType("browser_refused", 403, "Requests of browsers are not served"),
        ProblemType("misdirected_request", 421, "The host is not served here"),
        ProblemType("invalid_request", 400, "The request cannot be read"),
        ProblemType("invalid_run_id", 400, "The run id is no name"),
        ProblemType("unsupported_encoding", 415, "The request is compressed"),
        ProblemType("too_large", 413, "The request is too large"),
        ProblemType("headers_too_large", 431, "The headers are too large"),
        ProblemType("not_found", 404, "There is nothing here"),
        ProblemType("method_not_allowed", 405, "The method is not for this address"),
        ProblemType("not_metered", 501, "Requests to this endpoint are not held to a budget, so none is sent"),
        ProblemType("busy", 503, "Too many requests are under way", retry=True),
        ProblemType("upstream_unreachable", 502, "The model provider cannot be reached", retry=True),
        ProblemType("upstream_failed", 502, "The model provider broke off its answer", retry=True),
        ProblemType("upstream_timeout", 504, "The model provider did not answer in time", retry=True),
        ProblemType("internal", 500, "The service failed"),
    )
}
"""Every type, by name. docs/protocol.md describes each."""

_UNITS = {
    "max_cost_usd": "",
    "max_usd_per_minute": " a minute",
    "max_total_tokens": " tokens",
    "max_input_tokens": " input tokens",
    "max_output_tokens": " output tokens",
    "max_requests": " requests",
    "max_tool_calls": " tool calls",
    "max_duration_s": " seconds",
}


class Problem(NamedTuple):
    """One problem: the status, the headers and the members of its document."""

    type: ProblemType
    status: int
    code: str
    detail: str
    retry_after_s: float | None = None
    members: Mapping[str, Any] = {}
    """What it has beside the members of every problem."""
    retry: bool = True
    """Whether the same request may be answered otherwise soon, where its type says that it may at all."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that say whether to try again. Without them an SDK tries a 429 and a 503 three times."""
        named = [("Content-Type", PROBLEM_JSON)]
        if self.retry_after_s is not None:
            named.append(("Retry-After", str(max(1, math.ceil(self.retry_after_s)))))
        if not (self.type.retry and self.retry):
            named.append(("x-should-retry", "false"))
        return named

    @property
    def document(self) -> dict[str, Any]:
        """The body, as JSON has it. What OpenAI's SDK for JavaScript shows of it is the member ``error`` alone."""
        instead = self.members.get("alternatives")
        return {
            "type": self.type.uri,
            "title": self.type.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
            "error": {
                "message": self.detail,
                "type": "budget_exceeded" if self.type.name in _EXCEEDED else self.type.name,
                "param": None,
                "code": self.code,
                **({"alternatives": instead} if instead else {}),
            },
        }

    @property
    def body(self) -> bytes:
        """The body, in bytes."""
        return json.dumps(self.document, ensure_ascii=False).encode("utf-8", "backslashreplace")


_EXCEEDED = ("ceiling_reached", "limit_reached", "reserved")


def problem(name: str, detail: str, *, retry_after_s: float | None = None, **members: Any) -> Problem:
    """A problem that is no budget's: of the request, the service or the provider.

    Args:
        name: The name of its type, which is its code as well.
        detail: What is wrong, and what to do, for people.
        retry_after_s: Seconds after which to try again.
        **members: What the document says besides.

    Raises:
        KeyError: If there is no such type.
    """
    kind = PROBLEM_TYPES[name]
    return Problem(kind, kind.status, name, detail, retry_after_s, members)


def problem_of(
    error: BudgetError,
    *,
    decision: Decision | None = None,
    run_id: str | None = None,
    exceeded_status: int = 402,
    alternatives: Iterable[Alternative] = (),
) -> Problem:
    """The problem that *error* is to whom it stops.

    Args:
        error: Why a call, or a run, is refused.
        decision: The decision that refuses it, where there is one.
        run_id: The run.
        exceeded_status: The status where a limit is reached, for clients that take another one than 402.
        alternatives: Models that could take the call, as `Session.alternatives` finds them.
    """
    name, code, detail, retry_after_s = _told(error)
    kind = PROBLEM_TYPES[name]
    decision_id = error.decision_id if decision is None else decision.id
    members: dict[str, Any] = {}
    if decision_id is not None:
        members["instance"] = f"/budget/decisions/{decision_id}"
        members["decision_id"] = decision_id
    members["kind"] = "model" if decision is None else decision.kind
    members["budget"] = _budget_of(error, decision, run_id)
    members["alternatives"] = [_document_of(each) for each in alternatives]
    if isinstance(error, BudgetExceeded):
        members["waiting_helps"] = bool(error.waiting_helps)
    if isinstance(error, UnknownPriceError):
        members["missing"] = error.missing
        members["suggestions"] = list(error.suggestions) if len(error.model) <= _LONGEST_NAME else []
    if error.resets_at is not None:
        members["resets_at"] = error.resets_at.isoformat()
    status = exceeded_status if kind.status == 402 else kind.status
    soon = not (isinstance(error, BudgetExceeded) and error.dimension == "max_runs")
    return Problem(kind, status, code, detail, retry_after_s, members, soon)


def _document_of(alternative: Alternative) -> dict[str, Any]:
    return {
        "model": printable(alternative.model),
        "estimate_usd": usd(alternative.estimate_usd),
        "fits_budget": alternative.fits_budget,
        "supports_tools": alternative.supports_tools,
        "supports_json_schema": alternative.supports_json_schema,
        "context_window_tokens": alternative.context_window_tokens,
    }


def _told(error: BudgetError) -> tuple[str, str, str, float | None]:
    """The type, the code and the words for *error*, and after how many seconds to try again."""
    scope = scope_kind(error)
    if isinstance(error, BudgetExceeded):
        return _told_exceeded(error, scope)
    if isinstance(error, BudgetRevoked):
        return "revoked", "revoked", f"The {scope} was cut off: {error.reason}", None
    if isinstance(error, ForeignRun):
        return (
            *("foreign_run", "foreign_run"),
            "This run id belongs to another principal. Use one of your own, or none, and one is made up for you.",
            None,
        )
    if isinstance(error, LoopDetected):
        words = f"The tool '{printable(error.tool)}' was called {error.repeats} times with the same results."
        return "loop_detected", "loop_detected", words, None
    if isinstance(error, UnknownPriceError):
        what = "" if error.missing == "model" else f"{printable(error.missing)} of "
        words = f"No price is known for {what}the model '{printable(error.model)}', so the call is refused."
        return "unknown_price", "unknown_price", words, None
    if isinstance(error, UnboundedCallError):
        words = f"Nothing bounds what this call costs: {printable(error.reason)}. {printable(error.remedy)}"
        return "unbounded_call", "unbounded_call", words, None
    if isinstance(error, InvalidDowngradeError):
        return "invalid_downgrade", "invalid_downgrade", printable(error.reason), None
    if isinstance(error, LedgerUnavailable):
        words = "The budget cannot be checked at the moment, so the call is not made. Try again."
        return "ledger_unavailable", "ledger_unavailable", words, error.retry_after_s or 1.0
    if isinstance(error, ReservationConflict):
        return "conflict", "conflict", "The same id was used with other parameters before. Nothing was changed.", None
    if isinstance(error, ReservationError):
        return "unknown_reservation", "unknown_reservation", "There is no such reservation.", None
    return "internal", "internal", "The budget could not be checked.", None


def _told_exceeded(error: BudgetExceeded, scope: str | None) -> tuple[str, str, str, float | None]:
    if error.dimension == "max_live_runs":
        return "too_many_runs", "too_many_runs", f"The {scope} has as many runs open as are allowed.", 1.0
    if error.dimension == "max_runs":
        words = f"The {scope} has begun as many runs as are allowed. Go on with one of them, by its run id."
        return "too_many_runs", "too_many_runs", f"{words}{_anew(error)}", error.retry_after_s
    if error.dimension == "call_max_output_tokens":
        words = f"A call may set an output cap of at most {error.limit} tokens, and this one sets {error.estimate}."
        return "output_cap_too_high", "output_cap_too_high", words, None
    unit = _UNITS.get(error.dimension, f" ({error.dimension})")
    whose = f"The {scope}'s limit of {_words(error.limit)}{unit}" if is_within_run(error) else f"The {scope}'s limit"
    left = _words(_left(error))
    asked = "" if error.estimate is None else f", and this call may take up to {_words(error.estimate)}"
    detail = f"{whose} has {left}{'' if is_within_run(error) else unit} left{asked}."
    if error.waiting_helps:
        return "reserved", f"{scope}_reserved", f"{detail} Other calls in flight hold a part of it: try again.", 1.0
    detail += _anew(error)
    if error.dimension == "max_cost_usd":
        return "ceiling_reached", f"{scope}_ceiling_reached", detail, error.retry_after_s
    return "limit_reached", f"{scope}_{error.dimension}_reached", detail, error.retry_after_s


def _anew(error: BudgetExceeded) -> str:
    return "" if error.resets_at is None else f" It begins anew at {error.resets_at:%Y-%m-%d %H:%M} UTC."


def _left(error: BudgetExceeded) -> Decimal | float:
    """What is left of the limit, never less than nothing."""
    left = _minus(error.limit, error.actual)
    return left if left > 0 else _minus(left, left)  # nothing, in the unit of the limit


def _words(amount: Decimal | float) -> str:
    if isinstance(amount, Decimal):
        return format_usd(cost_nano(amount))
    return f"{amount:,.3f}".rstrip("0").rstrip(".")


def _budget_of(error: BudgetError, decision: Decision | None, run_id: str | None) -> dict[str, Any]:
    """The state of the budget that is in the way, as far as it is the caller's to know."""
    told: dict[str, Any] = {}
    scope = scope_kind(error)
    if scope is not None:
        told["scope"] = scope
    if run_id is not None:
        told["run_id"] = run_id
    if isinstance(error, BudgetExceeded):
        told |= _amounts_of(error)
    if decision is not None:
        if "estimate_usd" not in told and decision.held.cost:
            told["estimate_usd"] = usd(decision.estimate.cost_usd)
        told["effective_max_output_tokens"] = decision.output_cap
        if isinstance(decision.call, ModelCall):
            told["client_requested_max_output_tokens"] = decision.call.max_output_tokens
        told["price_table_version"] = decision.prices
    return told


def _amounts_of(error: BudgetExceeded) -> dict[str, Any]:
    """The limit, and what stands against it, all of one moment. Of a scope that others share, what is left alone."""
    unit = "_usd" if isinstance(error.limit, Decimal) else ""
    told: dict[str, Any] = {"dimension": error.dimension}
    if error.dimension == "call_max_output_tokens":  # of one call, so that nothing is spent of it
        return told | {"limit": error.limit}
    if is_within_run(error):
        told[f"limit{unit}"] = quantity(error.limit)
        if error.reserved is not None:
            told[f"committed{unit}"] = quantity(_minus(error.actual, error.reserved))
            told[f"reserved{unit}"] = quantity(error.reserved)
        told[f"remaining{unit}"] = quantity(_minus(error.limit, error.actual))
    else:
        told[f"remaining{unit}"] = quantity(_left(error))
    if error.estimate is not None:
        told[f"estimate{unit}"] = quantity(error.estimate)
    return told


def _minus(amount: Decimal | float, other: Decimal | float) -> Decimal | float:
    if isinstance(amount, Decimal) and isinstance(other, Decimal):
        return amount - other
    if isinstance(amount, Decimal) or isinstance(other, Decimal):
        raise TypeError(f"{amount!r} and {other!r} are not of one unit")
    return round(amount - other, 9) if isinstance(amount, float) or isinstance(other, float) else amount - other
