"""The comparison with peers measures what it says: its scenarios and its table, with this library alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[1]
FIELD = ROOT / "benchmarks" / "field"


@pytest.fixture
def field(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `run`, and `scenarios`, which it imports as the peers do."""
    monkeypatch.syspath_prepend(str(FIELD))
    yield import_module("run")
    for name in ("run", "scenarios"):
        sys.modules.pop(name, None)


def measured(field: Any, *names: str) -> dict[str, Any]:
    """The scenarios *names* through this library, with answers that take no time, in this process."""
    from budget_guard.testing import LocalProvider

    scenarios = import_module("scenarios")
    peer = scenarios.load("budget_guard_py")
    results = {}
    for name in names:
        scenario = scenarios.SCENARIOS[name]._replace(delay_s=0.01)
        with LocalProvider(field.answers(scenario), prices=field.PRICES) as provider:
            told = scenarios.made(peer, scenario, scenarios.Place(provider.base_url))
            results[name] = {**told, **field.billed(provider)}
    return results


def this_library(field: Any) -> Any:
    """The first line of peers.txt."""
    first = field.peers()[0]
    assert first.module == "budget_guard_py"
    return first


def test_the_cap_holds_and_no_paid_answer_is_lost(field: Any) -> None:
    results = measured(field, "threads", "tasks", "row", "ignored", "storm", "storm-capped")

    row = field.Row(this_library(field), results)
    assert row.cells(["threads", "tasks", "row", "ignored", "lost"]) == ["0.00", "0.00", "0.00", "0.00", "0"]
    assert row.errors() == []
    assert all(result["returned"] == result["answered"] > 0 for result in results.values())
    assert float(row.cell("storm")) >= 0.9  # that, too, is below the cap: a share of it, without a bill beside it
    assert float(row.cell("storm-capped")) >= 0.6


def test_an_unknown_model_is_refused_and_prices_are_exact(field: Any) -> None:
    row = field.Row(this_library(field), measured(field, "unknown", "streamed", "cached"))

    assert row.cells(["unknown", "streamed", "cached"]) == ["refused", "exact", "exact"]


def test_what_peers_do_wrong_is_seen(field: Any) -> None:
    through = {"returned": 1, "whole": 1, "answered": 1, "sent": 1}
    lost = {"returned": 10, "whole": 10, "answered": 100, "sent": 100, "bill": 10.0}
    row = field.Row(
        this_library(field),
        {
            "threads": lost,
            "row": {"error": "no such model"},
            "storm": {"returned": 40, "whole": 40, "answered": 40, "sent": 40, "bill": 1.6},
            "unknown": {**through, "spent": 0.0, "bill": 0.0125},
            "streamed": {"unsupported": True},
            "cached": {**through, "spent": 0.02, "bill": 0.01625},
        },
    )

    cells = row.cells(["threads", "row", "lost", "storm", "unknown", "streamed", "cached", "tasks"])
    assert cells == ["+9.00", "error", "90", "1.60 (bill 1.60)", "free", "-", "1.23x", "-"]
    assert row.errors() == [f"{row.peer.name}, row: no such model"]


def test_own_work_is_measured_with_the_guard_and_without_it(field: Any) -> None:
    scenarios = import_module("scenarios")

    result = scenarios.own_work(scenarios.load("budget_guard_py"), batches=3, calls=2)

    assert result["plain_us"] > 0
    assert result["added_us"] + result["plain_us"] > 0


def test_own_work_is_the_least_of_several_processes(field: Any) -> None:
    runs = [{"plain_us": 500.0, "added_us": 90.0}, {"plain_us": 480.0, "added_us": 130.0}]

    assert field.own_work(runs) == {"plain_us": 480.0, "added_us": 110.0}
    assert field.own_work([*runs, {"error": "gone"}]) == {"error": "gone"}


def test_a_peer_that_cannot_be_installed_is_a_line(field: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(peer: Any, folder: Path) -> Path:
        raise field.NotInstalled("ERROR: No matching distribution found for peer")

    monkeypatch.setattr(field, "environment", fails)
    rows = field.compared(field.peers()[:1], tmp_path, None)

    text = "\n".join(field.as_text(rows))
    assert "budget_guard, installing: ERROR: No matching distribution found for peer" in text
    assert rows[0].cells(["threads", "lost", "storm"]) == ["-", "-", "-"]


def test_results_that_are_kept_are_not_measured_again(field: Any, tmp_path: Path) -> None:
    scenarios = import_module("scenarios")
    kept = tmp_path / "results.json"
    done = {"unsupported": True}
    names = [*scenarios.SCENARIOS, scenarios.OWN_WORK]
    kept.write_text(field.json.dumps({"budget_guard_py": dict.fromkeys(names, done)}), encoding="utf-8")

    rows = field.compared(field.peers()[:1], tmp_path, kept)

    assert list(rows[0].results) == names


def test_the_page_names_every_peer_and_its_version(field: Any) -> None:
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    tables = page.partition(field.BEGIN)[2].partition(field.END)[0]

    peers = field.peers()
    assert len({peer.requirements[0] for peer in peers}) >= 10  # this library, with its extra, and eight others
    for peer in peers:
        assert len(field.re.findall(rf"^\| {field.re.escape(peer.name)} \|", tables, field.re.MULTILINE)) == 3
        assert peer.pinned in tables
        assert (FIELD / "peers" / f"{peer.module}.py").exists()


def test_the_tables_replace_those_of_the_page(field: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before\n{field.BEGIN}\nold\n{field.END}\nAfter\n", encoding="utf-8")

    field.written_into(page, field.as_markdown([field.Row(this_library(field), {})]))

    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before\n") and text.endswith("After\n") and "old" not in text
    assert "| budget_guard | - | - | - | - | - | - |" in text
