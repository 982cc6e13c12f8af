"""The pages as a site, and what a release is made of."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import budget_guard
from budget_guard import errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the pages are not here, but beside the source")


def reference() -> str:
    """The pages of the reference, as they are written."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))


def test_every_public_name_is_in_the_reference() -> None:
    text = reference()
    listed = set(re.findall(r"^::: budget_guard\.(\w+)$", text, re.MULTILINE))
    of_errors = {name for name, value in vars(errors).items() if inspect.isclass(value)}

    assert "::: budget_guard.errors" in text
    assert set(budget_guard.__all__) <= listed | of_errors
    assert listed <= {*budget_guard.__all__, *(p.stem for p in (ROOT / "budget_guard").iterdir())}


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, encoding="utf-8", env=environment)

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site" / "start" / "product" / "index.html").read_text(encoding="utf-8")
    assert "BudgetGuard" in page and "8&lt;" not in page


def release_script() -> dict[str, object]:
    """The names of scripts/release.py."""
    names: dict[str, object] = {"__name__": "release", "__file__": str(ROOT / "scripts" / "release.py")}
    exec(compile((ROOT / "scripts" / "release.py").read_text(encoding="utf-8"), "release.py", "exec"), names)
    return names


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    notes = release_script()["notes"]
    assert callable(notes)
    changelog = "# Changelog\n\n## Unreleased\n\n- Later.\n\n## 0.2.0 - 2026-12-01\n\n- New.\n\n## 0.1.0\n\n- Old.\n"

    assert notes(changelog, "0.2.0") == "# budget_guard 0.2.0\n\n- New.\n"
    assert notes("## Unreleased\n\nThis will be 0.3.0.\n\n- Next.\n", "0.3.0").endswith("- Next.\n")
    for text in ("## 0.2.0\n\n## 0.1.0\n\n- Old.\n", "## 0.1.0\n\n- Old.\n"):
        with pytest.raises(ValueError, match=r"0\.2\.0"):
            notes(text, "0.2.0")


def test_the_changelog_has_notes_for_the_version_of_the_package() -> None:
    script = release_script()
    version, notes = script["version"], script["notes"]
    assert callable(version) and callable(notes)

    assert version() == budget_guard.__version__
    assert notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version())
