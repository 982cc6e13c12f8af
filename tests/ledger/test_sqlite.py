"""The ledger in a file keeps the contract, whatever happens to processes, files and disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from budget_guard.clock import Clock
from budget_guard.ledger import Ledger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing.ledger_contract import LedgerContract


class TestSqliteLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_ledger(self, clock: Clock) -> Ledger:
        return SqliteLedger(self.folder / f"{len(list(self.folder.iterdir()))}.db", clock=clock)

    def close_ledger(self, ledger: Ledger) -> None:
        assert ledger.audit() == []
        ledger.close()
