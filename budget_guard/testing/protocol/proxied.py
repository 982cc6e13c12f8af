"""Checks of calls that are passed on to a model provider."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from decimal import Decimal
from typing import Any

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.testing.protocol.asking import Nonconformity, Said, ask, at_once
from budget_guard.testing.protocol.forms import (
    check_headers,
    check_money,
    check_no_names,
    check_problem,
    check_record,
    check_sums,
)
from budget_guard.testing.protocol.suite import CALL, CAP, FITS, RUN, Suite, call_body, check

_PATIENCE_S, _PAUSE_S = 2.0, 0.02
"""For how long, and after which pause again, a record is looked for."""
_BIG = 999
"""An output cap that no run of the suite can pay for."""


@check("proxy")
def a_call_that_fits_is_passed_on_with_what_was_decided(suite: Suite) -> None:
    """An admitted call is answered by the provider, and carries the decision's headers."""
    run = suite.new_run()
    said = suite.call(run).expect_status(200)
    check_headers(said, run=run, held=True)
    said.expect(said.usd("X-Budget-Remaining-USD") == RUN - CALL, f"{RUN - CALL} left")


@check("proxy")
def a_run_is_made_up_where_none_is_named(suite: Suite) -> None:
    """Without X-Run-Id a run of its own is made up, and named in the answer."""
    first, second = suite.call(None).expect_status(200), suite.call(None).expect_status(200)
    check_headers(first, run=None, held=True)
    check_headers(second, run=None, held=True)
    second.expect(first.header("X-Run-Id") != second.header("X-Run-Id"), "another run each time")


@check("proxy")
def a_stream_carries_the_headers_too(suite: Suite) -> None:
    """A streamed answer carries the decision's headers, and is whole."""
    run = suite.new_run()
    said = suite.call(run, stream=True).expect_status(200)
    check_headers(said, run=run, held=True)
    said.expect((said.header("content-type") or "").startswith("text/event-stream"), "an event stream")
    said.expect(said.body.rstrip().endswith(b"data: [DONE]"), "the provider's [DONE] at the end")


@check("proxy")
def the_usage_of_a_stream_is_shown_to_who_asks_for_it_alone(suite: Suite) -> None:
    """A chunk with usage that the service has asked for is hidden; one that the caller has asked for is not."""
    unasked = suite.call(suite.new_run(), stream=True).expect_status(200)
    unasked.expect(not _usages(unasked), "no chunk with usage, for it was not asked for")
    asked = suite.call(suite.new_run(), stream=True, stream_options={"include_usage": True}).expect_status(200)
    asked.expect(len(_usages(asked)) == 1, "one chunk with usage, for it was asked for")
    for said in (unasked, asked) if "records" in suite.target.profiles else ():  # it is booked either way
        said.expect(_cost_of(suite, said) == CALL, f"{CALL} booked for it")


@check("proxy")
def answers_are_untouched(suite: Suite) -> None:
    """The body of an answer is what the provider has sent, JSON or stream."""
    for stream in (False, True):
        body = call_body(stream=stream, stream_options={"include_usage": True} if stream else None)
        direct = ask(suite.provider.root_url, "POST", "/v1/chat/completions", body, {"authorization": "Bearer direct"})
        ours = suite.ask("POST", "/v1/chat/completions", body, x_run_id=suite.new_run()).expect_status(200)
        ours.expect(_same(ours) == _same(direct), f"what the provider says: {direct.body[:300]!r}")


@check("proxy")
def an_error_of_the_provider_is_passed_on_and_a_refusal_is_not_booked(suite: Suite) -> None:
    """A refusal of the provider's passes as it is, with the decision's headers, and gives the hold back."""
    run = suite.new_run()
    said = suite.call(run, "status 429").expect_status(429)
    said.expect(b"not now" in said.body, "the provider's own body")
    check_headers(said, run=run)
    after = suite.call(run).expect_status(200)
    after.expect(after.usd("X-Budget-Remaining-USD") == RUN - CALL, f"{RUN - CALL} left: the refused call cost nothing")


