"""A URL says where the counters live; what is wrong with one is said without its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from budget_guard import MemoryLedger, Scope, open_ledger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.units.amounts import Limits


def test_memory_is_this_process() -> None:
    assert isinstance(open_ledger("memory://"), MemoryLedger)


def test_sqlite_is_a_file_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a%20b.db", f"sqlite:///{tmp_path}/c.db?durable=false"):
        ledger = open_ledger(url)
        assert isinstance(ledger, SqliteLedger)
        ledger.set_limits(Scope("run", "r"), Limits(cost=1))
        ledger.close()
    assert (tmp_path / "a b.db").exists() and (tmp_path / "c.db").exists()


def test_who_may_read_a_file_can_be_said(tmp_path: Path) -> None:
    open_ledger(f"sqlite:///{tmp_path}/d.db?mode=0640").close()
    assert (tmp_path / "d.db").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "url",
    [
        *["", "budget.db", "sqlite:/budget.db", "sqlite://", "sqlite:///", "sqlite://budget.db", "postgres://h/db"],
        *[
            "memory://x",
            "memory:///x",
            "memory://?durable=true",
            "sqlite:///x.db?durible=1",
            "sqlite:///x.db?durable=2",
            "sqlite:///x.db?mode=9",
            "sqlite:///x.db?mode=0400",
        ],
        *["redis://h?wait_replicas=-1", "redis://h?wait_replicas=x", "redis://h?x", "http://[", "MEMORY"],
    ],
)
def test_a_url_that_names_no_ledger_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="url=") as caught:
        open_ledger(url)
    assert repr(url) in str(caught.value)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ValueError, match="url=") as caught:
        open_ledger("redis://me:secret@host?wait_replicas=x")
    assert "secret" not in str(caught.value) and "me:***@host" in str(caught.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="url=None"):
        open_ledger(None)  # type: ignore[arg-type]
