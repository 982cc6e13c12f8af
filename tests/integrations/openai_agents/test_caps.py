"""The output cap that the hold was worked out with is the one that the provider is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, ModelBehaviorError, ModelSettings, OpenAIProvider, RunConfig, WebSearchTool
from pydantic import BaseModel

from budget_guard import Allowance, Budget
from budget_guard.integrations.openai_agents import (
    BudgetExceeded,
    BudgetGuard,
    CompositeRunHooks,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.testing import Rates, Reply
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
ENDPOINTS: list[Callable[[Lab, str], Any]] = [lambda lab, name: lab.responses(name), lambda lab, name: lab.chat(name)]
endpoints = pytest.mark.parametrize("model_of", ENDPOINTS, ids=["responses", "chat"])


def held_output(guard: BudgetGuard) -> list[int]:
    return [decision.estimate.output_tokens for decision in guard.session.decisions()]


@modes
@endpoints
@pytest.mark.parametrize("name", [BIG, "gpt-5"])
async def test_a_client_without_a_cap_is_given_one(
    lab: Lab, name: str, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    guard = BudgetGuard(Budget("$0.10"))
    await lab.run(mode, agent_named("Worker", model_of(lab, name)), hooks=guard)
    (call,) = lab.calls
    assert [call.max_output_tokens] == held_output(guard)
    assert guard.session.decisions()[0].output_clamped
    agree(lab.provider, guard)
    chat = call.endpoint == "chat_completions"
    assert ("max_completion_tokens" in call.body) is (chat and name == "gpt-5")


OWN_CAPS: list[Mapping[str, Any]] = [
    {"max_tokens": 700},
    {"extra_args": {"max_completion_tokens": 700}},
    {"extra_body": {"max_completion_tokens": 700}},
]


@modes
@pytest.mark.parametrize("settings", OWN_CAPS, ids=["max_tokens", "extra_args", "extra_body"])
async def test_a_cap_of_the_users_own_is_kept(lab: Lab, settings: Mapping[str, Any], mode: str) -> None:
    guard = BudgetGuard(Budget("$0.03"))  # a cap of the guard's would be lower
    agent = agent_named("Worker", lab.chat(), model_settings=ModelSettings(**settings))
    await lab.run(mode, agent, hooks=guard)
    assert [call.max_output_tokens for call in lab.calls] == held_output(guard) == [700]
    agree(lab.provider, guard)


@modes
@pytest.mark.parametrize("settings", OWN_CAPS, ids=["max_tokens", "extra_args", "extra_body"])
async def test_the_lower_cap_wins_by_whatever_name_the_user_gave_theirs(
    lab: Lab, settings: Mapping[str, Any], mode: str
) -> None:
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300))
    agent = agent_named("Worker", lab.chat(), model_settings=ModelSettings(**settings))
    await lab.run(mode, agent, hooks=guard)
    assert [call.max_output_tokens for call in lab.calls] == held_output(guard) == [300]
    assert sum(name in lab.calls[0].body for name in ("max_tokens", "max_completion_tokens")) == 1
    agree(lab.provider, guard)


@modes
async def test_a_cap_in_the_extra_body_of_responses_is_seen_too(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300))
    settings = ModelSettings(extra_body={"max_output_tokens": 700})
    await lab.run(mode, agent_named("Worker", lab.responses(), model_settings=settings), hooks=guard)
    assert [call.max_output_tokens for call in lab.calls] == held_output(guard) == [300]
    agree(lab.provider, guard)


@modes
@endpoints
async def test_two_guards_send_the_lower_of_their_caps(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    guards = [BudgetGuard(Budget("$1.00", call_max_output_tokens=cap)) for cap in (400, 200)]
    await lab.run(mode, agent_named("Worker", model_of(lab, BIG)), hooks=CompositeRunHooks(*guards))
    assert [call.max_output_tokens for call in lab.calls] == [200]
    for guard in guards:
        agree(lab.provider, guard)


@modes
async def test_with_no_money_limit_no_cap_is_sent(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget(max_requests=3))
    await lab.run(mode, agent_named("Worker", lab.chat()), hooks=guard)
    assert [call.max_output_tokens for call in lab.calls] == [None]
    agree(lab.provider, guard)


class City(BaseModel):
    name: str


@modes
async def test_an_answer_that_the_guards_own_cap_cut_to_nothing_useful_is_a_stop(lab: Lab, mode: str) -> None:
    lab.script(Reply(text='{"name": "' + "a" * 8_000 + '"}'))
    guard = BudgetGuard(Budget("$0.01"))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent_named("Worker", lab.responses(), output_type=City), hooks=guard)
    assert stop.value.dimension == "max_cost_usd"
    assert "cut the answer off" in str(stop.value)
    never_below(lab.provider, guard)


@modes
@endpoints
@pytest.mark.parametrize("text", ["a" * 8_000, "a"])
async def test_an_answer_that_the_guards_own_cap_cut_off_does_not_pass_for_a_whole_one(
    lab: Lab, text: str, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    lab.script(Reply(text=text, output_tokens=2_000))  # a short text is cut to nothing: that is an error of the SDK's
    guard = BudgetGuard(Budget("$0.01"))
    with pytest.raises(BudgetExceeded, match="cut the answer off"):
        await lab.run(mode, agent_named("Worker", model_of(lab, BIG)), hooks=guard)
    never_below(lab.provider, guard)
    assert guard.spent_usd > 0


@modes
@endpoints  # not streamed, the SDK makes an error of a cut answer on Responses, and keeps nothing of it
async def test_an_answer_that_was_cut_off_is_kept_where_the_user_wants_it_so(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    lab.script(Reply(text="a" * 8_000))
    guard = BudgetGuard(Budget("$0.01"), on_cut_off="keep")
    result = await lab.run(mode, agent_named("Worker", model_of(lab, BIG)), hooks=guard)
    assert 0 < len(result.final_output) < 8_000
    agree(lab.provider, guard)
    used, billed = result.context_wrapper.usage, lab.calls[0].usage
    assert (used.input_tokens, used.output_tokens) == (billed.input_tokens, billed.output_tokens)


@modes
@endpoints
async def test_what_came_of_a_cut_off_answer_is_on_the_stop_and_the_run_goes_on_from_it(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    text = "it is so, " * 800
    lab.script([Reply(text=text), Reply(text="and the rest")])
    guard = BudgetGuard(Budget("$0.01"))
    with pytest.raises(BudgetExceeded) as raised:
        await lab.run(mode, agent_named("Worker", model_of(lab, BIG)), hooks=guard)
    stop = raised.value
    partial = stop.partial_output
    assert partial is not None
    assert 0 < len(partial) < 8_000
    assert text.startswith(partial)
    assert guard.report().terminated_by == "output_cap"
    assert stop.resume_input()[-1] == {"role": "assistant", "content": partial}
    guard.raise_limits(max_cost_usd="1.00")
    again = await lab.run(mode, stop.last_agent, stop.resume_input(), hooks=guard)
    assert again.final_output == "and the rest"
    assert partial in str(lab.calls[-1].body)
    assert guard.report().terminated_by is None
    agree(lab.provider, guard)


@modes
@endpoints
@pytest.mark.parametrize("on_cut_off", ["raise", "keep"])
async def test_an_answer_of_exactly_the_cap_that_says_it_is_done_is_whole(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any], on_cut_off: Any
) -> None:
    lab.script(lambda request: Reply(text="done", output_tokens=request.max_output_tokens))
    guard = BudgetGuard(Budget("$0.01"), on_cut_off=on_cut_off)
    result = await lab.run(mode, agent_named("Worker", model_of(lab, BIG)), hooks=guard)
    assert result.final_output == "done"
    assert lab.calls[0].usage.output_tokens == lab.calls[0].max_output_tokens
    assert guard.report().terminated_by is None
    agree(lab.provider, guard)


@modes
@endpoints
@pytest.mark.parametrize("on_cut_off", ["raise", "keep"])
async def test_a_cut_off_answer_with_half_a_tool_call_is_a_stop_all_the_same(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any], on_cut_off: Any
) -> None:
    lab.script(Reply(tool_calls=caller_of("lookup").tool_calls, output_tokens=20_000))
    guard = BudgetGuard(Budget("$0.01"), on_cut_off=on_cut_off)
    with pytest.raises(BudgetExceeded, match="cut the answer off"):
        await lab.run(mode, agent_named("Worker", model_of(lab, BIG), tools=[lookup]), hooks=guard)
    assert guard.report().breakdown.tools.calls == 0


async def test_a_sub_agents_cut_off_answer_is_not_a_part_of_the_outer_conversation(lab: Lab) -> None:
    lab.script(by_role({"Boss": caller_of("ask_worker", input="go"), "Worker": Reply(text="a" * 8_000)}))
    guard = BudgetGuard(Budget("$0.02"))
    worker = agent_named("Worker", lab.chat())
    boss = agent_named("Boss", lab.chat(), tools=[worker.as_tool("ask_worker", "asks")], model_settings=capped(200))
    with pytest.raises(BudgetExceeded, match="cut the answer off") as stop:
        await lab.run("run", boss, hooks=guard)
    assert all(item.get("content") != "a" * 100 and "aaaa" not in str(item) for item in stop.value.resume_input())


@modes
@pytest.mark.parametrize(
    ("budget", "dimension"),
    [
        (Budget(max_total_tokens=3_000), "max_total_tokens"),
        (Budget(max_output_tokens=450), "max_output_tokens"),
        (Budget(max_input_tokens=2_000), "max_input_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_budget_in_tokens_holds(lab: Lab, budget: Budget, dimension: str, mode: str) -> None:
    lab.script(Reply(tool_calls=caller_of("lookup").tool_calls, output_tokens=200))
    guard = BudgetGuard(budget)
    agent = agent_named("Worker", lab.responses(), tools=[lookup], model_settings=capped(200))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent, hooks=guard, max_turns=100)
    assert stop.value.dimension == dimension
    used = sum(
        {
            "max_total_tokens": call.usage.input_tokens + call.usage.output_tokens,
            "max_output_tokens": call.usage.output_tokens,
            "max_input_tokens": call.usage.input_tokens,
        }[dimension]
        for call in lab.calls
    )
    assert 0 < used <= stop.value.limit
    agree(lab.provider, guard)


@modes
@pytest.mark.parametrize("spec", ["name", "instance"])
async def test_an_unknown_model_is_refused_before_anything_is_sent(lab: Lab, spec: str, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    model = "gpt-4o-mimi" if spec == "name" else lab.responses("gpt-4o-mimi")
    with pytest.raises(UnknownPriceError) as error:
        await lab.run(mode, agent_named("Worker", model), hooks=guard)
    assert lab.calls == []
    assert error.value.model == "gpt-4o-mimi"
    assert "gpt-4o-mini" in error.value.suggestions
    assert 'pricing={"gpt-4o-mimi": (' in str(error.value)
    assert guard.spent_usd == guard.reserved_usd == 0


@modes
async def test_a_price_of_the_users_own_is_used(new_lab: Callable[..., Any], mode: str) -> None:
    lab: Lab = await new_lab(prices={"my-model": Rates(input="3", output="7")})
    guard = BudgetGuard(Budget("$1.00"), pricing={"my-model": (3e-6, 7e-6)})
    await lab.run(mode, agent_named("Worker", "my-model"), hooks=guard)
    agree(lab.provider, guard)
    assert guard.spent_usd > 0


@modes
async def test_a_service_tier_is_priced_as_such(new_lab: Callable[..., Any], mode: str) -> None:
    lab: Lab = await new_lab()
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", lab.responses(), model_settings=ModelSettings(extra_args={"service_tier": "bogus"}))
    with pytest.raises(UnknownPriceError, match="bogus"):
        await lab.run(mode, agent, hooks=guard)
    assert lab.calls == []


class MySearch(WebSearchTool):
    """A user's own kind of web search: it is billed like any."""


