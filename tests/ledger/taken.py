"""What 8 processes spend of one ceiling while something is taken away from their ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROCESSES = 8


def paid_by_8_processes(ledgers: Mapping[str, Callable[[], None]]) -> dict[str, int]:
    """Let 8 processes spend from each of *ledgers*, and take something away after their first calls.

    Args:
        ledgers: URLs, each with what takes something away. The ceiling in each is 100 calls.

    Returns:
        How many calls were paid for from each.
    """
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.taken_worker", str(number), *ledgers],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    paid: dict[str, int] = {}
    try:
        for url, take_away in ledgers.items():
            before = sum(_paid_until("ready", worker) for worker in workers)
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("go on\n")
                worker.stdin.flush()
            take_away()
            paid[url] = before + sum(_paid_until("done", worker) for worker in workers)
        assert [worker.wait(60) for worker in workers] == [0] * PROCESSES
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return paid


def _paid_until(word: str, worker: subprocess.Popen[str]) -> int:
    assert worker.stdout is not None
    paid = 0
    while (line := worker.stdout.readline()) != f"{word}\n":
        assert line == "paid\n", "it died"
        paid += 1
    return paid
