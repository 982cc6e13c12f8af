"""A URL says where the counters live; what is wrong with one is said without its password."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from budget_guard import LedgerUnavailable, MemoryLedger, Scope, open_ledger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.url import shown_url
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
    open_ledger(f"sqlite:///{tmp_path}/e.db?mode=0755").close()
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
            "sqlite:///x.db?mode=00600",
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


SECRET = "s3cr3tPW"
PLANTED = [
    f"redis://:{SECRET}@127.0.0.1:1/0?wait_replicas=z",
    f"redis://u:{SECRET}@127.0.0.1:1/0?tenant=x&wait_replicas=z",
    f"rediss://u:{SECRET}@127.0.0.1:notaport/0",
    f"redis:/u:{SECRET}@host/0",
    f"redis:u:{SECRET}@host/0",
    f"u:{SECRET}@host:6379",
    f"{SECRET}@host:6379",
    SECRET,
    f"rediss//u:{SECRET}@host",
    f"redis://127.0.0.1:1/0?password={SECRET}&wait_replicas=z",
    f"redis://127.0.0.1:1/0?wait_replicas=z&password={SECRET}",
    f"redis://127.0.0.1:1/0?wait_replicas={SECRET}",
    f"redis://127.0.0.1:1/0?{SECRET}",
    f"redis://127.0.0.1:1/0?{SECRET}=1&wait_replicas=z",
    f"redis://127.0.0.1:1/0?x&{SECRET}",
    f"redis://127.0.0.1:1/0?a=b&&{SECRET}=",
    f"redis://u:{SECRET}/x@host:6379/0?wait_replicas=z",
    f"redis://u:x/{SECRET}@host:6379/0?wait_replicas=z",
    f"redis://u:a@{SECRET}@host:6379/0?wait_replicas=z",
    f"redis://u:a#{SECRET}@127.0.0.1:1/0",
    f"redis://u:a?{SECRET}@127.0.0.1:1/0",
    f"redis://u:a?x={SECRET}@127.0.0.1:1/0",
    f"redis://{SECRET}@127.0.0.1:1/0?wait_replicas=z",
    f"redis://{SECRET}:@127.0.0.1:1/0?wait_replicas=z",
    f"redis://{SECRET}:x@127.0.0.1:1/0?wait_replicas=z",
    f"redis://{SECRET}?wait_replicas=z",
    f"redis://:{SECRET}?wait_replicas=z",
    f"redis://u:{SECRET}",
    f"redis://u:{SECRET}@[::1/0",
    f"redis://[{SECRET}",
    f"redis://127.0.0.1:{SECRET}/0",
    f"redis://127.0.0.1:1/{SECRET}?wait_replicas=z",
    f"redis://127.0.0.1:1/0?wait_replicas=z#{SECRET}",
    f"unix://u:{SECRET}@/run/redis.sock?wait_replicas=z",
    f"valkeys://u:{SECRET}@host?wait_replicas=z",
    f"REDIS://u:{SECRET}@127.0.0.1:1/0?wait_replicas=z",
    f"postgres://u:{SECRET}@host/db",
    f"postgres://host/{SECRET}",
    f"{SECRET}://host",
    f"redis+cluster://u:{SECRET}@host",
    f"sqlite://u:{SECRET}@host/x.db",
    f"sqlite:///x.db?password={SECRET}",
    f"sqlite:///x.db?durable={SECRET}",
    f"sqlite:///x.db?mode={SECRET}",
    f"sqlite://{SECRET}",
    f"memory://u:{SECRET}@host",
    f"memory://?token={SECRET}",
    f"memory://{SECRET}",
    f" redis://u:{SECRET}@host\n",
    f"redis://u:{SECRET}%zz@127.0.0.1:x/0",
]


@pytest.mark.parametrize("url", PLANTED)
def test_a_secret_is_in_no_error_and_no_log_wherever_it_stands_in_a_url(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    said = ""
    try:
        open_ledger(url)
    except (ValueError, LedgerUnavailable) as error:
        said = str(error) + repr(error) + repr(error.args)
        cause = None if error.__suppress_context__ else error.__context__
        while cause is not None:
            said, cause = said + str(cause), cause.__context__
    assert SECRET not in said + caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "redis://me:secret@host:6379/0?tenant=acme-inc&wait_replicas=2#part",
            "redis://me:***@host:6379/0?tenant=***&wait_replicas=2#***",
        ),
        ("redis://host", "redis://host"),
        ("redis://host:99/0?x", "redis://host:99/0?x"),
        ("redis://host/0?tennant=7", "redis://host/0?tennant=7"),
        ("redis://a-long-name:secret@host", "redis://***@host"),
        ("redis://u@host", "redis://***@host"),
        ("sqlite:///budget.db?mode=384", "sqlite:///budget.db?mode=384"),
        ("budget.db", "budget.db"),
        ("some text", "***"),
    ],
)
def test_of_a_url_all_is_shown_that_is_no_secret_for_sure(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_there_are_more_than_40_of_them() -> None:
    assert len(set(PLANTED)) > 40


@pytest.mark.parametrize("url", [object(), b"redis://u:s3cr3tPW@host", ["redis://u:s3cr3tPW@host"], {"p": SECRET}])
def test_what_is_no_text_is_not_shown(url: Any) -> None:
    with pytest.raises(ValueError, match="is no text") as caught:
        open_ledger(url)
    assert SECRET not in str(caught.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="url=None"):
        open_ledger(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1", "true", "YES", "0", "false", "No"])
def test_what_is_true_or_false_may_be_said_in_three_ways(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr("budget_guard.ledger.sqlite.ledger.SqliteLedger", lambda path, durable: given.append(durable))
    open_ledger(f"sqlite:///x.db?durable={text}")
    assert given == [text in ("1", "true", "YES")]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///b.db?durable=nah", "url='sqlite:///b.db?durable=nah': durable='nah' must be true or false"),
        ("sqlite:///b.db?durable=perhaps", "url='sqlite:///b.db?durable=***': durable=*** must be true or false"),
        ("sqlite:///b.db?mode=888", "url='sqlite:///b.db?mode=888': mode='888' must be permissions in octal"),
        ("sqlite:///b.db?mode=400", "mode='400' must be permissions in octal that let the owner read and write"),
        ("redis://h?wait_replicas=-1", "url='redis://h?wait_replicas=-1': wait_replicas='-1' must be a whole number"),
        ("redis://h?wait_replicas=x", "wait_replicas='x' must be a whole number from 0 on"),
        ("redis://h?wait_replicas=12345", "wait_replicas='12345' must be a whole number from 0 on"),
    ],
)
def test_a_value_that_is_no_secret_is_told_with_what_is_wrong_with_it(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        open_ledger(url)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0?wait_replicas=2", "valkeys://127.0.0.1:1?wait_replicas=2&tenant=t"]
)
def test_a_number_of_replicas_is_read_from_a_url(url: str) -> None:
    pytest.importorskip("redis")
    ledger: Any = open_ledger(url)
    assert ledger._runner._wait_replicas == 2
    with pytest.raises(ValueError, match="wait_replicas='2x' must be a whole number from 0 on"):
        open_ledger(url.replace("=2", "=2x"))
