"""Guards and handlers are handles of a session: what is done to one is done to its session."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetRevoked, Session
from budget_guard.adapter.handle import SessionHandle
from tests.builders import call, session


class Handle(SessionHandle):
    def __init__(self, session: Session) -> None:
        self.session = session


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def awaits(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def do(handle: Handle, awaits: bool, verb: str, *args: Any, **kwargs: Any) -> Any:
    """Call a verb of *handle*, or its awaitable twin."""
    if not awaits:
        return getattr(handle, verb)(*args, **kwargs)

    async def main() -> Any:
        return await getattr(handle, f"a{verb}")(*args, **kwargs)

    return asyncio.run(main())


def test_what_is_done_to_the_handle_is_done_to_its_session(awaits: bool) -> None:
    handle = Handle(session(Budget("$1")))
    handle.charge("serp", "0.25", agent="Named")
    assert (handle.spent_usd, handle.reserved_usd, handle.remaining_usd) == (
        Decimal("0.25"),
        Decimal(0),
        Decimal("0.75"),
    )
    assert list(do(handle, awaits, "report").by_agent) == ["Named"]
    do(handle, awaits, "raise_limits", max_cost_usd="$3")
    assert handle.remaining_usd == Decimal("2.75")
    do(handle, awaits, "revoke", "stolen")
    assert isinstance(handle.session.authorize(call()).error, BudgetRevoked)
