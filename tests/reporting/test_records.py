"""A run log keeps what was added, from several processes, and says no to what it cannot read."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from budget_guard.reporting import RunLog, RunRecord

START = datetime(2026, 11, 1, tzinfo=timezone.utc)
NAMES = ("runs.jsonl", "runs.db")


def record(number: int = 0, **fields: Any) -> RunRecord:
    given: dict[str, Any] = {"id": f"r{number}", "started_at": START + timedelta(hours=number), "outcome": "ok"}
    return RunRecord(**{**given, "cost": 1_500_000, **fields})


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_what_was_added_is_read_in_its_order(path: Path) -> None:
    added = [
        record(0, task="summarise", by_model={"gpt-4o": 1_500_000}, limit=2_000_000_000),
        record(1, outcome="stopped", terminated_by="max_cost_usd", uncertain=7, seconds=2.5),
        record(2, id='a "quoted"\nname — ü'),
    ]
    log = RunLog(path)
    for each in added:
        log.add(each)

    assert list(RunLog(path)) == added
    assert list(log.records(task="summarise")) == added[:1]
    assert list(log.records(since=START + timedelta(hours=1))) == added[1:]
    assert (added[0].cost_usd, added[0].limit_usd, added[1].limit_usd) == (Decimal("0.0015"), Decimal(2), None)


def test_an_empty_log_is_made_with_its_first_record_for_its_owner_alone(path: Path) -> None:
    log = RunLog(path)
    assert list(log) == [] and not path.exists()

    log.add(record())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _write(path: str, first: int) -> None:
    log = RunLog(path)
    for number in range(first, first + 50):
        log.add(record(number, by_tool={"x" * 500: number}))


def test_several_processes_write_at_once(path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_write, args=(str(path), 50 * n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    log = RunLog(path)
    assert log.skipped == 0
    assert sorted(int(each.id[1:]) for each in log) == list(range(200))
    assert log.skipped == 0


@pytest.mark.parametrize(
    "lie",
    [{"cost": -1}, {"cost": 1.5}, {"seconds": "nan"}, {"outcome": "great"}, {"started_at": "2026-11-01T00:00:00"}],
)
def test_records_that_lie_are_left_out_and_counted(tmp_path: Path, lie: dict[str, Any]) -> None:
    good = record().model_dump(mode="json")
    with pytest.raises(ValidationError):
        RunRecord.model_validate({**good, **lie})

    lines = tmp_path / "runs.jsonl"
    lines.write_text("".join(json.dumps({"version": 1, **each}) + "\n" for each in (good, {**good, **lie}, good)))
    database = tmp_path / "runs.db"
    RunLog(database).add(record())
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("INSERT INTO run (record) VALUES (?)", (json.dumps({**good, **lie}),))

    for log, whole in ((RunLog(lines), 2), (RunLog(database), 1)):
        assert (len(list(log)), log.skipped) == (whole, 1)


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    log = RunLog(path)
    log.add(record(2))
    log.add(record(0))
    assert path.read_text().count("\n") == 2
    with path.open("a") as file:
        file.write('{"version": 1, "id": "kil')

    log.add(record(1))

    assert [each.id for each in log] == ["r2", "r0", "r1"]
    assert log.skipped == 1


def test_a_newer_log_is_refused_and_left_as_it_is(path: Path) -> None:
    RunLog(path).add(record())
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 2")
    else:
        path.write_text(path.read_text() + '{"version": 2, "id": "from the future"}\n')
    before = path.read_bytes()

    with pytest.raises(ValueError, match=r"newer budget_guard \(version 2 of the file.*pip install --upgrade"):
        RunLog(path)
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_and_left_as_it_is(path: Path) -> None:
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
    else:
        path.write_text("a shopping list\n")
    before = path.read_bytes()

    with pytest.raises(ValueError, match=r"another program's|no run log"):
        RunLog(path)
    assert path.read_bytes() == before


def test_bytes_that_are_no_database_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(ValueError, match="cannot be read as a run log"):
        RunLog(path)


@pytest.mark.parametrize("name", ["", ".", "nowhere/runs.db"])
def test_a_path_that_is_no_file_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must name a file"):
        RunLog(name)


def test_a_time_without_a_zone_is_an_error(path: Path) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        list(RunLog(path).records(since=START.replace(tzinfo=None)))
