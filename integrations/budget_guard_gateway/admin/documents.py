"""What operators are told, in JSON's own types: dollars as text, everything else as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from budget_guard import Budget, ScopeSnapshot
from budget_guard.protocol.words import quantity, usd
from budget_guard.session.usage import UsageRow
from budget_guard.units.amounts import DIMENSIONS
from budget_guard_gateway.keys import Principal


def snapshot_document(found: ScopeSnapshot) -> dict[str, Any]:
    """The counters of one principal or run: its tightest window's, and each window's."""
    left = found.remaining_usd
    return {
        "kind": found.kind,
        "id": found.id,
        "spent_usd": usd(found.spent_usd),
        "reserved_usd": usd(found.reserved_usd),
        "remaining_usd": None if left is None else usd(left),
        "plan": found.plan,
        "open_holds": found.open_holds,
        "live_runs": found.live_runs,
        "revoked": found.revoked,
        "revoked_reason": found.revoked_reason,
        "revoked_at": _time(found.revoked_at),
        "windows": [
            {
                "window": each.window,
                "mode": each.mode or "hard_gate",
                "runs": each.runs,
                "began_at": _time(each.window_start),
                "resets_at": _time(each.resets_at),
                "limits": _quantities(each.limits),
                "committed": _quantities(each.committed),
                "reserved": _quantities(each.reserved),
                "remaining": _quantities(each.remaining),
            }
            for each in found.windows
        ],
    }


def usage_document(row: UsageRow, by: Sequence[str]) -> dict[str, Any]:
    """One row of usage, with the names that were asked for."""
    return {
        **{name: _name(getattr(row, name)) for name in by},
        "cost_usd": usd(row.cost_usd),
        "uncertain_usd": usd(row.uncertain_usd),
        "calls": row.calls,
        "tool_calls": row.tool_calls,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "cache_written_tokens": row.cache_written_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
    }


def ceiling_document(budgets: Budget | Sequence[Budget]) -> list[dict[str, Any]]:
    """The limits of each window."""
    each = [budgets] if isinstance(budgets, Budget) else budgets
    return [
        {
            **{
                name: quantity(value)
                for name in (*DIMENSIONS, "max_runs")
                if (value := getattr(budget, name)) is not None  # dollars are Decimals, the others whole numbers
            },
            "window": budget.window,
            **({} if budget.mode == "hard_gate" else {"mode": budget.mode}),
        }
        for budget in each
    ]


def key_document(who: Principal) -> dict[str, Any]:
    """Who has a key. The key itself nobody knows."""
    return {
        "name": who.name,
        "user": who.user,
        "team": who.team,
        "feature": who.feature,
        "models": list(who.models),
        "run_budget": who.run_budget,
    }


def _quantities(given: Mapping[str, Decimal | int]) -> dict[str, Any]:
    return {name: quantity(value) for name, value in given.items()}


def _time(at: date | None) -> str | None:
    return None if at is None else at.isoformat()


def _name(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value
