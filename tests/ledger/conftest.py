from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

import pytest

pytest.register_assert_rewrite("budget_guard.testing.ledger_contract")

# the core's tests run without any extra as well
collect_ignore_glob = [] if find_spec("redis") else ["test_redis*.py"]


@pytest.fixture(autouse=True)
def connections_end_with_their_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ledger that a closure keeps alive would leave its sockets to the garbage collector, which warns."""
    if "redis" not in request.path.name:
        yield
        return
    from budget_guard.ledger.redis import RedisLedger

    opened = WeakSet[RedisLedger]()  # those that nothing keeps alive close their connections themselves
    begin = RedisLedger.__init__

    def noted(ledger: RedisLedger, *args: Any, **options: Any) -> None:
        begin(ledger, *args, **options)
        opened.add(ledger)

    monkeypatch.setattr(RedisLedger, "__init__", noted)
    yield
    for ledger in list(opened):
        ledger.close()
