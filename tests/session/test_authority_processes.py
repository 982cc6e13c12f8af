"""Ceilings and revocations reach every process that uses the ledger: a file of this host, or a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, Ledger

ROOT = Path(__file__).parents[2]


class Worker:
    """A process with one session."""

    def __init__(self, url: str, user: str, leased: bool) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.session.authority_worker", url, user, "leased" if leased else "direct"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def told(self, calls: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()

    def says(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def calls(self, count: int) -> list[list[str]]:
        self.told(count)
        answers: list[list[str]] = self.says()
        return answers

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.mark.parametrize("leased", [False, True], ids=["direct", "leased"])
def test_a_ceiling_and_a_revocation_reach_every_process(url: str, ledger: Ledger, leased: bool) -> None:
    workers = [Worker(url, user, leased) for user in ("u1", "u1", "u2")]
    runs = [worker.says() for worker in workers]
    authority = BudgetAuthority(ledger, {"user": Budget("$1.00", window="month")})

    for worker in workers[:2]:
        worker.told(8)  # at the same time
    actions = [action for worker in workers[:2] for action, _ in worker.says()]
    if not leased:  # a lease of one may be in the way of the other for a while
        assert (actions.count("allow"), actions.count("block")) == (10, 6)
    assert authority.snapshot("user", "u1").committed["max_requests"] <= 10

    authority.set_ceiling("user", "u1", Budget("$9.00", window="month"))
    assert workers[0].calls(2)[-1][0] == "allow"
    authority.revoke("user", "u1", reason="compromised")
    at = authority.snapshot("user", "u1").revoked_at
    assert at is not None
    for worker in workers[:2]:
        action, reason = worker.calls(2)[-1]
        assert (action, reason) == (
            "block",
            f"user:u1 was revoked at {at.isoformat(timespec='seconds')}: compromised",
        )
    assert workers[2].calls(1) == [["allow", ""]]

    for worker in workers:
        worker.end()
    for run, user in zip(runs, ("u1", "u1", "u2"), strict=True):
        assert authority.snapshot("run", run).reserved_usd == authority.snapshot("user", user).reserved_usd == 0
    spent = [authority.snapshot("run", run).spent_usd for run in runs]
    assert authority.snapshot("user", "u1").spent_usd == spent[0] + spent[1]
    assert ledger.audit() == []


async def test_everything_can_be_awaited(ledger: Ledger) -> None:
    authority = BudgetAuthority(ledger, {"team": Budget("$1")}, max_live_runs={"team": 1})
    async with await authority.asession(Budget("$1"), team="t") as session:
        await session.acharge("serp", "$0.25")
        async with await session.achild(Budget("$0.50")) as child:
            await child.acharge("serp", "$0.10")
        assert (await authority.asnapshot("team", "t")).spent_usd == session.spent_usd
        assert (await authority.asnapshot("team", "t")).live_runs == 1
    await authority.arevoke("run", session.id, reason="done")
    assert (await authority.asnapshot("run", session.id)).revoked
    assert await authority.arestore("run", session.id)
    assert (await authority.asnapshot("team", "t")).live_runs == 0
