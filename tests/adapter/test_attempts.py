"""One request on the wire is held before it is sent and settled by its answer, once, whatever layers are above it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Allowance,
    Budget,
    BudgetExceeded,
    BudgetRevoked,
    DowngradePolicy,
    Prompt,
    Session,
    ToolCall,
    UnboundedCallError,
    Usage,
)
from budget_guard.adapter import Attempt, Attempts, GuardedCall, begin_counting, counted_by, counting, end_counting
from budget_guard.adapter.attempts import without_foreign
from budget_guard.calls.seen import Seen
from tests.adapter.conftest import Both
from tests.builders import ZERO, call, session

HOST = "api.example.com"
CHAT = "/v1/chat/completions"
DIME = Decimal("0.10")
BODY: dict[str, Any] = {"model": "dime", "messages": [{"role": "user", "content": "Hi"}]}


def begin(
    *sessions: Session, body: Mapping[str, Any] = BODY, headers: Mapping[str, str] = {}, **options: Any
) -> Attempt:
    attempts = Attempts(sessions, **options)
    dialect = attempts.dialect_of("POST", HOST, CHAT)
    assert dialect is not None
    return attempts.begin(dialect, "POST", HOST, CHAT, headers, json.dumps(body).encode())


def answer(*, model: str = "dime", taken: int = 10, made: int = 5) -> bytes:
    usage = {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
    ).encode()


def serve(attempt: Attempt, data: bytes) -> None:
    assert attempt.answered(200, "application/json")
    assert attempt.feed(data) == data
    attempt.end()


def figures(*sessions: Session) -> list[tuple[Decimal, Decimal]]:
    return [(session.spent_usd, session.reserved_usd) for session in sessions]


def test_an_attempt_is_held_and_booked_by_its_answer() -> None:
    run = session()
    attempt = begin(run)
    assert attempt.hold() is None
    assert figures(run) == [(ZERO, DIME)]
    serve(attempt, answer())
    assert figures(run) == [(DIME, ZERO)]
    attempt.end()
    assert run.report().breakdown.llm.calls == 1


async def test_the_same_awaited() -> None:
    run = session()
    attempt = begin(run)
    assert await attempt.ahold() is None
    assert attempt.answered(200, "application/json")
    attempt.feed(answer())
    await attempt.aend()
    assert figures(run) == [(DIME, ZERO)]


def test_what_does_not_fit_is_stopped() -> None:
    stop = begin(session("$0.05")).hold()
    assert stop is not None and isinstance(stop.error, BudgetExceeded)


def test_nothing_in_sight_is_nothing_to_do() -> None:
    assert Attempts().dialect_of("POST", HOST, CHAT) is None
    assert counted_by().calls == ()


def test_the_cap_and_the_cheaper_model_are_put_into_the_body() -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to={"large": "small"}, at=0.1), hold_share=0.001))
    run.charge("tool", "0.20")
    attempt = begin(run, body={**BODY, "model": "large"})
    assert attempt.hold() is None and attempt.changed
    sent = json.loads(attempt.body)
    assert sent["model"] == "small" and 0 < sent["max_tokens"] < 10_000
    assert attempt.added == ("max_tokens",)


def test_what_a_body_says_in_any_language_is_sent_on_as_it_is_and_as_short_as_it_can_be() -> None:
    messages = [{"role": "user", "content": "Grüße, 世界 \ud800"}]
    attempt = begin(session("$0.05"), body={**BODY, "model": "large", "messages": messages})
    assert attempt.hold() is None and attempt.changed
    assert json.loads(attempt.body.decode("utf-8", "surrogatepass"))["messages"] == messages
    assert "Grüße, 世界".encode() in attempt.body and b'": ' not in attempt.body


def test_what_is_not_to_be_added_is_not() -> None:
    run = session("$0.05")  # less than the longest answer of the model costs
    attempt = begin(run, body={**BODY, "model": "large", "stream": True}, add_fields=())
    with pytest.warns(RuntimeWarning, match="Nothing caps the output"):
        assert attempt.hold() is None
    assert not attempt.changed


def test_a_senseless_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="'tools' is not known"):
        Attempts(add_fields=("tools",))  # type: ignore[arg-type]  # a wrong name on purpose
    one: Any = "usage"  # a name by itself is no list of letters
    assert Attempts(add_fields=one).add_fields == {"usage"}
    assert Attempts(add_fields=()).add_fields == set()


@pytest.mark.parametrize(
    ("model", "target", "gone"),
    [
        ("gpt-4o", "gpt-4o-mini", set[str]()),
        ("gpt-5", "gpt-5-mini", set[str]()),
        ("gpt-5", "gpt-4o", {"reasoning_effort"}),
        ("openai/o3", "gpt-5-chat-latest", {"reasoning_effort"}),
        ("gpt-4o", "gpt-5-mini", {"temperature"}),
    ],
)
def test_a_model_of_another_family_is_sent_none_of_what_it_refuses(model: str, target: str, gone: set[str]) -> None:
    text = {"format": {"type": "text"}, "verbosity": "low"}
    body = {"model": target, "temperature": 1, "reasoning_effort": "low", "text": text}
    kept = without_foreign(body, model, target)
    assert body.keys() - kept.keys() == gone
    assert ("verbosity" in kept["text"]) == ("reasoning_effort" not in gone) and kept["text"]["format"] == text[
        "format"
    ]


@pytest.mark.parametrize(
    "config",
    [
        {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {"max_output_tokens": 90_000}},
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 90_000}},
        {"generationConfig": {"maxOutputTokens": 1, "candidateCount": 1, "candidate_count": 8}},
    ],
)
def test_an_output_cap_in_two_spellings_is_bounded_by_no_allowance_for_the_input(config: dict[str, Any]) -> None:
    def asked(run: Session) -> Attempt:
        attempts = Attempts([run])
        path = "/v1beta/models/dime:generateContent"
        dialect = attempts.dialect_of("POST", HOST, path)
        assert dialect is not None
        body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], **config}
        return attempts.begin(dialect, "POST", HOST, path, {}, json.dumps(body).encode())

    run = session(Budget("$1.00", allowance=Allowance(input_tokens=1_000)))
    with pytest.raises(UnboundedCallError, match="in two spellings"):
        asked(run).hold()
    assert figures(run) == [(ZERO, ZERO)]
    assert asked(session(Budget("$1.00", mode="advisory_estimate"))).hold() is None


def test_a_signed_body_is_never_changed() -> None:
    run = session(Budget("$1.00", downgrade="penny"))
    run.charge("tool", "0.85")
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}
    attempt = begin(run, body={**BODY, "max_tokens": 10, "stream": True}, headers=signed)
    assert attempt.hold() is None
    assert not attempt.changed and figures(run)[0][1] == DIME
    with pytest.raises(UnboundedCallError, match="signed"):
        begin(run, headers=signed).hold()


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"{", b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    attempts = Attempts([session()])
    dialect = attempts.dialect_of("POST", HOST, CHAT)
    assert dialect is not None
    with pytest.raises(UnboundedCallError, match="no JSON object"):
        attempts.begin(dialect, "POST", HOST, CHAT, {}, body)


def test_an_answer_in_the_background_is_refused() -> None:
    with pytest.raises(UnboundedCallError, match="background"):
        begin(session(), body={**BODY, "background": True})


def test_the_dearest_of_all_that_may_answer_is_held() -> None:
    run = session()
    attempt = begin(run, body={**BODY, "model": "penny", "models": ["dime", "penny"]})
    assert attempt.hold() is None
    assert figures(run) == [(ZERO, DIME)] and not attempt.changed
    serve(attempt, answer(model="penny"))
    assert run.spent_usd == Decimal("0.01")


# Every way out


def stream(*events: Mapping[str, Any] | str) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n" for event in events
    )


PIECE = {"id": "1", "model": "dime", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
LAST = {
    "id": "1",
    "model": "dime",
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}


def streamed(run: Session) -> Attempt:
    attempt = begin(run, body={**BODY, "stream": True})
    assert attempt.hold() is None and json.loads(attempt.body)["stream_options"] == {"include_usage": True}
    assert attempt.answered(200, "text/event-stream; charset=utf-8")
    return attempt


def test_the_usage_that_the_caller_did_not_ask_for_is_hidden() -> None:
    run = session()
    attempt = streamed(run)
    assert attempt.feed(stream(PIECE)) == stream(PIECE)
    assert attempt.feed(stream(LAST, "[DONE]")) == stream("[DONE]")
    attempt.end()
    assert attempt.answer is not None and attempt.answer.usage == Usage(input=9, output=1)
    assert figures(run) == [(DIME, ZERO)]


def test_a_stream_given_up_is_booked_as_held() -> None:
    run = session()
    attempt = streamed(run)
    attempt.feed(stream(PIECE))
    attempt.end(complete=False)
    assert figures(run) == [(DIME, ZERO)] and attempt.answer is not None and attempt.answer.usage is None


WORDS = [{**PIECE, "choices": [{"index": 0, "delta": {"content": "word " * 40}}]}] * 3


@pytest.mark.parametrize("on_cancel", ["bound", "seen"])
@pytest.mark.parametrize(
    ("end", "given_up"),
    [
        (Attempt.give_up, True),
        (lambda attempt: asyncio.run(attempt.agive_up()), True),
        (lambda attempt: attempt.fail(GeneratorExit()), True),
        (lambda attempt: asyncio.run(attempt.afail(asyncio.CancelledError())), True),
        (lambda attempt: attempt.end(complete=False), False),
        (lambda attempt: attempt.end(), False),
        (lambda attempt: asyncio.run(attempt.aend(complete=False)), False),
        (lambda attempt: attempt.fail(ConnectionResetError()), False),
        (lambda attempt: asyncio.run(attempt.afail(TimeoutError())), False),
    ],
)
def test_what_was_seen_is_booked_where_the_caller_gave_the_answer_up_and_only_then(
    end: Callable[[Attempt], None], given_up: bool, on_cancel: Any
) -> None:
    run = session(on_cancel=on_cancel)
    attempt = begin(run, body={**BODY, "model": "large", "max_tokens": 5_000, "stream": True})
    assert attempt.hold() is None
    held = run.reserved_usd
    assert attempt.answered(200, "text/event-stream")
    attempt.feed(stream(*WORDS))
    end(attempt)
    answered = attempt.answer
    assert (
        answered is not None
        and answered.usage is None
        and (answered.seen is not None) == (given_up and on_cancel == "seen")
    )
    assert run.reserved_usd == 0
    assert Decimal("0.006") < run.spent_usd < held / 5 if answered.seen else run.spent_usd == held
    assert run.report().uncertain == run.spent_usd


def test_a_stream_of_a_revoked_run_must_not_go_on() -> None:
    run = session()
    attempt = streamed(run)
    attempt.feed(stream(PIECE))
    assert attempt.interruption() is None
    run.revoke("compromised")
    assert attempt.interruption() is not None


@pytest.mark.parametrize(
    ("status", "body", "spent"),
    [
        (429, b"{}", ZERO),
        (400, b'{"error": {"message": "no"}}', ZERO),
        (307, b"", ZERO),
        (503, b'{"error": {"message": "overloaded"}}', ZERO),
        (503, b"<html>", DIME),
        (500, b'{"error": {"message": "oops"}}', DIME),
        (408, b"", DIME),
    ],
)
def test_an_answer_that_is_no_success(status: int, body: bytes, spent: Decimal) -> None:
    run = session()
    attempt = begin(run)
    assert attempt.hold() is None and not attempt.answered(status)
    kind = "application/json" if body.startswith(b"{") else "text/html"
    assert attempt.refuse(status, {"content-type": kind}, body) is None
    assert figures(run) == [(spent, ZERO)]


REVOKED = BudgetRevoked(scope="run:r", reason="stolen", at=datetime(2026, 1, 1, tzinfo=timezone.utc))
WAYS_OUT: dict[str, tuple[str, tuple[Any, ...], Decimal]] = {
    "answered": ("end", (), DIME),
    "given up": ("give_up", (), DIME),
    "refused": ("refuse", (429, {}, b"{}"), ZERO),
    "a fault of the server": ("refuse", (500, {}, b"{}"), DIME),
    "not heard": ("fail", (TimeoutError(),), DIME),
    "not connected": ("fail", (ConnectionRefusedError(),), ZERO),
    "another budget": ("fail", (REVOKED,), ZERO),
    "not sent": ("release", ("not sent",), ZERO),
}
"""Verbs, what they are given, and what is booked then."""


@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_settles_it_once_and_the_first_one_counts(perform: Both, way: str) -> None:
    run = session()
    attempt = begin(run)
    assert perform(attempt, "hold") is None
    leave, given, spent = WAYS_OUT[way]
    for out, arguments in ((leave, given), *[(one, other) for one, other, _ in WAYS_OUT.values()]):
        perform(attempt, out, *arguments)
        assert attempt.settled and figures(run) == [(spent, ZERO)]
    assert run.report().breakdown.llm.calls == bool(spent)


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_is_raised_while_it_is_held_is_raised_and_nothing_stays_held(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    outer, inner = session(), session()

    def failing(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(inner, "authorize", failing)
    with counting(above(outer)), pytest.raises(type(error)):
        begin(outer, inner).hold()
    assert figures(outer) == [(ZERO, ZERO)]


def test_a_complaint_about_a_field_of_ours_is_explained() -> None:
    run = session(Budget("$1.00", hold_share=0.001))
    attempt = begin(run, body={**BODY, "model": "large"})
    assert attempt.hold() is None
    told = attempt.refuse(400, {}, b'{"error": {"message": "unknown field max_tokens"}}')
    assert told is not None and "add_fields=('usage',)" in told


@pytest.mark.parametrize(("error", "spent"), [(ConnectionRefusedError(), ZERO), (TimeoutError(), DIME)])
def test_what_is_raised_in_place_of_an_answer(error: Exception, spent: Decimal) -> None:
    run = session()
    attempt = begin(run)
    assert attempt.hold() is None
    attempt.fail(error)
    assert figures(run) == [(spent, ZERO)]


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"error": {}}', b'{"choices": []}'])
def test_an_answer_without_usage_is_booked_as_held(data: bytes) -> None:
    run = session()
    attempt = begin(run)
    assert attempt.hold() is None
    serve(attempt, data)
    assert figures(run) == [(DIME, ZERO)]


# Layers above


def above(*sessions: Session, **options: Any) -> GuardedCall:
    guarded = GuardedCall(sessions)
    assert guarded.hold(call(**options)) is None
    return guarded


def test_the_first_attempt_settles_what_a_layer_above_holds() -> None:
    run = session()
    guarded = above(run, cap=50)
    with counting(guarded):
        attempt = begin(run)
        assert attempt.hold() is None
    assert figures(run) == [(ZERO, DIME)]
    serve(attempt, answer())
    assert guarded.answer is not None and guarded.answer.usage == Usage(input=10, output=5)
    guarded.commit(Usage(input=1_000, output=1_000))
    guarded.fail(TimeoutError())
    guarded.release("nothing")
    assert figures(run) == [(DIME, ZERO)] and run.report().breakdown.llm.calls == 1


def test_a_transport_without_budgets_settles_it_as_well() -> None:
    run = session()
    with counting(above(run)):
        attempt = begin()
        assert attempt.hold() is None
    serve(attempt, answer())
    assert figures(run) == [(DIME, ZERO)] and run.report().breakdown.llm.calls == 1


def test_sessions_that_nothing_above_holds_are_held_besides() -> None:
    outer, inner = session(), session()
    with counting(above(outer)):
        attempt = begin(outer, inner)
        assert attempt.hold() is None
    serve(attempt, answer())
    assert figures(outer, inner) == [(DIME, ZERO)] * 2


def test_each_further_attempt_is_held_by_itself() -> None:
    run = session()
    guarded = above(run)
    with counting(guarded):
        for _ in range(2):
            failing = begin(run)
            assert failing.hold() is None
            failing.refuse(500, {}, b"{}")
        attempt = begin(run)
        assert attempt.hold() is None
        serve(attempt, answer())
    guarded.commit(Usage(input=1, output=1))
    assert figures(run) == [(3 * DIME, ZERO)] and run.report().breakdown.llm.calls == 3


OF_ADAPTER: dict[str, Any] = {
    "agent": "Writer",
    "started_by": ("Boss",),
    "final": True,
    "downgrade": DowngradePolicy(to="small"),
    "provider": "openai",
    "tool_fees": (("web_search", 5),),
}


@pytest.mark.parametrize(
    ("of_adapter", "of_client"),
    [(OF_ADAPTER, OF_ADAPTER), ({}, {"agent": "Client", "tool_fees": (("web_search", 10_000_000),)})],
    ids=["the adapter's", "the client's"],
)
def test_a_further_attempt_is_attributed_and_steered_as_its_call_and_else_as_its_client(
    of_adapter: dict[str, Any], of_client: dict[str, Any]
) -> None:
    run = session()
    with counting(above(run, model="large", cap=10, **of_adapter)):
        first, second = (
            begin(
                run,
                body={**BODY, "model": "large", "max_tokens": 10},
                agent=None if of_adapter else "Client",
                tool_costs={} if of_adapter else {"web_search": "0.01"},
            )
            for _ in range(2)
        )
        for attempt in (first, second):
            assert attempt.hold() is None
            held: Any = attempt.calls[0].holds[0].call
            attempt.refuse(500, {}, b"{}")
    assert {name: getattr(held, name) for name in of_client} == of_client


def test_an_attempt_after_one_that_was_not_billed_is_held_anew() -> None:
    run = session()
    guarded = above(run)
    with counting(guarded):
        refused = begin(run)
        assert refused.hold() is None
        refused.refuse(429, {}, b"{}")
        assert figures(run) == [(ZERO, ZERO)]
        attempt = begin(run)
        assert attempt.hold() is None
        serve(attempt, answer())
    guarded.commit(Usage(input=1, output=1))
    assert figures(run) == [(DIME, ZERO)]


@pytest.mark.parametrize("more", [{"model": "large", "max_tokens": 9_000}, {"messages": BODY["messages"] * 2_000}])
def test_where_more_is_sent_than_was_held_more_is_held(more: dict[str, Any]) -> None:
    run = session()
    guarded = above(run, model="large", cap=10)
    before = run.reserved_usd
    with counting(guarded):
        attempt = begin(run, body={**BODY, "model": "large", "max_tokens": 10, **more})
        assert attempt.hold() is None
    assert run.reserved_usd > before and not attempt.changed
    attempt.fail(ConnectionRefusedError())
    assert figures(run) == [(ZERO, ZERO)]


def test_where_that_does_not_fit_it_is_refused_and_nothing_is_held() -> None:
    run = session("$0.05")
    guarded = above(run, model="large", cap=10)
    with counting(guarded):
        stop = begin(run, body={**BODY, "model": "large", "max_tokens": 9_000}).hold()
    assert stop is not None
    guarded.fail(stop.error)
    assert figures(run) == [(ZERO, ZERO)]


def test_where_another_session_refuses_the_layer_above_is_given_back() -> None:
    run, poor = session(), session("$0.05")
    guarded = above(run)
    with counting(guarded):
        assert begin(poor).hold() is not None
    guarded.fail(RuntimeError())
    assert figures(run, poor) == [(ZERO, ZERO)] * 2


def test_a_layer_above_that_gives_a_stream_up_settles_it() -> None:
    run = session()
    guarded = above(run)
    with counting(guarded):
        attempt = begin(run, body={**BODY, "stream": True})
        assert attempt.hold() is None
    attempt.answered(200, "text/event-stream")
    attempt.feed(stream(PIECE))
    guarded.estimate("given up")
    assert figures(run) == [(DIME, ZERO)]
    attempt.end()
    assert run.report().breakdown.llm.calls == 1


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "awaited"])
@pytest.mark.parametrize("given_up", [False, True])
def test_a_layer_above_that_saw_an_answer_given_up_has_what_the_wire_saw_booked(given_up: bool, awaits: bool) -> None:
    run = session(on_cancel="seen")
    guarded = above(run, model="large", cap=5_000)
    with counting(guarded):
        attempt = begin(run, body={**BODY, "model": "large", "max_tokens": 5_000, "stream": True})
        assert attempt.hold() is None
    held = run.reserved_usd
    assert attempt.answered(200, "text/event-stream")
    attempt.feed(stream(*WORDS))
    seen = Seen("word") if given_up else None
    if awaits:
        asyncio.run(guarded.aestimate("it was left", seen))
    else:
        guarded.estimate("it was left", seen)
    assert run.reserved_usd == 0
    assert ZERO < run.spent_usd < held / 5 if given_up else run.spent_usd == held


def test_a_layer_above_that_is_done_first_is_settled_by_what_the_wire_said() -> None:
    run = session()
    guarded = above(run, model="large", cap=10)
    with counting(guarded):
        attempt = begin(run, body={**BODY, "model": "large", "max_tokens": 10, "stream": True})
        assert attempt.hold() is None
    attempt.answered(200, "text/event-stream")
    attempt.feed(stream({**PIECE, "model": "large"}, {**LAST, "model": "large"}, "[DONE]"))
    guarded.commit(Usage(input=90, output=10))
    assert run.spent_usd == Decimal("0.000019")
    attempt.end()
    assert run.spent_usd == Decimal("0.000019")


def test_two_transports_count_it_once() -> None:
    run, other = session(), session()
    outer = begin(run)
    assert outer.hold() is None
    with outer.counting():
        inner = begin(run, other)
        assert inner.hold() is None
    serve(inner, answer())
    serve(outer, answer())
    assert figures(run, other) == [(DIME, ZERO)] * 2
    assert [each.report().breakdown.llm.calls for each in (run, other)] == [1, 1]


def test_an_attempt_counts_in_every_layer_above_it() -> None:
    run, other = session(), session()
    outer, inner = above(other), above(run)
    with counting(outer):
        token = begin_counting(inner)
        attempt = begin(run, other)
        assert attempt.hold() is None
        end_counting(token)
    serve(attempt, answer())
    for each in (inner, outer):
        each.commit(None)
    assert figures(run, other) == [(DIME, ZERO)] * 2
    assert [each.report().breakdown.llm.calls for each in (run, other)] == [1, 1]


def test_two_transports_below_an_adapter_count_it_once() -> None:
    run = session()
    guarded = above(run)
    with counting(guarded):
        outer = begin(run)
        assert outer.hold() is None
        with outer.counting():
            inner = begin(run)
            assert inner.hold() is None
    inner.refuse(500, {}, b"")
    outer.refuse(500, {}, b"")
    guarded.fail(RuntimeError())
    assert figures(run) == [(DIME, ZERO)] and run.report().breakdown.llm.calls == 1


def test_two_attempts_at_once_are_two() -> None:
    run = session()
    guarded = above(run)
    with counting(guarded):
        first, second = begin(run), begin(run)
        assert first.hold() is None and second.hold() is None
    assert run.reserved_usd == 2 * DIME
    serve(second, answer())
    serve(first, answer())
    guarded.commit(None)
    assert figures(run) == [(2 * DIME, ZERO)]


def test_a_call_that_its_adapter_has_settled_counts_no_more() -> None:
    run = session()
    guarded = above(run)
    token = begin_counting(guarded)
    guarded.commit(Usage(input=1, output=1))
    attempt = begin(run)
    assert attempt.hold() is None
    serve(attempt, answer())
    end_counting(token)
    assert figures(run) == [(2 * DIME, ZERO)]


def test_a_tool_call_above_counts_no_model_call() -> None:
    run = session()
    tool = GuardedCall([run])
    assert tool.hold(ToolCall("search", 0)) is None
    with counting(tool):
        attempt = begin(run)
        assert attempt.hold() is None
    serve(attempt, answer())
    tool.commit_cost()
    assert figures(run) == [(DIME, ZERO)]


def test_a_model_call_around_a_tool_of_another_budget_is_the_call_itself() -> None:
    of_tool, of_model = session(), session()
    tool = GuardedCall([of_tool])
    assert tool.hold(ToolCall("search", 0)) is None
    with counting(tool), counting(above(of_model)):
        attempt = begin(of_tool, of_model)
        assert attempt.hold() is None
    serve(attempt, answer())
    assert figures(of_tool, of_model) == [(DIME, ZERO)] * 2


@pytest.mark.parametrize("named", [False, True], ids=["by the path alone", "by the body too"])
def test_a_deployment_is_switched_to_that_of_the_cheaper_model_wherever_it_is_named(named: bool) -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to={"large": "small"}, at=0.1)))
    run.charge("tool", "0.20")
    attempts = Attempts([run], models={"big one": "large", "small one": "small"})
    path = "/openai/deployments/big%20one/chat/completions?api-version=2024-12-01"
    dialect = attempts.dialect_of("POST", "me.openai.azure.com", path)
    assert dialect is not None
    body = {**BODY, "model": "big one", "max_tokens": 10}
    if not named:
        del body["model"]
    attempt = attempts.begin(dialect, "POST", "me.openai.azure.com", path, {}, json.dumps(body).encode())
    assert attempt.hold() is None
    assert attempt.path == path.replace("big%20one", "small%20one")
    assert json.loads(attempt.body).get("model") == ("small one" if named else None)


def test_a_count_ends_with_its_context() -> None:
    guarded = above(session())

    async def elsewhere() -> None:
        token = begin_counting(guarded)
        await asyncio.to_thread(end_counting, token)  # another context
        end_counting(token)
        assert counted_by().calls == ()

    asyncio.run(elsewhere())


def test_a_snapshot_is_booked_under_the_name_of_its_model() -> None:
    run = Session(Budget("$1.00"))
    attempt = begin(run, body={**BODY, "model": "gpt-4o"})
    assert attempt.hold() is None
    serve(attempt, answer(model="gpt-4o-2024-08-06"))
    assert list(run.report().breakdown.llm.by_model) == ["gpt-4o"]


def test_another_model_that_served_is_booked_as_itself() -> None:
    run = Session(Budget("$1.00"))
    attempt = begin(run, body={**BODY, "model": "gpt-4o"})
    assert attempt.hold() is None
    serve(attempt, answer(model="gpt-4o-mini", taken=1_000_000 // 1_000, made=100))
    assert list(run.report().breakdown.llm.by_model) == ["gpt-4o-mini"]
    assert run.spent_usd == Decimal("0.00021")


def test_what_an_answer_said_stays_whatever_comes_after_it() -> None:
    run = session()
    attempt = begin(run)
    assert attempt.hold() is None
    serve(attempt, answer())
    said = attempt.answer
    assert attempt.settled and said is not None and said.usage == Usage(input=10, output=5)
    attempt.end()
    attempt.fail(ConnectionError("late"))
    assert attempt.answer is said


@pytest.mark.parametrize(
    "unknown", [{"opaque": ("history kept by the provider",)}, {"unweighed": {1: "an image"}}], ids=["opaque", "image"]
)
def test_a_hold_covers_nothing_that_cannot_be_weighed(unknown: dict[str, Any]) -> None:
    (hold,) = above(session(), model="large", cap=10).holds
    less = Prompt(10, 1, ((1, 40),), 40)
    assert hold.covers(call("large", cap=10)._replace(prompt=less))
    assert not hold.covers(call("large", cap=10)._replace(prompt=less._replace(**unknown)))


def test_what_one_session_switched_to_is_what_the_others_hold() -> None:
    outer = session(Budget("$1.00", downgrade=DowngradePolicy(to={"large": "small"}, at=0.3)))
    inner = session()
    body = {**BODY, "model": "large", "max_tokens": 10}
    with counting(above(outer, model="large", cap=10)):
        first = begin(outer, inner, body=body)
        assert first.hold() is None
        first.refuse(500, {}, b"{}")
        outer.charge("tool", "0.50")
        second = begin(outer, inner, body=body)
        assert second.hold() is None
    assert json.loads(second.body)["model"] == "small"
    assert [decision.name for decision in inner.decisions()] == ["large", "small"]
    second.fail(ConnectionRefusedError())


@pytest.mark.parametrize("caps", [(300, 700), (700, 300), (300, 300), (None, 300), (300, None), (None, None)])
def test_of_the_caps_of_all_layers_the_lowest_is_sent(caps: tuple[int | None, int | None]) -> None:
    outer, own = (session(Budget("$5", call_max_output_tokens=cap)) for cap in caps)
    with counting(above(outer, model="large", cap=10)):  # more is sent than that: it is held anew
        attempt = begin(own, body={**BODY, "model": "large"})
        assert attempt.hold() is None
    sent = json.loads(attempt.body)
    found = [sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent]
    assert found == ([] if caps == (None, None) else [min(cap for cap in caps if cap is not None)])


def test_a_cap_of_the_budgets_own_stays_one_where_more_is_sent_than_was_held() -> None:
    run = session("$0.05")
    guarded = GuardedCall([run])
    assert guarded.hold(call("large", tokens=10)) is None  # without a cap, so that the budget chooses one
    cap = guarded.output_cap
    assert cap is not None
    longer = {**BODY, "model": "large", "max_tokens": cap, "messages": [{"role": "user", "content": "Hi " * 5_000}]}
    with counting(guarded):
        attempt = begin(body=longer)
        assert attempt.hold() is None
    (hold,) = guarded.holds
    assert hold.terms.clamped  # what it cuts off is a stop, and is not lost
    attempt.end(complete=False)
    assert run.reserved_usd == 0


def test_an_answer_that_was_not_heard_to_its_end_is_booked_as_held() -> None:
    run = session()
    guarded = above(run, model="large", cap=10)
    with counting(guarded):
        attempt = begin(run, body={**BODY, "model": "large", "max_tokens": 10})
        assert attempt.hold() is None
    held = run.reserved_usd
    attempt.answered(200, "application/json")
    attempt.feed(answer(model="large", taken=1, made=1))
    guarded.fail(TimeoutError())
    assert figures(run) == [(held, ZERO)]


def test_what_fails_in_one_budget_is_raised_once_all_others_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = session(), session()
    with counting(above(outer)):
        attempt = begin(outer, inner)
        assert attempt.hold() is None
    answering = GuardedCall.answering

    def failing(call: GuardedCall, answer: Any) -> Any:
        if outer in call.sessions:
            raise OSError("the disk is full")
        return answering(call, answer)

    monkeypatch.setattr(GuardedCall, "answering", failing)
    with pytest.raises(OSError, match="full"):
        serve(attempt, answer())
    assert figures(inner) == [(DIME, ZERO)]


def _stream_of(*events: Mapping[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/octet-stream", "application/json"])
@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_is_read_as_one_whatever_its_type_says(kind: str, asks: bool) -> None:
    running = session("1.00")
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}
    attempt = begin(running, body={**BODY, "max_tokens": 16, "stream": True, **options})
    assert attempt.hold() is None
    text = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}}
    sent = b"\n" + _stream_of(text, usage)

    assert attempt.answered(200, kind)
    passed = b"".join(attempt.feed(sent[at : at + 7]) for at in range(0, len(sent), 7)) + attempt.left
    attempt.end()

    assert attempt.streams is (kind != "application/json")
    assert passed == (sent if asks or not attempt.streams else b"\n" + _stream_of(text))
    assert attempt.answer is not None
    assert attempt.answer.usage == Usage(input=10, output=8)
    assert running.reserved_usd == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json"])
def test_a_whole_answer_is_read_as_one_where_a_stream_was_asked_for(kind: str) -> None:
    running = session("1.00")
    attempt = begin(running, body={**BODY, "max_tokens": 16, "stream": True})
    assert attempt.hold() is None
    sent = b"\n " + json.dumps(json.loads(answer(made=8)), indent=1).encode()

    assert attempt.answered(200, kind)
    assert b"".join(attempt.feed(sent[at : at + 7]) for at in range(0, len(sent), 7)) + attempt.left == sent
    attempt.end()

    assert attempt.answer is not None
    assert attempt.answer.usage == Usage(input=10, output=8)
    assert running.reserved_usd == 0


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_what_is_neither_a_stream_nor_an_answer_is_booked_at_its_bound(kind: str) -> None:
    running = session("1.00")
    attempt = begin(running, body={**BODY, "max_tokens": 16, "stream": True})
    assert attempt.hold() is None

    assert attempt.answered(200, kind)
    assert attempt.feed(b"<html>sorry</html>") + attempt.left == b"<html>sorry</html>"
    attempt.end()

    assert attempt.answer is not None
    assert attempt.answer.usage is None
    assert (running.spent_usd, running.reserved_usd) == (DIME, Decimal(0))


def test_of_what_fails_in_several_budgets_the_first_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = session(), session()
    with counting(above(first)):
        attempt = begin(first, second)
        assert attempt.hold() is None

    def failing(call: GuardedCall, answer: Any) -> Any:
        raise OSError("first" if first in call.sessions else "second")

    monkeypatch.setattr(GuardedCall, "answering", failing)
    with pytest.raises(OSError, match="first"):
        attempt.end()


GOOGLE = "/v1beta/models/dime:generateContent"
CONVERSE = "/model/dime/converse"
INVOKE = "/model/anthropic.dime/invoke"


def begun_at(
    path: str, body: Mapping[str, Any] | bytes, *sessions: Session, headers: Mapping[str, str] = {}, **options: Any
) -> Attempt:
    attempts = Attempts(sessions or [session()], **options)
    dialect = attempts.dialect_of("POST", HOST, path)
    assert dialect is not None
    return attempts.begin(
        dialect, "POST", HOST, path, headers, body if isinstance(body, bytes) else json.dumps(body).encode()
    )


@pytest.mark.parametrize(
    ("path", "more", "answers", "cap"),
    [
        (CHAT, {"best_of": 4}, 4, 16),
        (CHAT, {"n": 2, "best_of": "8"}, 8, 16),
        (CHAT, {"num_return_sequences": 3}, 3, 16),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16, "n": 3}, 3, 16),
        ("/v1/messages", {"n": 3}, 3, 16),
        (CONVERSE, {"additionalModelRequestFields": {"num_generations": 3, "max_tokens": 90}}, 3, 90),
        (CONVERSE, {"additionalModelRequestFields": {"inferenceConfig": {"max_new_tokens": 90}}}, 1, 90),
        (CONVERSE, {"additionalModelRequestFields": {"inferenceConfig": {"maxTokens": "90"}}}, 1, 90),
        (CHAT, {"max_new_tokens": 90}, 1, 90),
        (CHAT, {"max_output_tokens": 90, "num_predict": 40}, 1, 90),
    ],
)
def test_answers_and_caps_count_by_whatever_name_a_server_may_know_them(
    path: str, more: dict[str, Any], answers: int, cap: int
) -> None:
    own = {"inferenceConfig": {"maxTokens": 16}} if path == CONVERSE else {"max_tokens": 16}
    request = begun_at(path, {**BODY, **own, **more}).request

    assert (request.choices, request.max_output_tokens) == (answers, cap)


@pytest.mark.parametrize("name", ["max_new_tokens", "num_predict"])
def test_a_cap_of_ours_stands_in_the_place_of_all_that_are_there(name: str) -> None:
    budget = Budget("$1.00", call_max_output_tokens=20, allowance=Allowance(parameters=(name,)))
    attempt = begun_at(CHAT, {**BODY, "max_tokens": 16, name: 90_000}, session(budget))

    assert attempt.hold() is None
    assert json.loads(attempt.body) == {**BODY, "max_tokens": 20}


def test_a_cap_of_ours_stands_in_the_place_of_one_that_is_nested() -> None:
    fields: dict[str, Any] = {"top_k": 3, "inferenceConfig": {"topK": 2, "max_new_tokens": 90_000}}
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], "additionalModelRequestFields": fields}
    attempt = begun_at(CONVERSE, body, session(Budget("$1.00", call_max_output_tokens=20)))

    assert attempt.hold() is None
    sent = json.loads(attempt.body)
    assert sent["inferenceConfig"] == {"maxTokens": 20}
    assert sent["additionalModelRequestFields"] == {"top_k": 3, "inferenceConfig": {"topK": 2}}


@pytest.mark.parametrize("senseless", [-1, 0, "lots", True])
def test_a_cap_beside_one_that_makes_no_sense_is_refused(senseless: object) -> None:
    body = {**BODY, "max_tokens": 16, "max_completion_tokens": senseless}

    with pytest.raises(UnboundedCallError, match="an output cap in two spellings"):
        begun_at(CHAT, body).hold()
    assert begun_at(CHAT, {**body, "max_completion_tokens": None}).hold() is None


_FIRST = b'{"max_tokens": 9, "max_tokens": 1, "model": "dime", "messages": []}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, _FIRST),
        (CHAT, _FIRST.replace(b"max_tokens", b"max_\\u0074okens", 1)),
        (CHAT, b'{"model": "large", "messages": [], "model": "dime"}'),
        (CHAT, b'{"messages": ["long"], "model": "dime", "messages": []}'),
        (CHAT, b'{"model": "dime", "n": 9, "messages": [], "n": 1}'),
        (GOOGLE, b'{"contents": [], "generationConfig": {"maxOutputTokens": 9, "maxOutputTokens": 1}}'),
        (CONVERSE, b'{"inferenceConfig": {"maxTokens": 90}, "messages": [], "inferenceConfig": {"maxTokens": 1}}'),
    ],
)
def test_a_field_that_is_there_with_two_values_is_refused(path: str, body: bytes) -> None:
    with pytest.raises(UnboundedCallError, match="twice, and which one counts is not known"):
        begun_at(path, body)
    assert begun_at(path, body, session(Budget("$1.00", mode="advisory_estimate"))).hold() is None


def test_a_name_that_stands_in_other_places_as_well_is_there_once() -> None:
    schema = {"type": "object", "properties": {"model": {}, "n": {}, "max_tokens": {}}}
    tool = {"type": "function", "function": {"name": "n", "parameters": schema}}
    text = 'say "model" \\u0041 "max_tokens": 9'
    body = {**BODY, "max_tokens": 9, "n": 1, "tools": [tool], "messages": [{"role": "user", "content": text}]}
    same = json.dumps(body)[:-1] + ', "model": "dime"}'  # twice, with one value

    assert begun_at(CHAT, body).request.max_output_tokens == 9
    assert begun_at(CHAT, same.encode()).request.model == "dime"


@pytest.mark.parametrize(
    ("path", "header", "value", "tier"),
    [
        (INVOKE, "X-Amzn-Bedrock-Service-Tier", "priority", "priority"),
        (CONVERSE, "X-Amzn-Bedrock-Service-Tier", "Flex", "flex"),
        (INVOKE, "X-Amzn-Bedrock-PerformanceConfig-Latency", "optimized", "optimized"),
        (INVOKE, "X-Amzn-Bedrock-PerformanceConfig-Latency", "standard", None),
        (INVOKE, "X-Amzn-Bedrock-Service-Tier", "default", None),
        (GOOGLE, "X-Vertex-AI-LLM-Shared-Request-Type", "priority", "priority"),
    ],
)
def test_a_header_that_names_a_tier_sets_the_price(path: str, header: str, value: str, tier: str | None) -> None:
    assert begun_at(path, BODY, headers={header: value}).request.tier == tier


def test_a_tier_in_the_body_that_is_none_of_the_headers_is_refused() -> None:
    body = {"messages": [], "serviceTier": {"type": "flex"}}
    header = {"x-amzn-bedrock-service-tier": "priority"}

    with pytest.raises(UnboundedCallError, match="a price tier in two spellings"):
        begun_at(CONVERSE, body, headers=header).hold()
    assert begun_at(CONVERSE, body, headers={**header, "x-amzn-bedrock-service-tier": "flex"}).request.unclear == ()


def test_a_guardrail_that_a_header_names_has_no_bound() -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    stop = begun_at(CONVERSE, body, headers={"X-Amzn-Bedrock-GuardrailIdentifier": "g"}).hold()

    assert stop is not None
    assert "a guardrail" in str(stop.error)


AZURE = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("deployment", "models", "held"),
    [
        ("large", {}, 1_000),
        ("prod", {"prod": "large"}, 1_000),
        ("prod", {}, 100),  # nobody knows what is behind it: the body says so
        ("small", {}, 100),
    ],
)
def test_the_deployment_in_an_address_counts_where_the_body_names_another_model(
    deployment: str, models: dict[str, str], held: int
) -> None:
    run = session()
    body = {**BODY, "model": "small", "max_tokens": 100}
    attempt = begun_at(AZURE.format(deployment), body, run, models=models)

    assert attempt.hold() is None
    assert run.reserved_usd >= Decimal(held) / 1_000_000
    assert (run.reserved_usd >= Decimal(1_000) / 1_000_000) is (held == 1_000)


def test_half_a_character_is_sent_as_it_came_where_the_body_is_changed() -> None:
    body = b'{"model": "dime", "messages": [{"role": "user", "content": "\\ud83d caf\\u00e9"}]}'
    attempt = begun_at(CHAT, body, session(Budget("$1.00", call_max_output_tokens=20)))

    assert attempt.hold() is None
    assert attempt.changed
    assert "\\ud83d café".encode() in attempt.body
    assert json.loads(attempt.body.decode()) == {**json.loads(body), "max_tokens": 20}
