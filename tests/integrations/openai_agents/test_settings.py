"""Every setting of a guard is kept, reaches its forks, and is checked under its own name; and what streams and tools
leave behind, piece by piece."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("agents")

from openai.types.responses import Response, ResponseOutputMessage, ResponseOutputText

from budget_guard import Budget, BudgetAuthority, ToolCall
from budget_guard.adapter import GuardedCall
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard_openai_agents.guarded_run import ToolHolds
from budget_guard_openai_agents.request import _plain
from budget_guard_openai_agents.stream import _Seen
from tests.adapter.test_handle import EVERY, Log
from tests.builders import session
from tests.integrations.openai_agents.on_the_wire import Wire, ask, chat_answer, chat_usage, response

OWN: dict[str, Any] = {
    "downgrade_to": "gpt-4o-mini",
    "downgrade_at": 0.5,
    "tool_costs": {"search": "0.01"},
    "on_exceeded": "finalize",
    "on_cut_off": "keep",
    "add_fields": ("usage",),
}
BUDGET = Budget("$1.00", finalization_reserve="$0.10")


def test_every_setting_is_kept_and_a_fork_has_them_all() -> None:
    given = {**EVERY, "authority": BudgetAuthority(kinds=("org",)), "org": "o1", "run_log": Log()}
    guard = BudgetGuard(BUDGET, **given, **OWN, run_id="r1")
    for each in (guard, guard.fork(), guard.fork(run_id="r2")):
        assert each._settings.arguments() == {**given, "ledger": None}
        assert each._own_settings == OWN
        assert (each.on_exceeded, each.on_cut_off, each.add_fields) == ("finalize", "keep", frozenset({"usage"}))
        assert each.tool_costs.call("search", None).cost == 10_000_000
        assert each.budget.downgrade is not None and each.budget.downgrade.at == 0.5
        assert each.records is not None and each._initial_budget is BUDGET
    assert str(guard.session.scope) == "run:r1"


async def test_what_is_no_budget_is_told_by_the_name_of_what_was_called() -> None:
    guard, wrong = BudgetGuard(Budget("$1.00")), "$0.20"
    for owner, make in (("BudgetGuard", BudgetGuard), ("guard.child", guard.child), ("BudgetGuard", guard.fork)):
        with pytest.raises(TypeError, match=rf"write {owner}\(Budget"):
            make(budget=wrong)  # type: ignore[arg-type]  # on purpose
    for owner, amake in (("guard.child", guard.achild), ("BudgetGuard", BudgetGuard.open)):
        with pytest.raises(TypeError, match=rf"write {owner}\(Budget"):
            await amake(wrong)  # type: ignore[arg-type]  # on purpose
    assert guard.reserved_usd == 0


def test_tool_calls_are_told_apart_by_their_ids_and_without_by_what_both_hooks_are_given() -> None:
    run, holds = session(), ToolHolds()

    def started(context: Any) -> GuardedCall:
        call = GuardedCall([run])
        assert call.hold(ToolCall("search", 10)) is None
        holds.start(context, "search", call)
        return call

    async def main() -> None:
        first, second = started(SimpleNamespace(tool_call_id="1")), started(SimpleNamespace(tool_call_id="2"))
        older, newer = SimpleNamespace(), SimpleNamespace()  # as the first versions of the SDK give them
        third, fourth = started(older), started(newer)
        assert holds.has(SimpleNamespace(tool_call_id="2"), "search")
        assert not holds.has(SimpleNamespace(tool_call_id="2"), "other") and not holds.has(older, "search")
        assert holds.end(SimpleNamespace(tool_call_id="1"), "search") is first
        assert holds.end(older, "search") is third
        assert holds.end(older, "search") is holds.end(SimpleNamespace(tool_call_id="1"), "search") is None
        assert holds.end(newer, "search") is fourth
        assert holds.end(SimpleNamespace(tool_call_id="2"), "search") is second
        for call in (first, second, third, fourth):
            call.commit_cost()
        lost = started(older)
        holds.settle()
        assert lost.over and holds.end(older, "search") is None and not holds._open

    asyncio.run(main())
    assert run.report().breakdown.tools.calls == 5 and run.reserved_usd == 0


def test_objects_among_the_input_are_weighed_as_the_json_that_they_are_sent_as() -> None:
    text = ResponseOutputText(text="Done.", type="output_text", annotations=[])
    message = ResponseOutputMessage(id="m1", type="message", role="assistant", status="completed", content=[text])
    plain = {"role": "user", "content": "hi"}
    assert _plain([plain]) == [plain]
    assert _plain([plain, message, 7]) == [
        plain,
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"text": "Done.", "type": "output_text", "annotations": []}],
        },
        {"type": "int", "text": "7"},
    ]


def event(kind: str, **fields: Any) -> Any:
    return SimpleNamespace(type=kind, **fields)


def test_the_events_that_end_a_stream_early_carry_what_came_under_the_ids_that_were_told() -> None:
    seen = _Seen()
    assert seen.truncated() == [] and not seen.text_only
    seen.event(event("response.created", response=Response.model_validate(response(None, output=[]))))
    for item, ident in (("message", "msg_7"), ("reasoning", "rs_1")):
        seen.event(event("response.output_item.added", item=SimpleNamespace(type=item, id=ident)))
    assert not seen.text_only  # of nothing yet
    for kind, delta in (("output_text", "To "), ("reasoning_summary_text", "hm"), ("output_text", "be"), ("audio", 3)):
        seen.event(event(f"response.{kind}.delta", delta=delta))
    seen.event(event("response.output_text.done", text="To be"))
    seen.event(cast("Any", SimpleNamespace()))
    assert seen.text_only and seen.text == "To be" and seen.output_floor == 1
    done, completed = (each.model_dump() for each in seen.truncated())
    message = done["item"]
    assert (done["type"], done["output_index"], done["sequence_number"]) == ("response.output_item.done", 0, 5)
    assert (message["id"], message["role"], message["status"]) == ("msg_7", "assistant", "incomplete")
    assert [part["text"] for part in message["content"]] == ["To be"]
    assert (completed["type"], completed["sequence_number"]) == ("response.completed", 6)
    assert completed["response"]["output"] == [message] and completed["response"]["status"] == "incomplete"
    seen.event(event("response.output_item.added", item=SimpleNamespace(type="function_call", id="f1")))
    assert not seen.text_only


@pytest.mark.parametrize("asked", [None, "auto", "default", "priority"])
async def test_a_dearer_tier_that_served_unasked_is_held_for_from_then_on(asked: str | None) -> None:
    wire = Wire(chat_answer(chat_usage(100, 10), service_tier="priority"))
    model, guard = wire.chat(), BudgetGuard(Budget("$1.00"))
    extra: dict[str, Any] = {} if asked is None else {"extra_args": {"service_tier": asked}}
    for _ in range(2):
        await ask(model, guard, max_tokens=100, **extra)
    held = [decision.held.cost for decision in guard.session.decisions()]
    assert (held[0] < held[1]) == (asked in (None, "auto"))
