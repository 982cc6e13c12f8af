from __future__ import annotations

import pytest

pytest.register_assert_rewrite("budget_guard.testing.ledger_contract")
