from __future__ import annotations

import asyncio
from typing import Any

import pytest


class Both:
    """The verbs of a guarded call, an attempt or a priced request, blocking or awaited."""

    def __init__(self, awaits: bool) -> None:
        self._awaits = awaits

    def __call__(self, of: Any, verb: str, *arguments: Any, **options: Any) -> Any:
        if not self._awaits:
            return getattr(of, verb)(*arguments, **options)
        return asyncio.run(getattr(of, f"a{verb}")(*arguments, **options))


@pytest.fixture(params=[False, True], ids=["blocking", "awaited"])
def perform(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)
