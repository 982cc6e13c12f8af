"""Checks of decisions for callers who send by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from budget_guard.testing.protocol.asking import Said, at_once
from budget_guard.testing.protocol.forms import (
    check_headers,
    check_money,
    check_no_names,
    check_problem,
    check_record,
    check_sums,
)
from budget_guard.testing.protocol.suite import CALL, CAP, FITS, RUN, Suite, check

_USED = {"usage": {"input": 5, "output": CAP}}
_HALF = {"usage": {"input": 5, "output": CAP // 2}}


def _id(said: Said) -> str:
    id = said.header("X-Budget-Reservation-Id")
    said.expect(id, "X-Budget-Reservation-Id")
    return id or ""


def _left(suite: Suite, run: str) -> Decimal:
    """What is left in a run."""
    return suite.decide(run, dry_run=True).expect_status(200).usd("X-Budget-Remaining-USD")


@check("service")
def a_decision_is_made_forwarded_and_committed(suite: Suite) -> None:
    """A decision holds the worst case; its commit books what the call took and gives the rest back."""
    run = suite.new_run()
    said = suite.decide(run)
    record = check_record(said)
    check_headers(said, run=run, held=True)
    id = _id(said)
    said.expect((record["decision_id"], record["state"]) == (id, "reserved"), f"the decision {id}, reserved")
    said.expect(Decimal(record["estimate"]["cost_usd"]) == CALL, f"an estimate of {CALL}")
    suite.settle(id, "forward").expect_status(200)
    done = suite.settle(id, "commit", _HALF).expect_status(200)
    done.expect(Decimal(done.document["cost_usd"]) == CALL / 2, f"{CALL / 2} booked")
    check_money(done)
    found = check_record(suite.record(id))
    done.expect((found["state"], Decimal(found["cost_usd"])) == ("committed", CALL / 2), "the same in the record")
    done.expect(_left(suite, run) == RUN - CALL / 2, f"{RUN - CALL / 2} left")


@check("service")
def settling_is_idempotent(suite: Suite) -> None:
    """Commit twice is one commit, other amounts are a conflict, and a release after a commit has no effect."""
    run = suite.new_run()
    id = _id(suite.decide(run))
    first, again = (suite.settle(id, "commit", _USED).expect_status(200) for _ in range(2))
    again.expect(first.document == again.document, "the same answer the second time")
    check_problem(suite.settle(id, "commit", _HALF), 409, "conflict")
    suite.settle(id, "release").expect_status(200)
    again.expect(_left(suite, run) == RUN - CALL, f"{RUN - CALL} left: it is booked once")


@check("service")
def a_release_gives_back_and_a_late_commit_is_charged(suite: Suite) -> None:
    """A release gives the hold back, once; a commit that comes after it is charged all the same."""
    run = suite.new_run()
    id = _id(suite.decide(run))
    suite.settle(id, "release").expect_status(200)
    said = suite.settle(id, "release").expect_status(200)
    said.expect(_left(suite, run) == RUN, "all of it left")
    late = suite.settle(id, "commit", _USED).expect_status(200)
    late.expect(_left(suite, run) == RUN - CALL, f"{RUN - CALL} left: what was spent is charged")


@check("service")
def the_same_key_gets_the_same_decision(suite: Suite) -> None:
    """A hundred requests at once with one Idempotency-Key get one decision, held once; another body is a conflict."""
    run = suite.new_run()
    headers = {"idempotency_key": f"key-{run}"}
    urls = [suite.target.url, suite.target.second_url or suite.target.url]
    said = at_once(100, lambda n: suite.decide(run, url=urls[n % 2], headers=headers).expect_status(200))
    ids = {each.document["decision_id"] for each in said}
    said[-1].expect(len(ids) == 1, f"one decision for one key, and not {len(ids)}")
    said[-1].expect(_left(suite, run) == RUN - CALL, f"{RUN - CALL} left: it is held once")
    other = suite.decide(run, headers=headers, max_output_tokens=CAP - 1)
    check_problem(other, 409, "conflict")
    other.expect(_left(suite, run) == RUN - CALL, "nothing held for the conflict")
    theirs = suite.decide(suite.new_run(), key=suite.target.other_key, headers=headers).expect_status(200)
    theirs.expect(theirs.document["decision_id"] not in ids, "another decision for another principal")
    suite.settle(ids.pop(), "commit", _USED).expect_status(200)
    late = check_record(suite.decide(run, headers=headers))
    other.expect(late["state"] == "committed", "the same decision after it was committed, with what became of it")


@check("service", needs=["second_url"])
def any_process_settles_what_another_has_held(suite: Suite) -> None:
    """A reservation can be settled, and looked up, in another process of the service."""
    run = suite.new_run()
    id = _id(suite.decide(run))
    second = suite.target.second_url
    done = suite.settle(id, "commit", _USED, url=second).expect_status(200)
    again = suite.settle(id, "commit", _USED).expect_status(200)
    again.expect(done.document == again.document, "the same answer in both processes")
    again.expect(_left(suite, run) == RUN - CALL, f"{RUN - CALL} left")
    check_record(suite.ask("GET", f"/budget/decisions/{id}", url=second))


@check("service")
def a_refusal_is_a_problem_or_a_record_as_is_preferred(suite: Suite) -> None:
    """A refusal is a problem; with Prefer: decision it is its record, and 200. Either can be looked up."""
    run = suite.new_run()
    refused = suite.decide(run, max_output_tokens=999)
    check_problem(refused, suite.target.exceeded_status, "run_ceiling_reached")
    check_headers(refused, run=run, refused=True)
    check_sums(refused)
    preferred = suite.decide(run, max_output_tokens=999, headers={"prefer": "decision"})
    record = check_record(preferred)
    preferred.expect(record["decision"] == "block", "a record of a block")
    for said in (refused, preferred):
        found = check_record(suite.record(said.header("X-Budget-Decision-Id") or ""))
        said.expect(found["decision"] == "block", "a record of the block")


@check("service")
def a_hundred_decisions_at_once_hold_what_fits(suite: Suite) -> None:
    """Of a hundred decisions at once exactly those that fit are admitted."""
    run = suite.new_run()
    said = at_once(100, lambda _: suite.decide(run))
    admitted = [each for each in said if each.status == 200]
    said[-1].expect(len(admitted) == FITS, f"{FITS} of a hundred admitted, and not {len(admitted)}")
    for each in said:
        if each.status != 200:
            check_problem(each, suite.target.exceeded_status, "run_reserved", retry=True)
            check_sums(each)


@check("service")
def a_dry_run_holds_nothing(suite: Suite) -> None:
    """A dry run says what would be decided, and holds nothing."""
    run = suite.new_run()
    said = suite.decide(run, dry_run=True).expect_status(200)
    said.expect(said.document.get("decision") == "allow", "the decision that would be made")
    said.expect(said.header("X-Budget-Reservation-Id") is None, "no reservation")
    said.expect(_left(suite, run) == RUN, "all of it left")


@check("service")
def what_is_anothers_is_not_there(suite: Suite) -> None:
    """Another principal's reservation, decision and run are a 404; deciding in its run is a 403."""
    run, other = suite.new_run(), suite.target.other_key
    id = _id(suite.decide(run))
    for verb in ("forward", "commit", "release"):
        said = suite.settle(id, verb, key=other)
        check_problem(said, 404, "unknown_reservation")
        check_no_names(said, suite.target)
    check_problem(suite.record(id, key=other), 404, "not_found")
    check_problem(suite.ask("GET", f"/budget/runs/{run}", key=other), 404, "not_found")
    foreign = suite.decide(run, key=other)
    check_problem(foreign, 403, "foreign_run")
    check_problem(suite.ask("POST", "/budget/decisions", {}, key=None), 401, "unauthorized")
    foreign.expect(_left(suite, run) == RUN - CALL, f"{RUN - CALL} left: it is still held")