@check("proxy")
def a_call_that_does_not_fit_is_refused_and_not_sent(suite: Suite) -> None:
    """A call that may cost more than is left is answered with a problem, and the provider never sees it."""
    run, before = suite.new_run(), len(suite.provider.calls)
    said = suite.call(run, max_tokens=_BIG)
    check_problem(said, suite.target.exceeded_status, "run_ceiling_reached")
    check_headers(said, run=run, refused=True)
    check_sums(said)
    told = said.document["budget"]
    said.expect(told.get("scope") == "run" and told.get("run_id") == run, f"the scope run, and the run_id {run}")
    said.expect(told.get("client_requested_max_output_tokens") == _BIG, "the output cap that was asked for")
    said.expect(len(suite.provider.calls) == before, "no call at the provider")


@check("proxy")
def a_refusal_names_models_that_pass(suite: Suite) -> None:
    """Alternatives are a list, none of them dearer than what is refused, and one that fits passes if asked for next."""
    run = suite.new_run()
    said = suite.call(run, max_tokens=CAP * FITS + CAP)
    document = check_problem(said, suite.target.exceeded_status, "run_ceiling_reached")
    alternatives: Any = document.get("alternatives")
    said.expect(isinstance(alternatives, list), "alternatives, a list even where there is none")
    for each in alternatives:
        dearest = Decimal(document["budget"]["estimate_usd"])
        said.expect(Decimal(each["estimate_usd"]) <= dearest, "no alternative that is dearer")
        if each["fits_budget"]:
            suite.call(run, model=each["model"], max_tokens=CAP * FITS + CAP).expect_status(200)


@check("proxy")
def what_waiting_helps_says_so(suite: Suite) -> None:
    """Where only other calls' holds are in the way, the refusal says to try again."""
    run, provider = suite.new_run(), suite.provider
    provider.reset()
    refused: list[Said] = []

    def once(n: int) -> None:
        if n < FITS:
            suite.call(run)
            return
        try:
            provider.wait_for_calls(FITS)
            refused.append(suite.call(run))
        finally:
            provider.resume()

    provider.pause()
    try:
        at_once(FITS + 1, once)
    except TimeoutError:
        words = f"{FITS} calls at once, all of them passed on"
        raise Nonconformity(asked=words, expected=words, came=f"{len(provider.calls)} calls at the provider") from None
    finally:
        provider.resume()
    check_problem(refused[0], suite.target.exceeded_status, "run_reserved", retry=True)
    check_sums(refused[0])
    refused[0].expect(refused[0].document.get("waiting_helps") is True, "waiting_helps")


@check("proxy")
def a_hundred_at_once_do_not_overspend(suite: Suite) -> None:
    """Of a hundred calls at once all that fit are admitted, and the provider's bill stays within the run's limit."""
    _no_overspend(suite, stream=False)


@check("proxy")
def a_hundred_streams_at_once_do_not_overspend(suite: Suite) -> None:
    """The same of streams."""
    _no_overspend(suite, stream=True)


def _no_overspend(suite: Suite, *, stream: bool) -> None:
    run, provider = suite.new_run(), suite.provider
    provider.wait_until_idle()
    before = provider.bill_usd
    said = at_once(100, lambda _: suite.call(run, stream=stream))
    admitted = [each for each in said if each.status == 200]
    refused = [each for each in said if each.status != 200]
    for each in refused:
        # by what is spent or held at that moment
        status = suite.target.exceeded_status
        each.expect_status(status)
        retry = each.document.get("code") == "run_reserved"
        check_problem(each, status, ("run_reserved", "run_ceiling_reached"), retry=retry)
        check_sums(each)
    for each in admitted:
        check_headers(each, run=run, held=True)
    provider.wait_until_idle()
    spent = provider.bill_usd - before
    last = said[-1]
    last.expect(spent <= RUN, f"a bill of at most {RUN} for a hundred at once, and not {spent}")
    last.expect(len(admitted) == FITS, f"{FITS} of a hundred admitted, and not {len(admitted)}")


