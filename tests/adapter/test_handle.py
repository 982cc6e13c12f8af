"""Guards and handlers are handles of a session: what is done to one is done to its session."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetRevoked, MemoryLedger, Session
from budget_guard.adapter import handle
from budget_guard.adapter.handle import SessionHandle, SessionSettings, forked
from budget_guard.calls.seen import OnCancel
from budget_guard.reporting import RunRecord
from tests.builders import call, session


class Handle(SessionHandle):
    def __init__(self, session: Session) -> None:
        self.session = session


class Log:
    """A log of runs that keeps nothing."""

    def add(self, record: RunRecord) -> None:
        """Take a record."""


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def awaits(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def do(handle: Handle, awaits: bool, verb: str, *args: Any, **kwargs: Any) -> Any:
    """Call a verb of *handle*, or its awaitable twin."""
    if not awaits:
        return getattr(handle, verb)(*args, **kwargs)

    async def main() -> Any:
        return await getattr(handle, f"a{verb}")(*args, **kwargs)

    return asyncio.run(main())


def test_what_is_done_to_the_handle_is_done_to_its_session(awaits: bool) -> None:
    handle = Handle(session(Budget("$1")))
    handle.charge("serp", "0.25", agent="Named")
    assert (handle.spent_usd, handle.reserved_usd, handle.remaining_usd) == (
        Decimal("0.25"),
        Decimal(0),
        Decimal("0.75"),
    )
    assert list(do(handle, awaits, "report").by_agent) == ["Named"]
    do(handle, awaits, "raise_limits", max_cost_usd="$3")
    assert handle.remaining_usd == Decimal("2.75")
    do(handle, awaits, "revoke", "stolen")
    assert isinstance(handle.session.authorize(call()).error, BudgetRevoked)


EVERY: dict[str, Any] = {
    **{name: name for name in ("user", "key", "team", "feature", "agent")},
    "pricing": {"m": (1e-6, 1e-6)},
    "per_million": {"n": (1, 1)},
    "on_cancel": "seen",
    **{f"on_{name}": print for name in ("soft_limit", "hard_limit", "loop_detected", "downgrade")},
}
"""All that a session is opened with, beside where its counters live."""


@pytest.mark.parametrize("shared", [True, False])
def test_every_setting_reaches_the_session(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(handle, "open_session", lambda *args, **kwargs: opened.append((args, kwargs)))
    authority, ledger, budget = BudgetAuthority(), MemoryLedger(), Budget("$1")
    settings = SessionSettings(authority=authority, ledger=ledger, principals={"org": "o1"}, run_log=Log(), **EVERY)
    settings.open(budget, "r1", shared=shared)
    counters = (authority, ledger) if shared else (None, None)
    assert opened == [((counters[0], budget, "r1"), {**EVERY, "ledger": counters[1], "org": "o1"})]
    assert SessionSettings.open.__kwdefaults__ == {"shared": True}


def test_the_arguments_of_settings_make_the_same_ones() -> None:
    settings = SessionSettings(authority=BudgetAuthority(), principals={"org": "o1"}, run_log=Log(), **EVERY)
    arguments = settings.arguments()
    assert arguments.pop("org") == "o1"
    assert SessionSettings(**arguments, principals={"org": "o1"}) == settings


def test_records_that_cannot_be_told_of_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="run_log=5 cannot be told anything"):
        SessionSettings(authority=None, run_log=5, **EVERY)  # type: ignore[arg-type]  # on purpose


def fork(**changes: Any) -> dict[str, Any]:
    settings = SessionSettings(authority=BudgetAuthority(kinds=("org",)), principals={"org": "o1"}, **EVERY)
    own = {"downgrade_to": "penny", "downgrade_at": 0.5}
    return forked(Budget("$1"), settings, own, changes, fork)


def test_a_fork_is_made_of_what_there_is_and_what_is_to_be_another() -> None:
    plain = fork()
    assert {name: plain[name] for name in EVERY} == EVERY
    assert (plain["budget"], plain["run_id"], plain["org"]) == (Budget("$1"), None, "o1")
    assert (plain["downgrade_to"], plain["downgrade_at"]) == ("penny", 0.5)
    changed = fork(user="u2", org="o2", run_id="r2", budget=Budget("$2"))
    assert {name for name in plain if changed[name] != plain[name]} - {"authority"} == {
        "user",
        "org",
        "run_id",
        "budget",
    }
    with pytest.raises(TypeError, match=r"fork\(\) takes no tenant=: it takes budget, run_id, "):
        fork(tenant="t")
    assert fork(tenant="t", authority=BudgetAuthority(kinds=("tenant",)))["tenant"] == "t"


def test_a_budget_that_names_its_own_downgrade_has_the_last_word_in_a_fork() -> None:
    own = Budget("$1", downgrade="dime")
    assert fork(budget=own)["downgrade_to"] is None and "downgrade_at" not in fork(budget=own)
    assert fork(budget=own, downgrade_to="x")["downgrade_to"] == "x"
    assert fork(budget=Budget("$2"))["downgrade_at"] == 0.5


def test_in_a_fork_an_authority_and_a_ledger_take_each_others_place() -> None:
    authority, ledger = BudgetAuthority(), MemoryLedger()
    made = fork(authority=authority)
    assert made["authority"] is authority and made["ledger"] is None
    made = fork(ledger=ledger)
    assert made["authority"] is None and made["ledger"] is ledger
    made = fork(authority=authority, ledger=ledger)
    assert made["authority"] is authority and made["ledger"] is ledger
    made = fork(authority=None)
    assert made["authority"] is None and made["ledger"] is None


def test_a_guard_that_is_made_while_its_caller_is_cancelled_is_closed() -> None:
    made, closed = threading.Event(), asyncio.Event()

    class Closing(Handle):
        async def aclose(self) -> None:
            closed.set()

    def make() -> Closing:
        made.wait(30)
        return Closing(session())

    async def main() -> None:
        opening = asyncio.ensure_future(handle.opened(make))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.sleep(0)
        assert not opening.done()
        made.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert closed.is_set()

    asyncio.run(main())


def test_what_is_no_budget_or_no_choice_is_named_with_what_is_one() -> None:
    with pytest.raises(TypeError, match=r"budget='x' is not a Budget: write Guard\(Budget\(\"\$5.00\"\)\)"):
        handle.check_budget("x", "Guard")
    with pytest.raises(ValueError, match="on_cancel='x' is not known: use 'bound' or 'seen'"):
        handle.check_choice("on_cancel", "x", OnCancel)


@pytest.mark.parametrize("authority", [None, BudgetAuthority(kinds=("org",))])
def test_a_keyword_that_is_nothing_is_answered_with_what_was_meant(authority: BudgetAuthority | None) -> None:
    class Guard:
        def __init__(self, budget: Budget, *, feature: str | None = None, **principals: str) -> None:
            """Never made."""

    with pytest.raises(TypeError, match=r"Guard.*featur\b.*did you mean feature"):
        handle.check_principals({"featur": "x"}, authority, Guard)
    if authority is not None:
        handle.check_principals({"org": "o1"}, authority, Guard)
        with pytest.raises(TypeError, match="did you mean org"):
            handle.check_principals({"org": "o1", "orgs": "x"}, authority, Guard)


def test_settings_are_named_and_never_change() -> None:
    named: dict[str, Any] = dict.fromkeys(("authority", "user", "key", "team", "feature", "pricing"))
    making: Any = SessionSettings
    settings = making(**named)
    with pytest.raises(TypeError):
        making(*named.values())  # by their place
    with pytest.raises(AttributeError):
        settings.user = "u1"
