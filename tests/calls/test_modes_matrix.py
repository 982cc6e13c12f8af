"""What each mode does with each call, as one table: fits or not, a cheaper model or none, a cap set or not."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from budget_guard import Budget, BudgetAuthority, Usage
from budget_guard.protocol import budget_headers, decision_record
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, apart, call

HARD, SOFT, ADVISORY, ACTUALS = "hard_gate", "soft_gate", "advisory_estimate", "actuals_only"


class Row(NamedTuple):
    """One call, of 1,000 output tokens at 10,000 nano-dollars, $0.01, if it does not say otherwise."""

    mode: str
    what: str
    """Of $0.0205: ``fits`` with nothing spent, ``over`` with $0.0201 spent, ``gone`` with all of it."""
    action: str
    cap: int | None = 1_000
    """The cap that is sent."""
    clamped: bool = False
    asked: int | None = 1_000
    """The cap that the caller sets."""
    budget: dict[str, Any] = {}  # noqa: RUF012  # never changed
    ceiling: str | None = None
    """The mode of a user's ceiling of $0.005."""
    name: str = "large"


CHEAPER: dict[str, Any] = {"downgrade": {"large": "small"}}
MARGIN: dict[str, Any] = {"soft_margin_usd": "0.0096"}
MOST: dict[str, Any] = {"call_max_output_tokens": 600}
NEVER: dict[str, Any] = {"clamp_output": "never", **MOST}
REJECT: dict[str, Any] = {"clamp_output": "reject", **MOST}
TABLE = [
    # what fits is allowed in every mode
    *(Row(mode, "fits", "allow") for mode in (HARD, SOFT, ADVISORY, ACTUALS)),
    # what does not
    Row(HARD, "over", "block"),
    Row(SOFT, "over", "allow"),
    Row(SOFT, "over", "allow", budget=MARGIN),
    Row(SOFT, "over", "block", budget={"soft_margin_usd": "0.0095"}),
    Row(ADVISORY, "over", "advisory_warn"),
    Row(ACTUALS, "over", "allow"),
    # and what comes where nothing is left
    Row(HARD, "gone", "block"),
    Row(SOFT, "gone", "block"),
    Row(SOFT, "gone", "block", budget=MARGIN),
    Row(SOFT, "gone", "allow", budget={"soft_margin_usd": "0.01"}),
    Row(ADVISORY, "gone", "advisory_warn"),
    Row(ACTUALS, "gone", "block"),
    # with a cheaper model: $0.001
    Row(HARD, "over", "block", budget=CHEAPER),
    Row(SOFT, "over", "downgrade", budget=CHEAPER, name="small"),
    Row(ADVISORY, "over", "advisory_warn", budget=CHEAPER, name="small"),
    Row(ACTUALS, "over", "downgrade", budget=CHEAPER, name="small"),
    Row(HARD, "over", "downgrade", asked=300, cap=300, budget=CHEAPER, name="small"),
    Row(ADVISORY, "over", "downgrade", asked=300, cap=300, budget=CHEAPER, name="small"),
    # a cap above the policy: lowered and told, or refused
    Row(HARD, "fits", "allow", cap=600, clamped=True, budget=MOST),
    Row(SOFT, "fits", "allow", cap=600, clamped=True, budget=MOST),
    Row(ADVISORY, "fits", "allow", cap=600, clamped=True, budget=MOST),
    Row(ACTUALS, "fits", "allow", budget=MOST),
    Row(HARD, "fits", "block", budget=REJECT),
    Row(SOFT, "fits", "block", budget=REJECT),
    Row(ADVISORY, "fits", "advisory_warn", budget=REJECT),
    Row(ACTUALS, "fits", "block", budget=REJECT),
    Row(HARD, "fits", "allow", asked=600, cap=600, budget=REJECT),
    # none set: the policy's, what is left is worth, or none
    Row(HARD, "fits", "allow", asked=None, cap=600, clamped=True, budget=NEVER),
    Row(HARD, "fits", "allow", asked=None, cap=600, clamped=True, budget=REJECT),
    Row(HARD, "over", "block", asked=None, cap=None, budget=NEVER),
    Row(HARD, "fits", "block", asked=None, cap=None, budget={"clamp_output": "never"}),
    Row(HARD, "fits", "allow", asked=None, cap=2_050, clamped=True),
    Row(SOFT, "fits", "allow", asked=None, cap=None),
    Row(ADVISORY, "fits", "allow", asked=None, cap=None),
    Row(ACTUALS, "fits", "allow", asked=None, cap=None),
    # a ceiling above the run, which is never softer than the run's mode makes it
    Row(HARD, "fits", "block", ceiling=HARD),
    Row(HARD, "fits", "advisory_warn", ceiling=ADVISORY),
    Row(HARD, "over", "block", ceiling=ADVISORY),
    Row(SOFT, "fits", "allow", ceiling=HARD),
    Row(SOFT, "fits", "advisory_warn", ceiling=ADVISORY),
    Row(ADVISORY, "fits", "advisory_warn", ceiling=HARD),
    Row(ADVISORY, "fits", "advisory_warn", ceiling=ADVISORY),
    Row(ACTUALS, "fits", "allow", ceiling=HARD),
]


def told(row: Row) -> str:
    budget = ",".join(f"{name}={value}" for name, value in row.budget.items())
    return f"{row.mode}-{row.what}-{row.asked}-{budget}-{row.ceiling}"


@pytest.mark.parametrize("row", TABLE, ids=told)
def test_each_mode_does_with_each_call_what_the_table_says(way: Way, row: Row) -> None:
    mode: Any = row.mode
    ceilings = {} if row.ceiling is None else {"user": Budget("$0.005", mode=row.ceiling)}  # type: ignore[arg-type]  # one of the modes
    of = BudgetAuthority(ceilings=ceilings, pricing=PRICES, clock=FakeClock(), require=())
    run = of.session(Budget("$0.0205", mode=mode, max_wait_s=0, **row.budget), user="u1")
    spent = {"fits": 0, "over": 2_010, "gone": 2_050}[row.what]
    if spent:
        run.charge_call(call("large"), Usage(output=spent))
    before = run.spent_usd, run.reserved_usd
    decision = way.authorize(run, call("large", tokens=0, cap=row.asked))
    assert decision.action == row.action, decision
    headers = dict(budget_headers(mode=mode, run_id=run.id, decision=decision))
    record = json.loads(json.dumps(decision_record(decision, mode=mode)))
    assert headers["X-Budget-Decision"] == record["decision"] == row.action
    assert record["client_requested_max_output_tokens"] == row.asked
    if row.action == "block":
        assert decision.reservation is None and decision.error is not None and record["code"]
        assert (run.spent_usd, run.reserved_usd) == before and "X-Budget-Reservation-Id" not in headers
        return
    assert decision.error is None and decision.reservation is not None
    assert (decision.name, decision.output_cap) == (row.name, row.cap)
    assert ("X-Budget-Output-Clamped" in headers) is record["output_clamped"] is row.clamped
    assert record["effective_max_output_tokens"] == row.cap
    assert (decision.reason != "") is (row.action != "allow")
    assert apart(run.authorize, call("large", tokens=0, cap=1)).id != decision.id  # and goes on