@check("proxy", needs=["tight_key"])
def what_is_left_is_that_of_the_tightest_scope(suite: Suite) -> None:
    """X-Budget-Remaining-USD is of the tightest of all scopes, and of one that others share nothing else is told."""
    key = suite.target.tight_key or ""
    run = suite.new_run()
    said = suite.call(run, key=key)
    while said.status == 200:  # until its ceiling is reached, which is below that of a run
        said.expect(said.usd("X-Budget-Remaining-USD") < CALL, "less than one more call left, by the ceiling")
        run = suite.new_run()
        said = suite.call(run, key=key)
    document = check_problem(
        said, suite.target.exceeded_status, [f"{kind}_ceiling_reached" for kind in ("user", "key", "team")]
    )
    check_headers(said, run=run, refused=True)
    told = document["budget"]
    hidden = [name for name in ("limit_usd", "committed_usd", "reserved_usd") if name in told]
    said.expect(not hidden, "neither limit nor spend of a scope that others share")
    said.expect(said.usd("X-Budget-Remaining-USD") == Decimal(told["remaining_usd"]), "remaining_usd as in the header")
    check_no_names(said, suite.target)


@check("proxy", "records")
def a_decision_is_looked_up_by_its_principal_alone(suite: Suite) -> None:
    """A decision can be looked up, a block too, by whom it belongs to; to others it is as if it were not there."""
    run = suite.new_run()
    admitted, refused = suite.call(run), suite.call(run, max_tokens=_BIG)
    for said, decision in ((admitted, "allow"), (refused, "block")):
        id = said.header("X-Budget-Decision-Id") or ""
        found = _found(suite, id)
        record = check_record(found)
        found.expect((record["decision_id"], record["decision"]) == (id, decision), f"the decision {id}, {decision}")
        found.expect(record["run_id"] == run, f"the run {run}")
        other, unknown = suite.record(id, key=suite.target.other_key), suite.record("01a228e4ba66-ddcf2e1b497f-1")
        check_problem(other, 404, "not_found")
        other.expect(other.document == unknown.document, "the same as for a decision that there never was")
    admitted.expect(_cost_of(suite, admitted) == CALL, f"a record that says that {CALL} was booked")


@check("proxy")
def a_run_is_its_principals(suite: Suite) -> None:
    """A run id of another principal is refused, and tells nothing of whom it belongs to."""
    run = suite.new_run()
    suite.call(run).expect_status(200)
    said = suite.call(run, key=suite.target.other_key)
    check_problem(said, 403, "foreign_run")
    check_no_names(said, suite.target)
    after = suite.call(run).expect_status(200)
    after.expect(after.usd("X-Budget-Remaining-USD") == RUN - 2 * CALL, "nothing booked for the refused call")


@check("proxy")
def who_sends_no_key_is_refused(suite: Suite) -> None:
    """A request without a key is a 401, and a run id that is no name a 400."""
    check_problem(suite.ask("POST", "/v1/chat/completions", call_body(), key=None), 401, "unauthorized")
    check_problem(suite.call("../../x"), 400, "invalid_run_id")


@check("proxy")
def a_price_that_is_not_known_is_refused(suite: Suite) -> None:
    """A model without a price is a 422, and never free."""
    before = len(suite.provider.calls)
    said = suite.call(suite.new_run(), model="nobody-knows-its-price")
    check_problem(said, 422, "unknown_price")
    said.expect(len(suite.provider.calls) == before, "no call at the provider")


@check("proxy")
def what_is_not_held_is_not_passed_on(suite: Suite) -> None:
    """An endpoint that is not held to a budget is refused: it would be a hole in all of them."""
    before = len(suite.provider.calls)
    said = suite.ask("POST", "/v1/images/generations", {"model": "dime", "prompt": "hi"}, x_run_id=suite.new_run())
    said.expect(said.status in (404, 501), "404 or 501")
    check_problem(said, said.status, ("not_metered", "not_found"))
    said.expect(len(suite.provider.calls) == before, "no call at the provider")


