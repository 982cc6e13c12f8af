"""LiteLLM's proxy with no budget, with LiteLLM's own, and with ours: overshoot, useful share, CPU per request.

Each proxy is the real one, in a process of its own, in front of a provider on this machine that bills $0.10 an answer,
and one key may spend $1.00. ``PYTHONPATH=.:integrations python benchmarks/litellm_budgets.py``, in an environment that
has ``litellm[proxy]``. LiteLLM's own budget is that of a key, which it keeps in memory where it has no database.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from budget_guard.testing import LocalProvider, Reply
from tests.integrations.litellm.support import BODIES, RATES, TOKEN, Proxy, deployment, proxy

KEY_OF = """
import hashlib
from litellm.proxy._types import UserAPIKeyAuth

async def known(request, api_key):
    key = hashlib.sha256(api_key.encode()).hexdigest()
    return UserAPIKeyAuth(api_key=key, token=key, key_alias="key", user_id="user", max_budget={budget})
"""
COST: dict[str, Any] = {"input_cost_per_token": 0, "output_cost_per_token": 0.00625}
SUBJECTS = ("no budget", "LiteLLM's own", "budget_guard")
CALLS = 150


@contextmanager
def set_up(subject: str, limit: float, provider: LocalProvider) -> Iterator[Proxy]:
    """A proxy with one key that may spend *limit* dollars."""
    own = limit if subject == "LiteLLM's own" else None
    ours = {
        "BUDGET_GUARD_RUN_BUDGET": f"{limit}",
        "BUDGET_GUARD_CEILING": f"key={limit}",
        "BUDGET_GUARD_MAX_WAIT": "30",
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "who.py").write_text(KEY_OF.format(budget=own), "utf-8")
        general = {"custom_auth": "who.known", "custom_auth_run_common_checks": True}
        models = [deployment("dime", provider, **COST)]
        guarded = subject == "budget_guard"
        with proxy(Path(folder), models, environment=ours, general=general, guarded=guarded) as running:
            yield running


def answered(provider: LocalProvider) -> Decimal:
    return Decimal("0.1") * sum(call.outcome == "completed" for call in provider.calls)


def told(provider: LocalProvider) -> str:
    bill = provider.bill_usd
    return f"bill ${bill:.2f}, over ${max(Decimal(0), bill - 1):.2f}, useful {min(Decimal(1), answered(provider)):.2f}"


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of(running: Proxy, client: httpx.Client, **fields: Any) -> float:
    path, body = BODIES["chat"]
    before = cpu_s(running.process.pid)
    for _ in range(CALLS):
        answer = client.post(running.url + path, json={**body, **fields}, headers=TOKEN)
        assert answer.status_code == 200, answer.text
    return (cpu_s(running.process.pid) - before) / CALLS * 1_000


def main() -> None:
    reply = Reply(text="x " * 16, output_tokens=16)
    for subject in SUBJECTS:
        print(f"\n{subject}")
        for words, cap in (
            ("100 at once, capped at what they cost", 16),
            ("100 at once, capped at four times that", 64),
        ):
            with LocalProvider(reply, prices=RATES) as provider, set_up(subject, 1.0, provider) as running:
                statuses = running.all_at_once(100, "chat", "run", max_tokens=cap)
                print(f"  {words}: {told(provider)}  {dict(statuses)}", flush=True)
                if cap == 16:
                    time.sleep(2)  # LiteLLM books after the answer
                    provider.reset()
                    late = [running.post("chat", run="run").status_code for _ in range(5)]
                    print(f"  five more, after them: bill ${provider.bill_usd:.2f}  {late}", flush=True)
        with LocalProvider(reply, prices=RATES) as provider, set_up(subject, 1.0, provider) as running:
            in_a_row = [running.post("chat", run="run").status_code for _ in range(14)]
            print(f"  14 one after the other: {told(provider)}  {in_a_row.count(200)} answered", flush=True)
        with LocalProvider(reply, prices=RATES) as provider, set_up(subject, 9_999.0, provider) as running:
            with httpx.Client(timeout=60) as client:
                cpu_of(running, client)
                rounds = [(cpu_of(running, client), cpu_of(running, client, stream=True)) for _ in range(3)]
            plain, streamed = (min(each) for each in zip(*rounds, strict=True))
            print(f"  CPU of the proxy per request, best of 3: JSON {plain:.2f} ms, SSE {streamed:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
