from __future__ import annotations

from importlib.util import find_spec

import pytest

pytest.register_assert_rewrite("budget_guard.testing.ledger_contract")

# the core's tests run without any extra as well
collect_ignore_glob = [] if find_spec("redis") else ["test_redis*.py"]