searches = pytest.mark.parametrize("tool", [WebSearchTool, MySearch])


@modes
@searches
async def test_a_hosted_tool_without_an_allowance_is_refused(lab: Lab, tool: type[WebSearchTool], mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(UnboundedCallError, match="allowance"):
        await lab.run(mode, agent_named("Worker", lab.responses(), tools=[tool()]), hooks=guard)
    assert lab.calls == []


@modes
@searches
@pytest.mark.parametrize("spec", ["name", "instance"])
async def test_the_fee_of_a_hosted_tool_is_booked(lab: Lab, spec: str, tool: type[WebSearchTool], mode: str) -> None:
    lab.script(Reply(text="found", web_searches=2))
    guard = BudgetGuard(Budget("$1.00", allowance=Allowance(input_tokens=1_000, hosted_tool_calls=3)))
    agent: Agent[Any] = agent_named("Worker", BIG if spec == "name" else lab.responses(), tools=[tool()])
    await lab.run(mode, agent, hooks=guard)
    agree(lab.provider, guard)
    assert guard.spent_usd > 2 * 10 / 1_000


@modes
async def test_history_that_the_provider_keeps_needs_an_allowance(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")], "": Reply(text="done")}))
    agent = agent_named("Worker", lab.responses(), tools=[lookup], model_settings=capped(300))
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(UnboundedCallError, match="history"):
        await lab.run(mode, agent, hooks=guard, auto_previous_response_id=True)
    guard = BudgetGuard(Budget("$1.00", allowance=Allowance(input_tokens=5_000)))
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")], "": Reply(text="done")}))
    await lab.run(mode, agent, hooks=guard, auto_previous_response_id=True)
    agree(lab.provider, guard)


async def test_a_run_config_that_brings_the_provider_and_the_guard_is_enough(lab: Lab) -> None:
    base = RunConfig(model_provider=OpenAIProvider(openai_client=lab.client), tracing_disabled=True)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent_named("Worker", BIG), run_config=guard.run_config(base))
    agree(lab.provider, guard)
    assert base.model_provider is not guard.run_config(base).model_provider


FILTERED = Reply(text="so far", finish_reason="content_filter", output_tokens=20)
EMPTY = Reply(body={"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}}, bill=0)


@pytest.mark.parametrize(
    ("kind", "reply", "mode"),
    [("responses", FILTERED, "run"), ("responses", FILTERED, "run_streamed"), ("chat", EMPTY, "run")],
    ids=["filtered", "filtered stream", "no choices"],
)
async def test_an_answer_that_ended_for_another_reason_is_no_stop_of_the_guards_cap(
    lab: Lab, kind: str, reply: Reply, mode: str
) -> None:
    lab.script(reply)
    guard = BudgetGuard(Budget("$0.10"))
    with pytest.raises(ModelBehaviorError):
        await lab.run(mode, agent_named("Worker", getattr(lab, kind)()), hooks=guard)
    assert guard.session.decisions()[0].output_clamped
    assert guard.report().terminated_by is None
    assert guard.reserved_usd == 0
    assert guard.spent_usd >= lab.provider.bill_usd