@check("service")
def a_tools_call_is_held_by_what_it_costs(suite: Suite) -> None:
    """A tool's call holds what it may cost, and books what it did."""
    run = suite.new_run()
    said = suite.ask("POST", "/budget/decisions", {"run_id": run, "tool": "search", "cost_usd": "0.25"})
    said.expect(check_record(said)["kind"] == "tool", "a record of a tool")
    done = suite.settle(_id(said), "commit", {"cost_usd": "0.2"}).expect_status(200)
    done.expect(_left(suite, run) == RUN - Decimal("0.2"), "0.8 left")


@check("service")
def a_run_has_limits_of_its_own_a_report_and_an_end(suite: Suite) -> None:
    """A run can be opened with limits below the service's, reported on and ended."""
    run = suite.new_run()
    opened = suite.ask("POST", "/budget/runs", {"run_id": run, "budget": {"max_cost_usd": "0.15"}})
    opened.expect(opened.status in (200, 201), "201")
    opened.expect(opened.document.get("run_id") == run, f"the run {run}")
    said = suite.decide(run).expect_status(200)
    check_problem(suite.decide(run), suite.target.exceeded_status, "run_reserved", retry=True)
    suite.settle(_id(said), "commit", _USED).expect_status(200)
    report = suite.ask("GET", f"/budget/runs/{run}").expect_status(200)
    report.expect(Decimal(report.document["total_spent"]) == CALL, f"a report of {CALL}")
    suite.ask("DELETE", f"/budget/runs/{run}").expect_status(200)
    check_problem(suite.decide(run), 403, "revoked")
    more = suite.ask("POST", "/budget/runs", {"budget": {"max_cost_usd": "1000000"}})
    check_problem(more, 400, "invalid_request")


@check("service")
def what_makes_no_sense_is_told_by_name(suite: Suite) -> None:
    """A body with a field that is not known, or a value that makes no sense, is a 400 that names it."""
    run = suite.new_run()
    wrong: Mapping[str, Any] = {"max_output_tokens": -5, "max_outputs": 5, "run_id": "../../x", "model": 5}
    for field, value in wrong.items():
        said = suite.decide(run, **{field: value})
        document = check_problem(said, 400, ("invalid_request", "invalid_run_id"))
        said.expect(field in document["detail"], f"a detail that names {field}")
    check_problem(suite.ask("POST", "/budget/decisions", b"no JSON"), 400, "invalid_request")


@check("service")
def the_service_describes_itself(suite: Suite) -> None:
    """GET /budget/openapi.json is an OpenAPI 3.1 description that has every route."""
    said = suite.ask("GET", "/budget/openapi.json").expect_status(200)
    document = said.document
    said.expect(str(document.get("openapi", "")).startswith("3.1"), "OpenAPI 3.1")
    for path in (
        "/budget/decisions",
        "/budget/decisions/{id}",
        "/budget/reservations/{id}/forward",
        "/budget/reservations/{id}/commit",
        "/budget/reservations/{id}/release",
        "/budget/runs",
        "/budget/runs/{id}",
    ):
        said.expect(path in document.get("paths", {}), f"the path {path}")