@check("proxy")
def each_attempt_is_held_by_itself(suite: Suite) -> None:
    """An Idempotency-Key of a call that is passed on is the provider's: two attempts are two holds."""
    run, before = suite.new_run(), len(suite.provider.calls)
    first, second = (suite.call(run, headers={"idempotency_key": f"key-{run}"}).expect_status(200) for _ in range(2))
    ids = [each.header("X-Budget-Decision-Id") for each in (first, second)]
    second.expect(ids[0] != ids[1], "another decision for the second attempt")
    second.expect(second.usd("X-Budget-Remaining-USD") == RUN - 2 * CALL, f"{RUN - 2 * CALL} left after two attempts")
    sent = [call.headers.get("idempotency-key") for call in suite.provider.calls[before:]]
    second.expect(sent == [f"key-{run}"] * 2, "both attempts sent to the provider, with the caller's key")


@check("proxy")
def what_is_the_services_is_not_sent_on(suite: Suite) -> None:
    """The provider sees neither the run nor the budget's headers."""
    before = len(suite.provider.calls)
    said = suite.call(suite.new_run(), headers={"x_budget_note": "mine"}).expect_status(200)
    names = {name.lower() for call in suite.provider.calls[before:] for name in call.headers}
    ours = sorted(name for name in names if name == "x-run-id" or name.startswith("x-budget-"))
    said.expect(not ours, f"no header of ours at the provider, but there is {', '.join(ours)}")


@check("proxy", "records")
def an_output_cap_that_is_set_is_visible(suite: Suite) -> None:
    """A call without a cap is sent with one that the run can pay for, and the headers and the record say so."""
    before = len(suite.provider.calls)
    said = suite.call(suite.new_run(), model="cheap", max_tokens=None)
    said.expect_status(200)
    record = check_record(_found(suite, said.header("X-Budget-Decision-Id") or ""))
    sent = suite.provider.calls[before].max_output_tokens
    said.expect(sent == record["effective_max_output_tokens"], f"the cap {sent}, which was sent, in the record")
    clamped = said.header("X-Budget-Output-Clamped") == "true"
    said.expect(clamped == record["output_clamped"], "X-Budget-Output-Clamped, as the record says")
    said.expect(Decimal(record["estimate"]["cost_usd"]) <= RUN, "an estimate that the run can pay for")
    check_money(said)


def _found(suite: Suite, id: str, state: str | None = None) -> Said:
    """The record of a decision, once it is there, and in that state: a service may write it a moment later."""
    ends = SYSTEM_CLOCK.monotonic() + _PATIENCE_S
    found = suite.record(id)
    while found.status != 200 or state not in (None, found.document.get("state")):
        if SYSTEM_CLOCK.monotonic() >= ends:
            break
        threading.Event().wait(_PAUSE_S)
        found = suite.record(id)
    return found


def _cost_of(suite: Suite, said: Said) -> Decimal | None:
    """What is booked for a call, once it is."""
    found = _found(suite, said.header("X-Budget-Decision-Id") or "", "committed")
    cost = found.document.get("cost_usd")
    return None if cost is None else Decimal(cost)


def _events(said: Said) -> list[Any]:
    """The events of a stream."""
    events: list[Any] = []
    for line in said.body.split(b"\n"):
        if line.startswith(b"data:"):
            with suppress(ValueError):
                events.append(json.loads(line[5:]))
    return events


def _usages(said: Said) -> list[Any]:
    return [each for each in _events(said) if each.get("usage")]


def _same(said: Said) -> list[Any]:
    """An answer without what differs each time."""
    documents = _events(said) if said.body.startswith(b"data:") else [said.document]
    return [{name: value for name, value in each.items() if name not in ("id", "created")} for each in documents]
