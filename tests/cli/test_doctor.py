"""The doctor says of each adapter whether it is here and whether it holds, with the remedy."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from budget_guard.cli import doctor
from budget_guard.cli.main import main

HOLDS: dict[str, Any] = {
    "spent_usd": "0.045",
    "bill_usd": "0.045",
    "calls": 6,
    "stopped_by": "max_cost_usd",
    "error": None,
}
ADAPTERS = {adapter.name: adapter for adapter in doctor.ADAPTERS}


def looked_at(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str | None, seen: dict[str, Any] | None = None
) -> doctor.Finding:
    def known(distribution: str) -> str:
        if version is None:
            raise PackageNotFoundError(distribution)
        return version

    monkeypatch.setattr(doctor, "version", known)
    monkeypatch.setattr("budget_guard.adapter.versions.version", known)
    monkeypatch.setattr(doctor, "_driven", lambda _: seen)
    return doctor.look_at(ADAPTERS[name])


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_holds_says_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = looked_at(monkeypatch, name, "999", HOLDS)
    assert (found.state, found.words, found.is_bad) == ("holds", "stopped at $0.0450 of $0.05", False)


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_that_is_not_there_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = looked_at(monkeypatch, name, None)
    assert found.state == "not installed" and found.words.startswith('pip install "') and not found.is_bad


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_that_is_too_old_says_how_to_upgrade_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = looked_at(monkeypatch, name, "0.0.1", HOLDS)
    assert found.state == "too old" and found.words.startswith("pip install --upgrade ") and found.is_bad


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (
            {"spent_usd": "0", "bill_usd": "0.30", "stopped_by": None},
            "DOES NOT HOLD",
            "billed $0.30, $0.00 was counted",
        ),
        ({"bill_usd": "0.05", "spent_usd": "0.04"}, "DOES NOT HOLD", "$0.04 was counted"),
        ({"stopped_by": None, "error": "RuntimeError: on purpose"}, "broken", "RuntimeError: on purpose"),
        ({"stopped_by": None, "spent_usd": "0", "bill_usd": "0", "calls": 0}, "broken", "it was not stopped"),
        ({"calls": 0, "spent_usd": "0", "bill_usd": "0"}, "broken", "not stopped"),
        ({"stopped_by": "unknown_price", "error": None}, "broken", "not stopped"),
        ({"crashed": "SyntaxError: x"}, "broken", "SyntaxError: x; try: pip install --force-reinstall"),
    ],
)
def test_one_that_does_not_hold_or_is_broken_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], state: str, words: str
) -> None:
    found = looked_at(monkeypatch, "openai", "999", {**HOLDS, **seen})
    assert found.state == state and words in found.words and found.is_bad


def test_one_that_cannot_be_tried_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked_at(monkeypatch, "langchain", "999", {"missing": "langchain_openai"})
    assert found[2:] == ("not tried", "langchain_openai is missing: pip install langchain-openai")
    assert looked_at(monkeypatch, "openai", "999", {"missing": "openai"}).state == "broken"
    assert doctor.look_at(ADAPTERS["httpx"], can_try=False).words.endswith('pip install "budget-guard-py[testing]"')


def test_one_that_never_ends_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(monkeypatch, "openai", "999", HOLDS)

    def endless(name: str) -> None:
        raise subprocess.TimeoutExpired(name, 180)

    monkeypatch.setattr(doctor, "_driven", endless)
    assert doctor.look_at(ADAPTERS["openai"]).state == "broken"


def test_the_oldest_versions_are_those_of_the_extras() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for adapter in doctor.ADAPTERS:
        if adapter.extra is not None:
            assert f'{adapter.extra} = ["{adapter.distribution}>={adapter.floor}"]' in text


def test_another_distribution_under_our_import_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "budget_guard_llm-0.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: budget-guard-llm\nVersion: 0.4\n")
    (info / "RECORD").write_text("budget_guard/__init__.py,,\n")
    assert doctor._others() == []
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    (found,) = doctor._others()
    assert (found.name, found.state) == ("budget-guard-llm", "broken")
    assert "pip uninstall budget-guard-llm" in found.words


def test_the_answer_is_bad_news_where_one_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    looked_at(monkeypatch, "openai", "999", HOLDS)
    assert main(["doctor", "openai", "httpx"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and [line.split()[0] for line in out.splitlines()] == ["budget_guard", "prices", "openai", "httpx"]
    assert max(map(len, out.splitlines())) <= 80
    looked_at(monkeypatch, "openai", "999", {**HOLDS, "bill_usd": "1"})
    assert main(["doctor", "openai", "--json"]) == 1
    assert json.loads(capsys.readouterr()[0])[-1]["state"] == "DOES NOT HOLD"
    assert main(["doctor", "opnai"]) == 2
    assert "no adapter: name one of openai" in capsys.readouterr()[1]


@pytest.mark.parametrize("name", ["openai", "anthropic", "httpx", "openai-agents", "langchain", "mcp"])
def test_what_is_installed_here_is_driven_and_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("OPENAI_API_KEY", "a key that no drive may see")
    found = doctor.look_at(ADAPTERS[name])
    if found.state in ("not installed", "not tried"):
        pytest.skip(found.words)
    assert (found.state, found.words[:11]) == ("holds", "stopped at ")


def test_a_guard_that_guards_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.abc, importlib.util\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name != 'budget_guard.session.session': return None\n"
        "        sys.meta_path.remove(self)\n"
        "        spec = importlib.util.find_spec(name)\n"
        "        load = spec.loader.exec_module\n"
        "        def broken(module):\n"
        "            load(module)\n"
        "            module.Session.guard = lambda self, client, **_: client\n"
        "        spec.loader.exec_module = broken\n"
        "        return spec\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = doctor.look_at(ADAPTERS["httpx"])
    assert found.state == "DOES NOT HOLD" and "$0.30" in found.words
