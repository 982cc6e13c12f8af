"""A priced tool runs exactly as often as the ceiling of its user pays for, in however many processes."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from budget_guard import Budget, BudgetAuthority, Ledger

ROOT = Path(__file__).parents[2]
PROCESSES, CALLS = 8, 40


def start(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.session.tracking_worker", url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def tell(worker: subprocess.Popen[str], line: object) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def says(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())


def test_in_eight_processes_exactly_as_many_bodies_run_as_fit_and_a_revocation_stops_all(
    url: str, ledger: Ledger
) -> None:
    workers = [start(url) for _ in range(PROCESSES)]
    assert [says(worker) for worker in workers] == ["ready"] * PROCESSES
    for worker in workers:
        tell(worker, CALLS)
    answers = [says(worker) for worker in workers]
    assert sum(ran for ran, _ in answers) == 100
    assert sum(refused for _, refused in answers) == PROCESSES * CALLS - 100
    authority = BudgetAuthority(ledger, {"user": Budget("$1.00")})
    user = authority.snapshot("user", "u1")
    assert (user.spent_usd, user.reserved_usd) == (Decimal("1.00"), Decimal(0))

    authority.set_ceiling("user", "u1", Budget("$9.00"))
    authority.revoke("user", "u1", reason="compromised")
    for worker in workers[:2]:
        tell(worker, "cut off?")
        assert says(worker) == ["compromised"] * 3
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
