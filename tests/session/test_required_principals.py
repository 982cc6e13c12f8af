"""An authority that cannot hold a session says so when it is opened, not when the bill comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, MemoryLedger, ToolCall
from budget_guard.session.opening import open_session
from budget_guard.units.scope import Scope

DAILY = Budget("$0.30", window="day")
DIME = 100_000_000
RUN = Budget("$5")


def both(authority: BudgetAuthority, **named: Any) -> list[str]:
    """What a session and an awaited one are refused with."""
    with pytest.raises(ValueError) as blocking:
        authority.session(RUN, **named)
    with pytest.raises(ValueError) as awaiting:
        asyncio.run(authority.asession(RUN, **named))
    said = [str(blocking.value), str(awaiting.value)]
    assert said[0] == said[1]
    return said


@pytest.mark.parametrize(
    "named", [{}, {"user": None}, {"key": "k1"}, {"feature": "search"}, {"user": None, "key": "k1", "team": "t1"}]
)
def test_a_session_under_none_of_the_ceilings_is_refused_with_the_remedy(named: dict[str, Any]) -> None:
    said, _ = both(BudgetAuthority(ceilings={"user": DAILY}), **named)
    assert "user=..." in said and "require=()" in said and "none of the ceilings" in said


def test_one_of_several_is_enough_unless_all_are_required() -> None:
    ceilings = {"user": DAILY, "key": DAILY}
    BudgetAuthority(ceilings=ceilings).session(RUN, key="k1")
    said, _ = both(BudgetAuthority(ceilings=ceilings, require=("user", "key")), key="k1")
    assert "user=None" in said and 'session(..., user="...")' in said


def test_a_limit_of_live_runs_is_a_ceiling_too() -> None:
    both(BudgetAuthority(max_live_runs={"team": 2}), user="u1")
    BudgetAuthority(max_live_runs={"team": 2}).session(RUN, team="t1").close()


@pytest.mark.parametrize("options", [{}, {"ceilings": {"user": DAILY}, "require": ()}])
def test_nothing_is_required_where_nothing_holds_or_it_was_said_so(options: dict[str, Any]) -> None:
    BudgetAuthority(**options).session(RUN)


def test_a_name_that_is_empty_is_refused_whatever_is_required() -> None:
    with pytest.raises(ValueError, match="user=''"):
        BudgetAuthority(require=()).session(RUN, user="")


def test_a_guard_without_a_principal_is_refused_as_well() -> None:
    names: dict[str, Any] = {"user": None, "key": None, "team": None, "feature": None, "pricing": None}
    with pytest.raises(ValueError, match="none of the ceilings"):
        open_session(BudgetAuthority(ceilings={"user": DAILY}), RUN, None, **names)


def test_a_kind_of_ones_own_has_a_ceiling_is_cut_off_and_looked_at() -> None:
    authority = BudgetAuthority(kinds=("org",), ceilings={"org": DAILY, "user": Budget("$9")})
    session = authority.session(RUN, org="acme", user="u1")
    for _ in range(3):
        session.authorize(ToolCall("search", DIME)).require().commit_cost()
    error: Any = session.authorize(ToolCall("search", DIME)).error
    assert error.scope == "org:acme"
    assert authority.snapshot("org", "acme").remaining_usd == 0
    authority.set_ceiling("org", "acme", Budget("$1", window="day"))
    authority.revoke("org", "acme", reason="unpaid")
    assert authority.snapshot("org", "acme").revoked
    assert authority.restore("org", "acme")
    assert len(authority.decisions("org", "acme")) == 4
    assert session.report().tags == {"user": "u1", "org": "acme"}


def test_a_second_window_may_also_be_a_kind_of_its_own() -> None:
    authority = BudgetAuthority(
        ceilings={"user": DAILY, "user_month": Budget("$0.40", window="month")}, kinds=("user_month",)
    )
    session = authority.session(RUN, user="u1", user_month="u1")
    session.authorize(ToolCall("search", DIME)).require().commit_cost()
    assert authority.snapshot("user_month", "u1").spent_usd == authority.snapshot("user", "u1").spent_usd


def test_a_kind_that_has_a_ceiling_need_not_be_named_as_well() -> None:
    authority = BudgetAuthority(ceilings={"customer": DAILY}, plans={"pro": {"org": Budget("$9")}}, require=("org",))
    with pytest.raises(ValueError, match=r"org=None names nobody.*require=\('org',\)"):
        authority.session(RUN, customer="c1")
    session = authority.session(RUN, customer="c1", org="acme")
    assert session.report().tags == {"customer": "c1", "org": "acme"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ceilings": {"users": DAILY}}, ["'users' is not known", "did you mean 'user'?", "kinds=('users',)"]),
        ({"ceilings": {"Org!": DAILY}}, ["the kind 'Org!' is not known", "'user'"]),
        ({"plans": {"free": {"keys": DAILY}}}, ["'keys' is not known", "did you mean 'key'?"]),
        ({"plans": {"free": {"run": DAILY}}}, ["'run' is not known", "the budget of its session"]),
        ({"plans": {"free": {}}}, ["plans['free']={} names no kind", "use plans="]),
        ({"plans": {"": {"user": DAILY}}}, ["plans: '' is no name of a plan"]),
        ({"plans": ["free"]}, ["plans=['free'] is no mapping"]),
        ({"plans": {"free": {"user": Budget("$1", mode="soft_gate")}}}, ["plans['free']['user'] sets mode"]),
        ({"ceilings": {"user": []}}, ["ceilings['user'] has no budget"]),
        ({"ceilings": {"user": [DAILY, DAILY]}}, ["ceilings['user'] has two budgets with window='day'"]),
        ({"ceilings": {"user": [DAILY, Budget("$9", task="x")]}}, ["ceilings['user'][1] sets task='x'"]),
        ({"require": ("org",)}, ["require: the kind 'org'", r"kinds=('org',)"]),
        ({"require": "user"}, ["require='user' is a text", '("user",)']),
        ({"kinds": "org"}, ["kinds='org' is a text", "kinds=('org',)"]),
        ({"kinds": ("run",)}, ["'run'", "taken"]),
        ({"kinds": ("pricing",)}, ["'pricing'", "taken"]),
        ({"kinds": ("live",)}, ["'live'", "taken"]),
        ({"kinds": ("user:x",)}, ["'user:x'", "no name"]),
        ({"kinds": (5,)}, ["5", "no name"]),
    ],
)
def test_kinds_that_make_no_sense_are_refused_with_the_remedy(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        BudgetAuthority(**options)
    for each in words:
        assert each in str(caught.value)


def test_a_principal_of_an_unknown_kind_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"session\(\) takes no org=.*kinds=\('org',\)"):
        BudgetAuthority().session(RUN, org="acme")
    with pytest.raises(TypeError, match=r"session\(\) takes no usr=: did you mean user\?"):
        BudgetAuthority().session(RUN, usr="acme")
    with pytest.raises(TypeError, match=r"session\(\) takes no orgs=: did you mean org\?"):
        BudgetAuthority(ceilings={"org": DAILY}).session(RUN, orgs="acme")


def test_a_ledger_in_the_place_of_an_authority_is_told_apart() -> None:
    names: dict[str, Any] = {"user": None, "key": None, "team": None, "feature": None, "pricing": None}
    ledger: Any = MemoryLedger()
    with pytest.raises(TypeError, match=r"is no BudgetAuthority: for a ledger alone write ledger="):
        open_session(ledger, RUN, None, **names)
    with pytest.raises(ValueError, match=r"ledger= is set, and authority= too"):
        open_session(BudgetAuthority(), RUN, None, ledger=ledger, **names)
    open_session(None, RUN, "r", ledger=ledger, **names)
    assert ledger.balances((Scope("run", "r"),))
