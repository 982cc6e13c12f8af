"""Every mistake is answered with the field, the value and the remedy; and nobody's secrets are shown."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, cast

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LedgerUnavailable,
    ModelCall,
    PriceTable,
    Session,
    ToolCall,
    UnknownPriceError,
    errors,
)
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.stops import stops_for
from budget_guard.events.sinks import JsonlSink
from budget_guard.session import session as session_module
from budget_guard.testing import FakeClock
from budget_guard.units.scope import Scope
from tests.builders import PRICES, Way, call

DIME = 100_000_000
EVIL = "gpt\n\x1b[2Jforged\u202e line"
SHOWN = r"gpt\n\x1b[2Jforged\u202e line"


# Budgets


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_usd", "max_cost_usd"),
        ("max_spend", "max_cost_usd"),
        ("max_cost_used", "max_cost_usd"),
        ("limit", "max_cost_usd"),
        ("max_tokens", "max_total_tokens"),
        ("max_calls", "max_requests"),
        ("max_iterations", "max_requests"),
        ("timeout", "max_duration_s"),
        ("max_seconds", "max_duration_s"),
        ("fallback_model", "downgrade"),
        ("max_tool_call", "max_tool_calls"),
        ("soft_limits", "soft_limit"),
    ],
)
def test_an_unknown_keyword_is_answered_with_the_one_that_was_meant(given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"^Budget\(\) takes no {given}: did you mean {meant}\?$"):
        Budget(**cast("dict[str, Any]", {given: 1}))
    if meant.startswith("max_"):
        with pytest.raises(ValueError, match=rf"{given}=1 is not a limit: did you mean {meant}\?"):
            Budget("$1").session().raise_limits(**{given: 1})


def test_a_keyword_that_is_near_to_none_is_answered_with_all_of_them() -> None:
    with pytest.raises(TypeError, match=r"Budget\(\) takes no zzz: use one of max_cost_usd, max_total_tokens"):
        Budget(zzz=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("made", "given", "words"),
    [
        (Budget("$1").session, "usr", "Budget.session() takes no usr=: did you mean user?"),
        (Budget("$1").session, "max_usd", "Budget.session() takes no max_usd=: it is a part of the budget: "),
        (Budget("$1").session, "max_requests", "Budget(..., max_requests=...)"),
        (Budget("$1").session, "zzz", "Budget.session() takes no zzz=: use one of ledger, run_id, user, "),
        (BudgetAuthority, "ceiling", "BudgetAuthority() takes no ceiling=: did you mean ceilings?"),
        (BudgetAuthority, "max_usd", "BudgetAuthority() takes no max_usd=: it is a part of the budget: "),
    ],
)
def test_an_unknown_keyword_of_what_is_made_with_a_budget_says_what_it_takes(made: Any, given: str, words: str) -> None:
    with pytest.raises(TypeError) as error:
        made(**{given: 1})
    assert words in str(error.value)


def test_the_arguments_are_seen_by_editors_and_help() -> None:
    parameters = list(inspect.signature(Budget).parameters)
    assert parameters[0] == "max_cost_usd"
    documented = inspect.getdoc(Budget) or ""
    assert "Args:" in documented
    for name in parameters:
        assert f"\n    {name}: " in documented, name


def test_raising_says_what_is_wrong() -> None:
    session = Budget("$1.00").session()
    with pytest.raises(ValueError, match=r"max_requests=5 would be a new limit.*Budget\(\.\.\., max_requests=5\)"):
        session.raise_limits(max_requests=5)
    with pytest.raises(ValueError, match=r"no limit is named: write raise_limits\(max_cost_usd="):
        session.raise_limits()
    with pytest.raises(ValueError, match=r"lower than the limit of \$1\.00"):
        session.raise_limits(max_cost_usd="$0.50")
    assert session.times_raised == 0


def test_a_downgrade_that_goes_nowhere_says_so() -> None:
    with pytest.raises(ValueError, match=r"downgrade_at=0\.5 has no effect without downgrade_to: name"):
        Budget("$1").with_downgrade(None, 0.5)
    with pytest.raises(ValueError, match=r"downgrade_at=0.5.*DowngradePolicy\(to=\.\.\., at=\.\.\.\)"):
        Budget("$1", downgrade="gpt-4o-mini").with_downgrade(None, 0.5)
    assert Budget("$1").with_downgrade(None, 0.8) == Budget("$1")


FIND = PriceTable.bundled().find
BY_CASE: list[tuple[Callable[[], object], str, str]] = [
    # what goes wrong; what is said of it; and what would be said of a case that is much like it
    (lambda: FIND("gpt-4oo"), "'gpt-4oo'. Nearest known: gpt-4o", "'gpt-4oo'. To allow it"),
    (lambda: FIND("zzzz"), "'zzzz'. To allow it, give its price", "Nearest known"),
    (lambda: Budget("$1", downgrade="gpt-4oo").session(), "for it. Nearest known: gpt-4o", "for it. To use it"),
    (lambda: Budget("$1", downgrade="zzzz").session(), "for it. To use it, give its price", "Nearest known"),
    (lambda: FIND("gpt-4o", service_tier="express"), "the standard one or one of batch, fast, priority.", "one."),
    (lambda: FIND("gpt-4o", provider="azure", service_tier="express"), "ask for the standard one.", "or one of"),
    (lambda: Budget(max_duration_s=0), "max_duration_s=0 must be more than zero seconds", "or more"),
    (lambda: Budget("$1", max_wait_s=-1), "max_wait_s=-1 must be zero or more seconds", "than zero"),
    (lambda: PriceTable.load(__file__), "test_messages.py is no price table: make one", "another form"),
]


@pytest.mark.parametrize(("wrong", "said", "else_said"), BY_CASE)
def test_a_message_is_that_of_its_own_case(wrong: Callable[[], object], said: str, else_said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)) as caught:
        wrong()
    assert else_said not in str(caught.value)


@pytest.mark.parametrize(
    ("subscriber", "words"),
    [
        ("http://hooks.example/budget", ["is a text", "a function of one event", "WebhookSink"]),
        (JsonlSink, ["JsonlSink is a class", "an instance"]),
        (None, ["subscriber=None cannot be called"]),
    ],
)
def test_a_subscriber_that_would_hear_nothing_is_refused(subscriber: Any, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        Budget("$1").session().subscribe(subscriber)
    for each in words:
        assert each in str(caught.value)


# Short forms


@pytest.mark.parametrize(
    "text",
    [
        "Budget('$5.00')",
        "Budget('$0.000000001', max_requests=3)",
        "Budget(max_requests=3, window='day')",
        "Budget('$5', soft_limit=None, finalization_reserve='$0.05')",
        "Budget('$5', mode='soft_gate', max_wait_s=3.0)",
    ],
)
def test_a_budget_is_shown_as_it_may_be_written(text: str) -> None:
    budget = eval(text)
    assert repr(budget) == text
    assert eval(repr(budget)) == budget


def test_sessions_and_decisions_are_shown_in_a_line() -> None:
    session = Budget("$1.00").session(run_id="r1")
    assert repr(session) == "Session('r1', Budget('$1.00'))"
    decision = session.authorize(ToolCall("search", DIME))
    assert repr(decision) == f"Decision(allow 'search', holds $0.10, id={decision.id!r})"
    refused = session.authorize(ToolCall("search", 10 * DIME))
    assert repr(refused).startswith("Decision(block 'search', holds $1.00, 'max_cost_usd=$1.00 of run:r1")
    assert len(repr(refused)) < 400


# Prices


def test_old_prices_are_told_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(session_module, "_told_of_old_prices", False)
    clock = FakeClock()
    reviewed = datetime(2026, 11, 22, tzinfo=timezone.utc)
    clock.advance((reviewed + timedelta(days=90) - clock.now()).total_seconds())
    Session(Budget("$1"), clock=clock)
    assert caplog.text == ""
    clock.advance(86_400)
    for _ in range(3):
        Session(Budget("$1"), clock=clock)
    assert caplog.text.count("91 days ago") == 1
    assert "pip install --upgrade budget-guard-py" in caplog.text and "pricing=" in caplog.text


# What an error carries


def test_fields_that_are_set_later_are_none_until_then_and_travel() -> None:
    error = BudgetExceeded(dimension="max_requests", limit=1, actual=1, scope="run:r1")
    later = ("partial_output", "value", "resets_at", "retry_after_s", "user_message", "waiting_helps", "reserved")
    assert [getattr(error, name) for name in later if name != "user_message"] == [None] * 6
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    error.partial_output, error.value, error.resets_at = "half an ans", {"rows": [1]}, noon
    error.retry_after_s, error.user_message = 1.5, "Please come back tomorrow."
    error.waiting_helps, error.reserved = True, Decimal("0.5")
    stop = stops_for(RuntimeError).recast(error)
    every: list[Any] = [pickle.loads(pickle.dumps(error)), stop, pickle.loads(pickle.dumps(stop))]
    for each in every:
        assert [getattr(each, name) for name in later] == [getattr(error, name) for name in later]
        assert str(each) == str(error)


def test_every_stop_says_what_an_end_user_may_be_told() -> None:
    words = {
        cls.user_message
        for cls in vars(errors).values()
        if inspect.isclass(cls) and issubclass(cls, errors.BudgetError)
    }
    assert len(words) >= 4 and all(each.endswith(".") and "$" not in each for each in words)


def test_a_value_that_cannot_be_pickled_stays_behind() -> None:
    error = UnknownPriceError(model="m")
    error.value = lambda: None
    assert pickle.loads(pickle.dumps(error)).value is None
    assert error.recast(UnknownPriceError).value is error.value


def test_a_stop_has_an_http_status() -> None:
    statuses = {
        cls.__name__: cls.http_status
        for cls in vars(errors).values()
        if inspect.isclass(cls) and issubclass(cls, errors.BudgetError)
    }
    assert statuses.pop("LedgerUnavailable") == statuses.pop("LedgerAmbiguous") == 503
    assert set(statuses.values()) == {402}


def test_a_ceiling_says_when_it_begins_anew(way: Way) -> None:
    clock = FakeClock()
    clock.advance(3_600)
    authority = BudgetAuthority(ceilings={"user": Budget("$0.10", window="day")}, clock=clock, pricing=PRICES)
    session = authority.session(Budget("$5"), user="u1")
    way.pay(session, call())
    error: Any = way.authorize(session, call()).error
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert error.resets_at == midnight
    assert error.retry_after_s == (midnight - clock.now()).total_seconds() > 0
    assert error.user_message == f"The budget for this is used up. It begins anew at {midnight:%Y-%m-%d %H:%M} UTC."


def test_a_run_does_not_begin_anew(way: Way) -> None:
    error: Any = way.authorize(Session(Budget("$0.05"), pricing=PRICES), call()).error
    assert (error.resets_at, error.retry_after_s, error.http_status) == (None, None, 402)
    assert error.user_message == "The budget for this is used up."


# What is shown


SECRET = "sk-live-s3cr3t"
PROVIDER_ERRORS: list[BaseException] = [
    RuntimeError(f"Incorrect API key provided: {SECRET}"),
    ValueError(f"your prompt {SECRET} was flagged"),
    TimeoutError(SECRET),
    KeyError(SECRET),
    type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})(SECRET),
    type("Status", (Exception,), {"status_code": SECRET})(SECRET),
    type("Throttled", (Exception,), {"status_code": 429})(SECRET),
    type("Overloaded", (Exception,), {"status_code": 503})(SECRET),
    type("Denied", (Exception,), {"status_code": 401})(SECRET),
    type("Interrupted", (BaseException,), {})(SECRET),
]


@pytest.mark.parametrize("error", PROVIDER_ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_provider_says_is_in_no_log_event_decision_or_report(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = Session(Budget("$5"), pricing=PRICES)
    heard: list[Any] = []
    session.subscribe(heard.append)
    guarded = GuardedCall([session])
    assert guarded.hold(call()) is None
    guarded.fail(error)
    said = f"{caplog.text} {heard} {session.events()} {session.decisions()} {session.report().model_dump_json()}"
    assert SECRET not in said
    assert type(error).__name__ in said
    status = getattr(type(error), "status_code", None)
    if isinstance(status, int):
        assert f"(HTTP {status})" in said


def test_nor_is_what_a_real_client_says(caplog: pytest.LogCaptureFixture) -> None:
    httpx = pytest.importorskip("httpx")
    request = httpx.Request("POST", f"https://user:{SECRET}@api.example/v1?key={SECRET}")
    for error in (
        httpx.ConnectError(SECRET),
        httpx.HTTPStatusError(SECRET, request=request, response=httpx.Response(500, text=SECRET)),
    ):
        test_what_a_provider_says_is_in_no_log_event_decision_or_report(error, caplog)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnknownPriceError(model=EVIL, provider=EVIL, missing=EVIL, suggestions=[EVIL]),
        lambda: BudgetRevoked(scope=f"user:{EVIL}", reason=EVIL, at=datetime.now(timezone.utc)),
        lambda: BudgetExceeded(dimension="max_requests", limit=1, actual=1, scope=f"run:{EVIL}", detail=EVIL),
        lambda: LedgerUnavailable(detail=EVIL),
    ],
)
def test_an_error_is_one_line_of_what_can_be_printed_whatever_it_names(make: Any) -> None:
    error = make()
    assert str(error).isprintable()
    assert SHOWN in str(error).replace("\\\\", "\\")
    for name in ("model", "reason", "scope", "detail"):
        if isinstance(getattr(error, name, None), str) and EVIL in getattr(error, name):
            break  # the fields are as they were given
    else:
        pytest.fail("no field has it")


def test_a_name_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    authority = BudgetAuthority(pricing={EVIL: (1e-6, 1e-6)}, ceilings={"user": Budget("$0.30")})
    session = authority.session(Budget("$1"), EVIL, user=EVIL)
    session.authorize(ToolCall(EVIL, 20 * DIME))
    session.authorize(ToolCall(EVIL, 3 * DIME)).require().commit_estimate(EVIL)
    session.authorize(ModelCall(f"{EVIL}?", call().prompt))
    authority.revoke("user", EVIL, reason=EVIL)
    authority.restore("user", EVIL)
    assert len(caplog.records) >= 5
    for record in caplog.records:
        assert record.getMessage().isprintable(), record.getMessage()
    assert SHOWN in caplog.text


def test_other_loggers_and_other_values_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("budget_guard")
    log.info("%s %.2f %r %s", "name", 1.5, {"a": 1}, Scope("run", "r"))
    log.info("%(name)s", {"name": "x"})
    log.info("%r and %s", EVIL, LedgerUnavailable(detail="x"))
    logging.getLogger("another").info("%s", EVIL)
    assert [record.getMessage() for record in caplog.records] == [
        "name 1.50 {'a': 1} run:r",
        "x",
        rf"{EVIL!r} and The ledger is not available: x",
        EVIL,
    ]


def test_a_name_steers_no_terminal() -> None:
    rich = pytest.importorskip("rich.console")
    from budget_guard.live import SpendLine

    session = Session(Budget("$1"), pricing={EVIL: (1e-6, 1e-6)})
    line = SpendLine(session)
    session.authorize(ModelCall(EVIL, call().prompt)).require()
    drawn = io.StringIO()
    rich.Console(file=drawn, width=200).print(line.draw())
    assert drawn.getvalue().rstrip("\n").isprintable() and SHOWN in drawn.getvalue()


def test_a_report_is_as_ever() -> None:
    assert str(Session(Budget(max_requests=3)).report().total_spent) == "0" and Decimal(0) == 0
