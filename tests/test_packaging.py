"""What is in the wheel, and what the import paths need."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_our_packages_and_nothing_else(wheel_names: list[str]) -> None:
    adapters = {folder.name for folder in (ROOT / "integrations").glob("budget_guard_*")}
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}

    assert tops == {"budget_guard"} | adapters


def test_the_wheel_holds_the_price_table_and_the_type_marks(wheel_names: list[str]) -> None:
    marks = {f"{name.split('/')[0]}/py.typed" for name in wheel_names if ".dist-info/" not in name}

    assert {"budget_guard/pricing/prices.json", *marks} <= set(wheel_names)


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("budget_guard.integrations.langchain", "langchain_core", "langchain"),
        ("budget_guard.integrations.openai_agents", "agents", "openai-agents"),
        ("budget_guard.testing", "starlette", "testing"),
    ],
)
def test_a_missing_extra_is_named_with_the_line_that_installs_it(module: str, missing: str, extra: str) -> None:
    use = "budget_guard.testing.LocalProvider().start()" if extra == "testing" else ""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport {module}, budget_guard.testing\n{use}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert f'pip install "budget-guard[{extra}]"' in run.stderr
