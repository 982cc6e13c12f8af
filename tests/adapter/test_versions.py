"""A framework that is too old says so when its adapter is imported."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize("found", ["2.0", "2.0.1", "3"])
def test_a_version_that_is_too_new_is_refused_with_the_range(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda _: found)

    with pytest.raises(ImportError, match=re.escape(f"frame {found} is newer")) as refused:
        versions.require("frame", "1.4", below="2.0")

    assert '"frame>=1.4,<2.0"' in str(refused.value)


def test_a_version_in_the_range_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda _: "1.99.7")

    versions.require("frame", "1.4", below="2.0")
