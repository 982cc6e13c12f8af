"""Every example runs, offline, and prints what its docstring says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.forked import Done, run_script

pytest.importorskip("agents")
pytest.importorskip("langchain_openai")
pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

LINES = {
    "quickstart": ["Take an umbrella.", "Total spend: $0.0072 | Remaining: $0.9928", "The provider's bill: $0.00715"],
    "downgrade": ["gpt-4o -> gpt-4o-mini", "gpt-4o-mini  $0.00", "Found it.", "The agent's model is still gpt-4o."],
    "streaming": ["Money that is held cannot be spent twice.\nTotal spend: $0.0001", "Uncertain: $0.00"],
    "sub_agents": ["Stopped by max_requests=8", "Editor  ", "Researcher  "],
    "composite_hooks": ["Poet: ", "Total spend: $0.00"],
    "shared_ceilings": [
        "ada: refused: max_cost_usd=$0.30 of user:ada",
        "key leaked\nbob: answered",
        "ada spent $0.4525, holds $0, may have $0.5475 more today",
        "research spent $0.6335 this month",
    ],
    "resume": [
        "Stopped by max_requests=2 after ordering ['ink', 'paper']",
        "All three are ordered.",
        "Ordered: ['ink', 'paper', 'pens']",
    ],
    "any_code": [
        "I will look for one.\nStopped: search repeats itself, 6 times by now\nTotal spend: $0.0650",
        "For models: $0.0050075\nThe run was stopped\nThe provider's bill: $0.0050075",
    ],
    "agent_handles": [
        "writer-7: answered\nwriter-7: BudgetExceeded: max_cost_usd=$0.0150 of agent_in_run:",
        "research-agent-42: answered\nresearch-agent-42: BudgetRevoked: agent:research-agent-42 was revoked",
        "research-agent-42 spent $0.0100075\nThe provider's bill: $0.020015",
    ],
    "guarded_clients": [
        "Because the air scatters blue light.\nYes.\nTotal spend: $0.0080",
        "Stopped by max_cost_usd\nSpent: $0.096048\nThe provider's bill: $0.096048",
    ],
    "guarded_http_clients": ["No.\ngpt-4o-mini ", "text-embedding-3-small   $0.0000", "The provider's bill: $0.0000"],
    "guarded_sdks": ['google.genai: {"reason": "the air scatters blue light"}\n', "The provider's bill: $0.0000515"],
    "product_fastapi": [
        "ada a1: 402 {'error': 'The budget for this did not last to the end of the answer.'}",
        "ada a2: 402 {'error': 'The budget for this is used up. It begins anew at ",
        "bob b1: 200 {'answer': 'Turn it off and on.', 'left': '$0.035'}\nThe provider's bill: $0.0943",
    ],
    "team_langgraph": [
        "tides      $0.050 (writer $0.050, critic $0.000) done",
        "stopped by max_cost_usd\nSuggested cap: $0.12",
    ],
    "platform_redis": [
        "ada: 4 of 5 served; The budget for this is used up. It begins anew at ",
        "ada: served\ncy: This was stopped by whoever runs it.\nbob spent $0.3001\nada spent $0.1000\n",
        "ada, gpt-4o: 5 calls, $0.1000\nada, pro: $4.90",
    ],
    "overnight_script": [
        "The machine restarts: 40 are rated.\n79 are rated. The budget for this is used up.",
        "| LLM: $1.98 | Tools: $0.00 | Calls: 79 | Stopped by: max_cost_usd",
        "The provider's bill: $1.976755",
    ],
    "langchain_quickstart": [
        "Take an umbrella.",
        "Total spend: $0.0072 | Remaining: $0.9928",
        "The provider's bill: $0.00715",
    ],
    "langchain_middleware": [
        "gpt-4.1      $0.008",
        "gpt-4.1-mini $0.001",
        "Ended: Budget exceeded: max_cost_usd=$0.04",
        "Next turn: I found nothing.",
    ],
    "langchain_human_approval": [
        "Asked: max_requests=2 of run:",
        "Ordered so far: ['ink', 'paper']",
        "All three are ordered.\nOrdered: ['ink', 'paper', 'pens']",
    ],
    "langchain_fallbacks": [
        way + 3 * "  gpt-4o       $0.010012\n" + 2 * "  gpt-4o-mini  $0.000601\n"
        for way in ("with_fallbacks:\n", "budgeted_model:\n")
    ],
}


def run(name: str) -> Done:
    """Run an example as a user would, in an environment without any key."""
    return run_script(EXAMPLES / f"{name}.py")


@pytest.mark.parametrize("name", LINES)
def test_an_example_prints_what_it_promises(name: str) -> None:
    done = run(name)

    assert done.returncode == 0, done.stderr
    for line in LINES[name]:
        assert line in done.stdout


def test_the_demo_shows_two_bills_and_two_ledgers_that_agree() -> None:
    done = run("overspend_demo")

    assert done.returncode == 0, done.stdout + done.stderr
    bills = re.search(r"Provider's bill +\$([\d.]+) +\$([\d.]+)", done.stdout)
    guards = re.search(r"Guard's ledger: +\$(\d\.\d{9})\n", done.stdout)
    providers = re.search(r"Provider's ledger: +\$(\d\.\d{9})\n", done.stdout)
    assert bills and guards and providers
    assert guards[1] == providers[1]
    assert float(bills[2]) <= 0.50 < 3 < float(bills[1])
    assert "They agree to the nano-dollar." in done.stdout


def test_every_example_is_tested_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("[!_]*.py")}
    listed = set(re.findall(r"^\| `(\w+)\.py`", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE))

    assert names == {*LINES, "overspend_demo"} == listed
