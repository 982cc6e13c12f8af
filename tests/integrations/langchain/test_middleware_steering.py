"""The middleware switches to a cheaper model, caps the output, and asks for a final answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest
from langchain.agents.structured_output import ToolStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from budget_guard import Budget, DowngradePolicy, ModelCall, weigh
from budget_guard.adapter import FINAL_NOTE
from budget_guard.events import ModelDowngraded
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware, InvalidDowngradeError
from budget_guard.testing import ProviderRequest, Reply
from budget_guard.units.amounts import Amounts
from budget_guard_langchain.steering import Steering
from tests.integrations.langchain.agents import (
    BIG,
    CLAUDE,
    DIME,
    MODELS,
    SMALL,
    SURFACES,
    Lab,
    agree,
    caller_of,
    configured,
    lookup,
)
from tests.integrations.langchain.test_middleware import GO, LOOP, Place, dimes, run, ways

models = pytest.mark.parametrize("model_of", MODELS.values(), ids=MODELS)


def spent(budget: Budget | str, fraction: float, **options: Any) -> BudgetCallbackHandler:
    """A handler of which a *fraction* is spent already."""
    handler = BudgetCallbackHandler(budget if isinstance(budget, Budget) else Budget(budget), **options)
    handler.session.carry_over(Amounts(cost=int((handler.session.budget.limits.cost or 0) * fraction)))
    return handler


# --- the cheaper model


@ways
@pytest.mark.parametrize("response_format", [None, Place], ids=["text", "structured"])
def test_the_provider_sees_the_cheaper_model_from_the_threshold_on(
    lab: Lab, asynchronous: bool, response_format: Any
) -> None:
    lab.script(caller_of("lookup", key="a"))
    middleware = BudgetMiddleware(Budget(max_input_tokens=20_000), downgrade_to=lab.chat(SMALL), downgrade_at=0.5)
    lab.script(Reply(tool_calls=LOOP.tool_calls, input_tokens=2_500, output_tokens=10))
    agent = create_agent(lab.chat(BIG), [lookup], middleware=[middleware], response_format=response_format)
    run(agent, asynchronous=asynchronous)
    assert lab.models[:4] == [BIG] * 4
    assert len(lab.models) > 5
    assert set(lab.models[4:]) == {SMALL}
    assert middleware.report().breakdown.llm.total == lab.provider.bill_usd
    told = [event for event in middleware.session.events() if isinstance(event, ModelDowngraded)]
    assert [(event.model, event.target) for event in told] == [(BIG, SMALL)] * len(lab.models[4:])


@pytest.mark.parametrize("call", SURFACES.values(), ids=SURFACES)
def test_so_it_does_on_every_surface_and_across_providers(lab: Lab, call: Any) -> None:
    handler = spent("$1.00", 0.85)
    middleware = BudgetMiddleware(handler, downgrade_to=lab.chat(SMALL))
    call(create_agent(lab.claude("claude-sonnet-4-6"), [lookup], middleware=[middleware]), GO, {})
    assert lab.models == [SMALL]
    assert [d.requested for d in handler.session.decisions()] == ["claude-sonnet-4-6"]
    assert handler.report().breakdown.llm.total == lab.provider.bill_usd


def test_what_does_not_fit_is_called_on_the_cheaper_model_before_the_threshold(lab: Lab) -> None:
    middleware = BudgetMiddleware(Budget("$0.004"), downgrade_to=lab.chat(SMALL))
    run(create_agent(lab.chat(BIG), middleware=[middleware]))  # 500 tokens of the dear one are $0.005
    assert lab.models == [SMALL]
    agree(lab, middleware.handler)


@pytest.mark.parametrize("policy", ["gpt-4o-mini", {"gpt-4.1": "gpt-4.1-mini", "gpt-4.1-mini": "gpt-4.1-nano"}])
def test_the_budgets_own_policy_is_followed_to_models_made_by_name(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", lab.provider.base_url)
    handler = spent(Budget("$1.00", downgrade=DowngradePolicy(to=policy, at=0.5)), 0.6)
    run(create_agent(lab.chat("gpt-4.1"), middleware=[BudgetMiddleware(handler)]))
    assert lab.models == [policy if isinstance(policy, str) else "gpt-4.1-mini"]
    poor = BudgetCallbackHandler(Budget("$0.0005", downgrade=policy))  # the last rung alone fits
    run(create_agent(lab.chat("gpt-4.1"), middleware=[BudgetMiddleware(poor)]))
    assert lab.models[1:] == ["gpt-4o-mini" if isinstance(policy, str) else "gpt-4.1-nano"]
    assert handler.report().breakdown.llm.total + poor.spent_usd == lab.provider.bill_usd


def test_a_name_is_made_into_a_model_as_langchain_does(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", lab.provider.base_url)
    middleware = BudgetMiddleware(spent("$1.00", 0.85), downgrade_to="openai:gpt-4o-mini")
    run(create_agent(lab.chat(BIG), middleware=[middleware]))
    assert lab.models == [SMALL]


def test_the_way_to_structured_output_is_chosen_for_the_model_that_is_called(lab: Lab) -> None:
    penny = {"penny": {"input": 0, "output": 0, "requests": "0.01", "max_output": 100}}
    dear, cheap = lab.chat("dime", profile={"structured_output": True}), lab.chat("penny")
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing={**DIME, **penny})
    middleware = BudgetMiddleware(handler, downgrade_to=cheap)
    agent = create_agent(dear, middleware=[middleware], response_format=Place)
    lab.script([Reply(text='{"city": "Rome"}'), caller_of("Place", city="Rome")])
    assert run(agent)["structured_response"] == Place(city="Rome")
    handler.charge("before", "0.70")
    assert run(agent)["structured_response"] == Place(city="Rome")
    assert lab.models == ["dime", "penny"]
    assert ["response_format" in call.body for call in lab.calls] == [True, False]
    assert [bool(call.body.get("tools")) for call in lab.calls] == [False, True]


@pytest.mark.parametrize(("same_provider", "provider"), [(True, "openai"), (False, None)])
def test_another_providers_model_is_priced_by_its_name_alone(same_provider: bool, provider: str | None) -> None:
    steering = Steering(can_cap=True, cap_set=None, stands_for=("claude-sonnet-4-6", same_provider))
    asked = steering.ask(ModelCall(SMALL, weigh(messages="hi"), "openai"))
    assert (asked.model, asked.provider) == ("claude-sonnet-4-6", provider)


def test_a_model_that_takes_anothers_place_says_for_which_and_whether_that_is_the_same_providers(lab: Lab) -> None:
    request: Any = ModelRequest(model=lab.chat(BIG), messages=[], tools=[])
    for cheap, same in ((lab.chat(SMALL), True), (lab.claude(), False)):
        middleware: Any = BudgetMiddleware(Budget("$1"), downgrade_to=cheap)
        (target,) = middleware._models
        how = vars(middleware._steered(request, target, False).model)["budget_guard_how"][1]
        assert (how.stands_for, how.final) == ((BIG, same), False)
        how = vars(middleware._steered(request, None, True).model)["budget_guard_how"][1]
        assert (how.stands_for, how.final) == (None, True)


def test_a_cheaper_model_that_is_dearer_is_a_mistake(lab: Lab) -> None:
    with pytest.raises(InvalidDowngradeError, match="is dearer"):
        run(create_agent(lab.chat(SMALL), middleware=[BudgetMiddleware(Budget("$1"), downgrade_to=lab.chat(BIG))]))
    assert lab.calls == []


def test_of_agents_in_sixteen_threads_none_calls_the_others_model(lab: Lab) -> None:
    lab.script(Reply(input_tokens=5, output_tokens=5))
    rich, poor = spent("$90.00", 0.5), spent("$90.00", 0.85)
    dear, cheap = lab.chat(BIG), lab.chat(SMALL)
    agents = [create_agent(dear, middleware=[BudgetMiddleware(h, downgrade_to=cheap)]) for h in (rich, poor)]

    def one(number: int) -> bool:
        name = run(agents[number % 2])["messages"][-1].response_metadata["model_name"]
        return bool(name.startswith(SMALL) == bool(number % 2))

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(one, range(200))) == [True] * 200
    assert [h.report().breakdown.llm.by_model.keys() for h in (rich, poor)] == [{BIG}, {SMALL}]


# --- the output cap


@pytest.mark.parametrize("call", SURFACES.values(), ids=SURFACES)
@models
def test_the_cap_of_the_decision_is_sent_and_bounds_the_hold(
    lab: Lab, model_of: Callable[..., BaseChatModel], call: Any
) -> None:
    middleware = BudgetMiddleware(Budget("$0.10"))
    call(create_agent(model_of(lab, max_tokens=None), middleware=[middleware]), GO, {})
    (decision,) = middleware.session.decisions()
    assert decision.output_clamped
    assert decision.bounded
    assert lab.calls[0].max_output_tokens == decision.output_cap
    agree(lab, middleware.handler)


def test_a_stream_of_a_classs_own_is_made_the_common_way(lab: Lab) -> None:
    class Native(ChatOpenAI):
        """What a class may bring, that takes no arguments but its own."""

        def _stream_chat_model_events(self, messages: Any, *, stop: Any = None, run_manager: Any = None) -> Any:
            raise AssertionError("asked for a stream of its own")

    plain = lab.chat(max_tokens=None)
    native = Native.model_construct(**plain.__dict__)
    middleware = BudgetMiddleware(Budget("$0.10"))
    SURFACES["stream_events"](create_agent(native, middleware=[middleware]), GO, {})
    assert lab.calls[0].max_output_tokens == middleware.session.decisions()[0].output_cap
    agree(lab, middleware.handler)


def test_other_middleware_sees_a_model_of_its_own_class(lab: Lab) -> None:
    seen: list[Any] = []

    class Looks(AgentMiddleware[Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            seen.append(request.model)
            return handler(request)

    for model in (lab.chat(), lab.claude()):
        run(create_agent(model, middleware=[BudgetMiddleware(Budget("$1.00")), Looks()]))
    assert isinstance(seen[0], ChatOpenAI)
    assert isinstance(seen[1], ChatAnthropic)
    assert [type(model).__qualname__ for model in seen] == ["ChatOpenAI", "ChatAnthropic"]
    assert (seen[0].model_name, seen[1].model) == (BIG, CLAUDE)


def test_the_callers_cap_is_kept_and_held(lab: Lab) -> None:
    middleware = BudgetMiddleware(Budget("$1.00"))
    run(create_agent(lab.chat(max_tokens=123), middleware=[middleware]))
    assert lab.calls[0].max_output_tokens == 123
    assert middleware.session.decisions()[0].estimate.output_tokens == 123


# --- the final answer


def loops_until_told(request: ProviderRequest) -> Reply:
    told = FINAL_NOTE in str(request.body)
    return Reply(text="final", input_tokens=50, output_tokens=20) if told else LOOP


@ways
@models
def test_past_the_fraction_it_asks_for_a_final_answer_without_tools(
    lab: Lab, asynchronous: bool, model_of: Callable[..., BaseChatModel]
) -> None:
    lab.script(loops_until_told)
    handler = BudgetCallbackHandler(Budget(max_output_tokens=1_000, max_cost_usd="1.00"))
    middleware = BudgetMiddleware(handler, wrap_up_at=0.02)
    agent = create_agent(model_of(lab, max_tokens=100), [lookup], middleware=[middleware], system_prompt="Be kind.")
    done = run(agent, asynchronous=asynchronous)
    assert done["messages"][-1].text == "final"
    assert 2 <= len(lab.calls) < 20
    first, last = lab.calls[0].body, lab.calls[-1].body
    assert first["tools"]
    assert "Be kind." in str(first)
    assert f"Be kind.\\n\\n{FINAL_NOTE}" in str(last)
    if model_of is MODELS["claude"]:
        assert (last["tools"], last["tool_choice"]) == (
            first["tools"],
            {"type": "none"},
        )  # it wants those called before
    else:
        assert not last.get("tools")
    assert FINAL_NOTE not in str(done["messages"])
    agree(lab, handler)


def test_a_system_prompt_in_pieces_keeps_them(lab: Lab) -> None:
    pieces: list[Any] = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    middleware = BudgetMiddleware(spent("$1.00", 0.95), wrap_up_at=0.9)
    run(create_agent(lab.claude(), middleware=[middleware], system_prompt=SystemMessage(pieces)))
    assert lab.calls[0].body["system"] == [*pieces, {"type": "text", "text": FINAL_NOTE}]


def test_what_does_not_fit_is_tried_as_the_final_answer_out_of_what_is_kept_for_it(lab: Lab) -> None:
    lab.script(loops_until_told)
    handler = BudgetCallbackHandler(Budget("$0.02", finalization_reserve="$0.008"))
    middleware = BudgetMiddleware(handler, wrap_up_at=1.0)
    lab.script(
        lambda request: loops_until_told(request) if lab.calls else Reply(tool_calls=LOOP.tool_calls, output_tokens=500)
    )
    done = run(create_agent(lab.chat(max_tokens=700), [lookup], middleware=[middleware]))
    assert done["messages"][-1].content == "final"
    assert [bool(call.body.get("tools")) for call in lab.calls] == [True, False]
    agree(lab, handler)


def test_without_a_fraction_nothing_is_wrapped_up(lab: Lab) -> None:
    lab.script(loops_until_told)
    handler = dimes("$0.30")
    run(create_agent(lab.chat("dime"), [lookup], middleware=[BudgetMiddleware(handler)]))
    assert len(lab.calls) == 3
    assert FINAL_NOTE not in str([call.body for call in lab.calls])


class Report(BaseModel):
    """A report."""

    text: str


@pytest.mark.parametrize("called", [False, True], ids=["no tool was called", "a tool was called"])
def test_claude_is_given_its_tools_for_the_final_answer_only_where_it_has_called_one(lab: Lab, called: bool) -> None:
    lab.script(lambda request: LOOP if called and FINAL_NOTE not in str(request.body) else Reply(text="done"))
    budget = BudgetMiddleware(Budget("$1.00") if called else spent("$1.00", 0.5), wrap_up_at=0.0001)
    run(create_agent(lab.claude("claude-sonnet-4-6"), [lookup], middleware=[budget]))
    final = lab.calls[-1].body
    assert FINAL_NOTE in str(final)
    assert bool(final.get("tools")) == called


@pytest.mark.parametrize("response_format", [Report, ToolStrategy(Report)], ids=["auto", "tool"])
@models
def test_a_final_answer_has_the_form_that_was_asked_for(
    lab: Lab, response_format: Any, model_of: Callable[..., BaseChatModel]
) -> None:
    def script(request: ProviderRequest) -> Reply:
        if FINAL_NOTE not in str(request.body):
            return LOOP
        in_tool = any(name == "Report" for name in str(request.body.get("tools")).replace("'", " ").split())
        return caller_of("Report", text="final") if in_tool else Reply(text='{"text": "final"}')

    lab.script(script)
    middleware = BudgetMiddleware(Budget("$1.00"), wrap_up_at=0.0001)
    agent = create_agent(model_of(lab), [lookup], middleware=[middleware], response_format=response_format)
    assert run(agent, configured())["structured_response"] == Report(text="final")
    assert len(lab.calls) == 2
