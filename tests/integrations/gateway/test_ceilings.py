"""Ceilings of the gateway that limit distinct runs, and those that refuse nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from budget_guard import Budget
from budget_guard.integrations.gateway import add_key
from budget_guard.protocol import problem_schema
from budget_guard.testing import LocalProvider
from tests.integrations.gateway.support import MESSAGES, gateway


@pytest.mark.parametrize("ledger", ["memory://", "sqlite:///{}/budget.db"], ids=["memory", "sqlite"])
def test_a_caller_may_begin_so_many_runs_and_go_on_with_each(
    provider: LocalProvider, tmp_path: Path, ledger: str
) -> None:
    ceilings = {"user": Budget("$50", window="day", max_runs=2)}
    with gateway(provider, ledger=ledger.format(tmp_path), ceilings=ceilings) as asking:
        assert [asking.ask(run=run).status_code for run in ("a", "b", "a", None, "b", "c")] == [
            200,
            200,
            200,
            429,
            200,
            429,
        ]
        refused = asking.ask(run="d")
        document = refused.json()
        jsonschema.validate(document, problem_schema())
        assert (document["code"], document["budget"]["scope"]) == ("too_many_runs", "user")
        assert "limit" not in document["budget"] and document["alternatives"] == []
        assert refused.headers["x-should-retry"] == "false" and 0 < int(refused.headers["retry-after"]) <= 86_400
        assert document["resets_at"] and refused.headers["x-budget-decision"] == "block"
        assert asking.ask(run="e", token="somebody else").status_code == 200
        assert len(provider.calls) == 5
        client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="anybody", default_headers={"X-Run-Id": "sdk"})
        ask: Any = {"model": "dime", "messages": MESSAGES, "max_tokens": 16}
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ask)
        assert caught.value.code == "too_many_runs"
        client.close()


def test_a_ceiling_that_refuses_nothing_is_told_and_one_beside_it_refuses(
    provider: LocalProvider, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    alice = add_key(keys, "alice", user="u1", team="t1")
    ceilings = {"user": Budget("$0.15", mode="advisory_estimate"), "team": Budget("$0.35")}
    with gateway(provider, "$5.00", keys=str(keys), ceilings=ceilings) as asking:
        answers = [asking.ask(run=f"r{n}", token=alice) for n in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 402]
        decided = [answer.headers["x-budget-decision"] for answer in answers]
        assert decided == ["allow", "advisory_warn", "advisory_warn", "block"]
        assert answers[-1].json()["code"] == "team_ceiling_reached"
        assert answers[1].headers["x-budget-remaining-usd"] == "0.15"  # of what refuses
        assert "u1" not in str([answer.headers for answer in answers])
