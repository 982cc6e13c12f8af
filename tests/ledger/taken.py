"""What 8 processes spend of one ceiling while something is taken away from their ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROCESSES = 8


def paid_by_8_processes(url: str, take_away: Callable[[], None], sessions: int = 60) -> tuple[int, int]:
    """Let 8 processes spend from *url*, and *take_away* after the first 20 calls; how many were paid for, and refused.

    The ceiling is 100 calls.
    """
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.taken_worker", url, str(number), str(sessions)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    first = workers[0]
    assert first.stdout is not None
    before = [first.stdout.readline() for _ in range(5)]
    take_away()
    lines = before
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert (worker.returncode, err) == (0, ""), err
        lines += out.splitlines(keepends=True)
    return lines.count("paid\n"), lines.count("refused\n")
