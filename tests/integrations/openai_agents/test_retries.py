"""The SDK's own retries: each attempt is a call of its own, and a stop of ours is never tried again."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, ModelRetrySettings, retry_policies
from agents.retry import RetryPolicy, RetryPolicyContext
from openai import APIStatusError

from budget_guard import Budget
from budget_guard.events import CallReleased
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, BudgetRevoked
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
    never_below,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
specs = pytest.mark.parametrize("spec", ["name", "instance"])

NO_DELAY = {"initial_delay": 0.0, "max_delay": 0.0, "jitter": False}


class Always:
    """A policy that tries anything again, and notes what it was asked about."""

    def __init__(self) -> None:
        self.asked: list[BaseException] = []

    def __call__(self, context: RetryPolicyContext) -> bool:
        self.asked.append(context.error)
        return True


def retrying(lab: Lab, spec: str, policy: RetryPolicy, **options: Any) -> Agent[Any]:
    retry = ModelRetrySettings(max_retries=3, policy=policy, backoff=NO_DELAY)
    model = BIG if spec == "name" else lab.responses()
    return agent_named("Worker", model, model_settings=capped(200, retry=retry), **options)


@modes
@specs
async def test_attempts_that_were_refused_are_given_back_and_the_last_one_is_booked(
    lab: Lab, spec: str, mode: str
) -> None:
    lab.script([Reply(status=429, retry_after_s=0), Reply(status=429, retry_after_s=0), Reply()])
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, retrying(lab, spec, retry_policies.http_status([429])), hooks=guard)
    assert [call.status for call in lab.calls] == [429, 429, 200]
    agree(lab.provider, guard)
    assert len(guard.session.decisions(action="allow")) == 3  # each attempt was reserved
    assert sum(isinstance(event, CallReleased) for event in guard.session.events()) == 2
    assert guard.report().by_agent["Worker"].calls == 1


@modes
@specs
async def test_an_attempt_that_may_have_been_billed_is_booked_beside_the_one_that_succeeded(
    lab: Lab, spec: str, mode: str
) -> None:
    lab.script([Reply(status=500), Reply()])
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, retrying(lab, spec, retry_policies.http_status([500])), hooks=guard)
    never_below(lab.provider, guard)
    report = guard.report()
    assert report.breakdown.llm.calls == len(lab.calls) == 2
    assert report.uncertain == guard.spent_usd - lab.provider.bill_usd > 0
    assert report.by_agent["Worker"].calls == 2


@modes
@specs
async def test_a_limit_holds_for_the_attempts_of_one_call_too(lab: Lab, spec: str, mode: str) -> None:
    lab.script(Reply(status=500))
    guard = BudgetGuard(Budget(max_requests=2))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, retrying(lab, spec, retry_policies.http_status([500])), hooks=guard)
    assert stop.value.dimension == "max_requests"
    assert len(lab.calls) == 2


@modes
@specs
async def test_a_stop_is_never_tried_again(lab: Lab, spec: str, mode: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")]}))
    guard = BudgetGuard(Budget(max_requests=1))
    policy = Always()
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, retrying(lab, spec, policy, tools=[lookup]), hooks=guard)
    assert policy.asked == []
    assert len(guard.session.decisions(action="block")) == 1
    agree(lab.provider, guard)


@modes
@specs
async def test_a_first_call_that_does_not_fit_is_never_tried_again(lab: Lab, spec: str, mode: str) -> None:
    guard = BudgetGuard(Budget("$0.000_01"))
    policy = Always()
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, retrying(lab, spec, policy), hooks=guard)
    assert policy.asked == []
    assert len(guard.session.decisions()) == 1
    assert lab.calls == []


@modes
async def test_a_revoked_guard_is_never_tried_again(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    guard.revoke("enough")
    policy = Always()
    with pytest.raises(BudgetRevoked):
        await lab.run(mode, retrying(lab, "name", policy), hooks=guard)
    assert policy.asked == []
    assert len(guard.session.decisions()) == 1
    assert lab.calls == []


@modes
async def test_errors_of_the_provider_are_retried_as_without_a_guard(lab: Lab, mode: str) -> None:
    lab.script(Reply(status=503, retry_after_s=0))
    agent = retrying(lab, "instance", retry_policies.http_status([503]))
    with pytest.raises(APIStatusError):
        await lab.run(mode, agent)
    alone = len(lab.calls)
    lab.script(Reply(status=503, retry_after_s=0))
    with pytest.raises(APIStatusError):
        await lab.run(mode, agent, hooks=BudgetGuard(Budget("$1.00")))
    assert len(lab.calls) == alone == 4
