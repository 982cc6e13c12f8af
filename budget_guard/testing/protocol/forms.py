"""The forms of what a service says: headers, problems, records and amounts of money."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, cast

from budget_guard.protocol import PROBLEM_JSON, decision_schema, problem_schema
from budget_guard.testing.protocol.asking import Said
from budget_guard.testing.protocol.schema import wrong_with
from budget_guard.testing.protocol.suite import Target

_MONEY = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]{1,9})?")
_ACTIONS = ("allow", "downgrade", "advisory_warn", "block")
_MODES = ("advisory_estimate", "soft_gate", "hard_gate", "actuals_only")
_KINDS = ("run", "user", "key", "team", "agent", "feature", "org")


def check_headers(said: Said, *, run: str | None, refused: bool = False, held: bool = False) -> None:
    """Check the headers of an answer about a call that was decided on.

    Args:
        said: The answer.
        run: The run that was named; None where none was.
        refused: Whether the call must be refused.
        held: Whether something must be held for it.
    """
    action = said.header("X-Budget-Decision")
    allowed = ("block",) if refused else _ACTIONS[:3]
    said.expect(action in allowed, f"X-Budget-Decision: {' or '.join(allowed)}")
    id = said.header("X-Budget-Decision-Id")
    said.expect(id, "X-Budget-Decision-Id, which names the decision")
    reservation = said.header("X-Budget-Reservation-Id")
    if held:
        said.expect(reservation, "X-Budget-Reservation-Id, for something is held")
    if refused:
        said.expect(reservation is None, "no X-Budget-Reservation-Id, for nothing is held")
        said.expect(said.header("X-Budget-Blocking-Scope") in _KINDS, "X-Budget-Blocking-Scope: a kind, and no name")
    else:
        said.expect(
            said.header("X-Budget-Blocking-Scope") is None, "no X-Budget-Blocking-Scope, for nothing is in the way"
        )
    said.expect(said.header("X-Budget-Enforcement-Mode") in _MODES, f"X-Budget-Enforcement-Mode: one of {_MODES}")
    said.expect(
        said.header("X-Budget-Remaining-USD") is not None, "X-Budget-Remaining-USD, for the run has a dollar limit"
    )
    said.expect(said.header("X-Budget-Price-Table-Version"), "X-Budget-Price-Table-Version")
    told = said.header("X-Run-Id")
    said.expect(told and run in (None, told), f"X-Run-Id: {run or 'a name for the run'}")
    check_money(said)


def check_money(said: Said) -> None:
    """Check that every amount is a decimal text of at most nine places, in the headers and in the body."""
    for name, value in said.headers:
        if name.lower().startswith("x-budget-") and name.lower().endswith("-usd"):
            said.expect(
                _MONEY.fullmatch(value), f"{name} as a decimal text of at most nine places, without an exponent"
            )
    kind = said.header("content-type") or ""
    if "json" in kind:
        for name, value in _amounts(said.document):
            said.expect(
                isinstance(value, str) and _MONEY.fullmatch(value),
                f"{name} as a decimal text of at most nine places, without an exponent",
            )


def _amounts(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for each, value in cast("dict[str, Any]", document).items():
            yield from _amounts(value, each)
    elif isinstance(document, list):
        for value in cast("list[object]", document):
            yield from _amounts(value, name)
    elif name.endswith("_usd") and document is not None:
        yield name, document


def check_problem(said: Said, status: int, code: str | Sequence[str], *, retry: bool = False) -> dict[str, Any]:
    """Check that an answer is a problem, as RFC 9457, the protocol's schema and the SDKs want it; return it.

    Args:
        said: The answer.
        status: Its status.
        code: Its code, or what it may be.
        retry: Whether the same request may be answered otherwise.
    """
    said.expect_status(status)
    said.expect(said.header("content-type") == PROBLEM_JSON, f"Content-Type: {PROBLEM_JSON}")
    document: dict[str, Any] = said.document
    wrong = wrong_with(document, problem_schema())
    said.expect(not wrong, f"a document of the problem's schema, but {'; '.join(wrong[:3])}")
    codes = (code,) if isinstance(code, str) else code
    said.expect(document["code"] in codes, f"code {' or '.join(codes)}")
    said.expect(document["status"] == status, f"status {status} in the document as well")
    said.expect(re.match(r"[a-z][a-z0-9+.-]*:", document["type"]), "a type that is a URI")
    error = document["error"]
    said.expect(
        error.get("code") == document["code"] and error.get("message") == document["detail"],
        "an error member with the same code and words, which the SDKs of model providers read",
    )
    id = said.header("X-Budget-Decision-Id")
    if id is not None and "decision_id" in document:
        said.expect(document["decision_id"] == id, "the decision_id of the header")
        said.expect(document.get("instance") == f"/budget/decisions/{id}", "the decision's address as the instance")
    if retry:
        said.expect(said.header("x-should-retry") != "false", "no x-should-retry: false, for it helps to try again")
        after = said.header("retry-after")
        said.expect(after is not None and after.isdigit() and int(after) > 0, "Retry-After, in whole seconds")
    else:
        said.expect(said.header("x-should-retry") == "false", "x-should-retry: false, else SDKs send it again")
    check_no_payment(said)
    return document


def check_no_payment(said: Said) -> None:
    """Check that no client of x402 takes a refusal for a bill."""
    said.expect(
        all("payment" not in name.lower() for name, _ in said.headers), "no header that asks an x402 client to pay"
    )
    document = said.document
    said.expect("x402Version" not in document and "accepts" not in document, "no members of x402")


def check_sums(said: Said) -> None:
    """Check that a refusal's amounts are all of one moment."""
    told = said.document.get("budget", {})
    names = ("limit_usd", "committed_usd", "reserved_usd", "remaining_usd")
    said.expect(all(name in told for name in names), f"{', '.join(names)} of the caller's own run")
    limit, committed, reserved, remaining = (Decimal(told[name]) for name in names)
    said.expect(limit == committed + reserved + remaining, "limit_usd = committed_usd + reserved_usd + remaining_usd")
    said.expect(remaining < Decimal(told["estimate_usd"]), "an estimate_usd that is more than remaining_usd")


def check_record(said: Said) -> dict[str, Any]:
    """Check that an answer is the record of a decision; return it."""
    said.expect_status(200)
    record: dict[str, Any] = said.document
    wrong = wrong_with(record, decision_schema())
    said.expect(not wrong, f"a document of the decision's schema, but {'; '.join(wrong[:3])}")
    check_money(said)
    return record


def check_no_names(said: Said, target: Target) -> None:
    """Check that an answer names no principal."""
    text = said.body.decode("utf-8", "replace") + "".join(f"\n{name}: {value}" for name, value in said.headers)
    for secret in (target.key, target.other_key, target.tight_key, *target.secrets):
        said.expect(secret is None or secret not in text, f"nothing of {secret!r}")
