"""The kit that every adapter of a framework stands on. docs/adapters.md tells how to write one."""

from budget_guard.adapter.attempts import (
    ADD_FIELDS,
    AddField,
    Attempt,
    Attempts,
    Counted,
    begin_counting,
    counted_by,
    counting,
    counting_nothing,
    end_counting,
)
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.handle import SessionHandle, SessionSettings, check_budget, check_choice
from budget_guard.adapter.model_guard import Answered, ModelGuard, SessionLatch, inside_of, latch_of, session_of
from budget_guard.adapter.priced_request import PricedRequest, priced_request
from budget_guard.adapter.provider_words import (
    BILLED_ITEMS,
    FINAL_NOTE,
    KEPT_BY_PROVIDER,
    OUTPUT_CAPS,
    hosted_tool,
    medium,
    opaque_parts,
    with_prefix_of,
)
from budget_guard.adapter.stops import Stop, StopLatch, Stops, stops_for
from budget_guard.adapter.tool_costs import ToolCost, ToolCosts
from budget_guard.adapter.versions import require
from budget_guard.adapter.wrapping import check_instance, named_like

__all__ = [
    "ADD_FIELDS",
    "BILLED_ITEMS",
    "FINAL_NOTE",
    "KEPT_BY_PROVIDER",
    "OUTPUT_CAPS",
    "AddField",
    "Answered",
    "Attempt",
    "Attempts",
    "Counted",
    "GuardedCall",
    "ModelGuard",
    "PricedRequest",
    "SessionHandle",
    "SessionLatch",
    "SessionSettings",
    "Stop",
    "StopLatch",
    "Stops",
    "ToolCost",
    "ToolCosts",
    "begin_counting",
    "check_budget",
    "check_choice",
    "check_instance",
    "counted_by",
    "counting",
    "counting_nothing",
    "end_counting",
    "hosted_tool",
    "inside_of",
    "latch_of",
    "medium",
    "named_like",
    "opaque_parts",
    "priced_request",
    "require",
    "session_of",
    "stops_for",
    "with_prefix_of",
]
