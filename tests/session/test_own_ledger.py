"""One run's budget survives a restart without an authority; and every verb that may block has a twin to await."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, MemoryLedger, Session
from budget_guard.adapter.handle import SessionHandle, SessionSettings
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.verbs import LedgerWrapper

ROOT = Path(__file__).parents[2]


def test_the_budget_of_a_run_survives_a_restart(tmp_path: Path) -> None:
    program = f"""
from budget_guard import Budget
with Budget("$1.00").session(ledger="sqlite:///{tmp_path}/budget.db", run_id="nightly") as session:
    session.charge("search", "0.40")
    print(session.remaining_usd)
"""
    for left in ("0.6", "0.2"):
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
        )
        assert ran.stdout.strip() == left, ran.stderr


def test_a_ledger_can_be_given_as_it_is_or_by_its_url(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    with Budget("$1.00").session(ledger=ledger, run_id="r", user="u", team="t", feature="f") as session:
        session.charge("search", "0.40")
        assert session.report().tags == {"user": "u", "team": "t", "feature": "f"}
    assert Budget("$1.00").session(ledger=ledger, run_id="r").spent_usd == Decimal("0.4")
    authority = BudgetAuthority(f"sqlite:///{tmp_path}/budget.db", {"user": Budget("$1")})
    assert isinstance(authority.ledger, SqliteLedger)
    authority.ledger.close()
    with pytest.raises(ValueError, match="url="):
        Budget("$1.00").session(ledger="budget.db")


def test_all_sessions_of_one_guard_use_one_ledger(tmp_path: Path) -> None:
    nobody: Any = dict.fromkeys(("authority", "user", "key", "team", "feature", "pricing"))
    settings = SessionSettings(**nobody, ledger=f"sqlite:///{tmp_path}/budget.db")
    opened = settings.ledger
    assert isinstance(opened, SqliteLedger)
    assert SessionSettings(**vars(settings)).ledger is opened
    settings.open(Budget("$1"), "r").charge("search", "0.40")
    assert settings.open(Budget("$1"), "r").spent_usd == Decimal("0.4")
    assert settings.open(Budget("$1"), "r", shared=False).spent_usd == 0
    opened.close()


class Unblocking(LedgerWrapper):
    """A ledger whose blocking verbs must not be used."""

    def _perform(self, verb: Any, *arguments: Any, **named: Any) -> Any:
        if self.armed:
            raise AssertionError(f"{verb.__name__} blocks")
        return super()._perform(verb, *arguments, **named)

    armed = False


class Handle(SessionHandle):
    def __init__(self, session: Session) -> None:
        self.session = session


def test_every_verb_that_may_block_can_be_awaited() -> None:
    ledger = Unblocking(MemoryLedger())
    session = Session(Budget("$1.00", max_requests=5), ledger=ledger, run_id="r")
    session.charge("search", "0.40")
    ledger.armed = True

    async def look(of: Session | Handle) -> None:
        assert await of.aspent_usd() == Decimal("0.4")
        assert (await of.areport()).total_spent == Decimal("0.4")
        await of.araise_limits(max_cost_usd="$2.00")
        assert of.budget.max_cost_usd == 2
        await of.arevoke("enough")
        assert (await of.areport()).terminated_by == "revoked"

    asyncio.run(look(session))
    asyncio.run(look(Handle(session)))
    assert session.times_raised == 2
    ledger.armed = False
    assert ledger.balances((session.scope,))[0].revoked is not None


def test_raises_at_the_same_time_all_hold() -> None:
    session = Session(Budget("$1.00", max_requests=5), ledger=LedgerWrapper(MemoryLedger()))

    async def raise_all() -> None:
        await asyncio.gather(
            *(session.araise_limits(max_cost_usd=f"${number}.00") for number in (2,)),
            session.araise_limits(max_requests=9),
            session.araise_limits(max_requests=9),
        )

    asyncio.run(raise_all())
    assert (session.budget.max_cost_usd, session.budget.max_requests) == (Decimal(2), 9)
    assert session.times_raised == 3
    limits = session.ledger.balances((session.scope,))[0].limits
    assert (limits.cost, limits.requests) == (2_000_000_000, 9)
