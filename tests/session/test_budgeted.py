"""`budgeted` takes what sessions take, and says what was meant by a keyword that they do not take."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetReport,
    ModelCall,
    Usage,
    budgeted,
    current_session,
    weigh,
)
from budget_guard.reporting import RunLog

RATES: dict[str, Any] = {"mine": {"input": 1, "output": 2, "max_output": 10}}


def ask() -> None:
    call = ModelCall("mine", weigh(messages="hi"), max_output_tokens=10)
    current_session().authorize(call, sent=True).require().commit(Usage(input=1_000_000))


def test_each_call_of_a_function_has_prices_a_record_and_callbacks(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    heard: list[BudgetReport] = []

    @budgeted(
        Budget(max_requests=1, task="ask"), per_million=RATES, run_log=log, on_hard_limit=heard.append, on_cancel="seen"
    )
    def twice() -> None:
        assert current_session().on_cancel == "seen"
        ask()
        ask()

    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            twice()
    assert [(each.task, each.outcome, each.cost_usd) for each in log] == [("ask", "stopped", Decimal(1))] * 2
    assert len(heard) == 2


async def test_a_function_of_an_authority_names_principals_of_its_kinds() -> None:
    authority = BudgetAuthority(ceilings={"org": Budget(max_requests=1)})

    @budgeted(Budget("$5"), authority=authority, org="acme", per_million=RATES)
    async def once() -> None:
        ask()

    await once()
    with pytest.raises(BudgetExceeded, match="org:acme"):
        await once()


def test_a_keyword_that_nobody_knows_is_refused_where_the_function_is_decorated() -> None:
    wrong: dict[str, Any] = {"usr": "u1"}
    with pytest.raises(TypeError, match=r"budgeted\(\) takes no usr=: did you mean user\?"):
        budgeted(Budget("$1"), **wrong)
    with pytest.raises(TypeError, match=r"budgeted\(\) takes no xyz=: use one of budget, authority, .*on_cancel$"):
        budgeted(Budget("$1"), xyz="acme")
    wrong = {"run_log": 5}
    with pytest.raises(TypeError, match="run_log=5 cannot be told anything"):
        budgeted(Budget("$1"), **wrong)
