"""`serve` as a command: processes that share a ledger, are stopped, and are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

pytest.importorskip("aiohttp")

from budget_guard import BudgetAuthority, open_ledger
from budget_guard.ledger import reconcile
from budget_guard.testing import FakeClock, LocalProvider, Reply
from tests.integrations.gateway.support import RATES, TOKEN, asked

ROOT = Path(__file__).parents[3]


@contextmanager
def served(
    provider: LocalProvider, ledger: str, *options: str, ready: bool = True
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway in processes of its own, and its address."""
    command = [sys.executable, "-m", "budget_guard_gateway", "serve", "--port", "0", "--run-budget", "$1.00"]
    command += ["--upstream", f"openai={provider.root_url}", "--price", "dime=0,6250", "--ledger", ledger, *options]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its processes can be ended together
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        for _ in range(1_200 if ready else 0):
            try:
                httpx.get(f"{url}/health/ready")
                break
            except httpx.TransportError:
                threading.Event().wait(0.05)
        yield process, url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


async def ask_all(url: str, count: int, run: str = "r1") -> list[int]:
    path, body = asked("chat")
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:

        async def ask() -> int:
            try:
                return (await http.post(path, json=body, headers={**TOKEN, "x-run-id": run})).status_code
            except httpx.TransportError:
                return 0

        return await asyncio.gather(*(ask() for _ in range(count)))


def test_two_processes_admit_what_fits_once_and_book_what_does_not_end_in_time_when_they_are_stopped(
    tmp_path: Path,
) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    reply = Reply(output_tokens=16)
    with LocalProvider(lambda _: reply, prices=RATES) as provider:
        with served(provider, ledger, "--workers", "2", "--grace", "1") as (process, url):
            assert Counter(asyncio.run(ask_all(url, 30))) == {200: 10, 402: 20}
            assert provider.bill_usd == 1
            provider.pause()
            late: list[list[int]] = []
            asking = threading.Thread(target=lambda: late.append(asyncio.run(ask_all(url, 2, "late"))))
            asking.start()
            provider.wait_for_calls(12)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            asking.join(30)
            assert late in ([[503, 503]], [[0, 0]], [[503, 0]], [[0, 503]])
        provider.resume()
        authority = BudgetAuthority(ledger)
        assert authority.snapshot("run", "r1").spent_usd == 1
        found = authority.snapshot("run", "late")
        assert (found.spent_usd, found.reserved_usd) == (Decimal("0.2"), Decimal(0))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_that_is_stopped_while_it_starts_ends(tmp_path: Path, workers: str) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with LocalProvider(Reply()) as provider, served(provider, ledger, "--workers", workers, ready=False) as started:
        process, _ = started  # it has said where it will listen, and loads what it needs
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_no_call_is_lost_where_the_terminal_hangs_up(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with LocalProvider(Reply(output_tokens=16), prices=RATES) as provider:
        provider.pause()
        with served(provider, ledger) as (process, url):
            answers: list[list[int]] = []
            asking = threading.Thread(target=lambda: answers.append(asyncio.run(ask_all(url, 3))))
            asking.start()
            provider.wait_for_calls(3)
            process.send_signal(signal.SIGHUP)
            provider.resume()
            asking.join(30)
            assert answers == [[200, 200, 200]]
            assert process.wait(30) in (0, -signal.SIGTERM)
        assert BudgetAuthority(ledger).snapshot("run", "r1").spent_usd == provider.bill_usd == Decimal("0.3")


def test_what_a_killed_gateway_had_sent_stays_counted_until_it_is_reconciled(tmp_path: Path) -> None:
    file = tmp_path / "budget.db"
    with LocalProvider(Reply(output_tokens=16), prices=RATES) as provider:
        provider.pause()
        with served(provider, f"sqlite:///{file}") as (process, url):
            asking = threading.Thread(target=lambda: asyncio.run(ask_all(url, 4)))
            asking.start()
            provider.wait_for_calls(4)
            process.kill()
            asking.join(30)
        provider.resume()
        provider.wait_until_idle()
        ledger = open_ledger(f"sqlite:///{file}")
        found = BudgetAuthority(ledger).snapshot("run", "r1")
        assert (found.spent_usd, found.reserved_usd) == (Decimal(0), Decimal("0.4"))
        ledger.close()
        clock = FakeClock()
        from budget_guard.ledger.sqlite import SqliteLedger

        later = SqliteLedger(str(file), clock=clock)
        clock.advance((_now() - clock.now()).total_seconds() + 7_200)
        assert len(reconcile.reconcile(later)) == 4
        assert BudgetAuthority(later).snapshot("run", "r1").spent_usd == Decimal("0.4") >= provider.bill_usd
        later.close()


def _ignores_hangup(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & 1)
    return False


def _children(pid: int) -> set[int]:
    """The processes that *pid* has started and that run."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ends meanwhile
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.add(int(stat.parent.name))
    return found


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_workers_whose_parent_is_killed_finish_their_calls_and_end(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with LocalProvider(Reply(output_tokens=16), prices=RATES) as provider:
        provider.pause()
        with served(provider, ledger, "--workers", "2") as (process, url):
            workers = _children(process.pid)
            assert len(workers) >= 2
            for _ in range(1_200):  # one of them may be starting still
                if sum(map(_ignores_hangup, _children(process.pid))) == 2:  # whoever started them stops them
                    break
                threading.Event().wait(0.05)
            else:
                raise AssertionError("a terminal that hangs up kills a process, and the calls in it")
            answers: list[list[int]] = []
            asking = threading.Thread(target=lambda: answers.append(asyncio.run(ask_all(url, 4))))
            asking.start()
            provider.wait_for_calls(4)
            process.kill()
            process.wait(10)
            provider.resume()
            asking.join(30)
            assert answers == [[200] * 4]
            for _ in range(600):
                if not any(map(_runs, workers)):
                    break
                threading.Event().wait(0.05)
            assert not any(map(_runs, workers))
        assert BudgetAuthority(ledger).snapshot("run", "r1").spent_usd == Decimal("0.4") == provider.bill_usd


def _now() -> datetime:
    return datetime.now(timezone.utc)
