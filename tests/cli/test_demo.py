"""What the demo says of two runs. `tests/test_examples.py` has it run."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import BudgetReport
from budget_guard.cli import demo
from budget_guard.cli.main import main
from tests.reporting.runs import run

pytest.importorskip("agents")
pytest.importorskip("uvicorn")

REPORT = run(4).report()
SPENT = REPORT.total_spent


@pytest.mark.parametrize(
    ("bill", "code", "said"),
    [
        (SPENT, 0, ["They agree to the nano-dollar.", "The bill is within $0.50."]),
        (SPENT + 1, 1, ["THEY DO NOT AGREE.", "THE BILL IS ABOVE $0.50."]),
        (SPENT - Decimal("0.000000001"), 1, ["THEY DO NOT AGREE.", "The bill is within $0.50."]),
    ],
)
def test_it_says_whether_the_bills_agree_and_are_within_the_limit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bill: Decimal,
    code: int,
    said: Any,
) -> None:
    quiets: list[bool] = []

    async def both(*, quiet: bool) -> tuple[demo.Outcome, demo.Outcome, BudgetReport]:
        quiets.append(quiet)
        stopped = demo.Outcome(bill, Counter({"gpt-4o": 2, "gpt-4o-mini": 1}), "BudgetExceeded")
        return demo.Outcome(Decimal("3.5"), Counter({"gpt-4o": 40}), "MaxTurnsExceeded"), stopped, REPORT

    monkeypatch.setattr(demo, "_both", both)
    page = tmp_path / "report.html"
    assert main(["demo", "--html", str(page)]) == code
    assert page.read_text("utf-8").startswith("<!doctype html>")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:7] == [
        "",
        "Unguarded Guarded, $0.50",
        f"Provider's bill $3.5000 ${bill:.4f}",
        "Model calls 40 3",
        "gpt-4o 40 2",
        "gpt-4o-mini 0 1",
        "Ended by MaxTurnsExceeded BudgetExceeded",
    ]
    assert lines[8:-1] == [f"Guard's ledger: ${SPENT:.9f}", f"Provider's ledger: ${bill:.9f}", *said]
    assert main(["demo", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["agree"], told["within"]) == (said[0][:4] == "They", said[1][:3] == "The")
    assert told["guarded"] == {
        "bill_usd": f"{bill:f}",
        "calls": {"gpt-4o": 2, "gpt-4o-mini": 1},
        "ended_by": "BudgetExceeded",
    }
    assert quiets == [False, True]
