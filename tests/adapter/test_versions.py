"""A framework that is too old says so when its adapter is imported."""

from __future__ import annotations

import pytest

from budget_guard.adapter import versions


@pytest.mark.parametrize(("found", "floor"), [("2.63.9", "2.64"), ("1.15", "2.0"), ("0.13.99", "0.14.1")])
def test_an_older_version_is_refused_with_the_pip_line(monkeypatch: pytest.MonkeyPatch, found: str, floor: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: found)
    with pytest.raises(ImportError, match=rf'pip install --upgrade "frame>={floor}"'):
        versions.require("frame", floor)


@pytest.mark.parametrize(("found", "floor"), [("2.64.0", "2.64"), ("2.100.1", "2.64"), ("3.0rc1", "2.64"), ("?", "")])
def test_a_later_version_passes(monkeypatch: pytest.MonkeyPatch, found: str, floor: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: found)
    versions.require("frame", floor)


def test_a_package_that_nobody_knows_passes() -> None:
    versions.require("budget-guard-no-such-package", "1.0")
