"""What is in the wheel, what its metadata says, and what the import paths need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import budget_guard

pytest.importorskip("hatchling")

ROOT = Path(__file__).parent.parent


REPOSITORY = "https://github.com/budget-guard/budget-guard"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def wheel_names(wheel: zipfile.ZipFile) -> list[str]:
    """The names of its files."""
    return wheel.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """What an index shows of it. The body is the README."""
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(path).decode())


def test_the_wheel_holds_our_packages_and_nothing_else(wheel_names: list[str]) -> None:
    adapters = {folder.name for folder in (ROOT / "integrations").glob("budget_guard_*")}
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}

    assert tops == {"budget_guard"} | adapters


def test_the_wheel_holds_the_price_table_and_the_type_marks(wheel_names: list[str]) -> None:
    marks = {f"{name.split('/')[0]}/py.typed" for name in wheel_names if ".dist-info/" not in name}

    assert {"budget_guard/pricing/prices.json", *marks} <= set(wheel_names)


def test_the_metadata_names_the_distribution_and_the_version_that_the_package_says(metadata: Message) -> None:
    assert metadata["Name"] == "budget-guard-py"
    assert metadata["Version"] == budget_guard.__version__
    assert metadata["Author"] == "The budget_guard authors"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_metadata_leads_to_the_source_the_pages_the_changes_and_the_issues(metadata: Message) -> None:
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))

    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Source", "Issues"}
    assert [url for url in urls.values() if not url.startswith(REPOSITORY)] == []


def test_the_links_of_the_readme_work_on_an_index_page_too(metadata: Message) -> None:
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))

    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_extras_that_take_in_others_find_them_under_the_name_of_the_distribution(metadata: Message) -> None:
    needed = metadata.get_all("Requires-Dist", [])

    assert [line for line in needed if line.startswith("budget")] == []  # hatchling has put in what they stand for
    for framework in ("langchain-core", "openai-agents", "redis", "rich", "starlette"):
        assert [line for line in needed if line.startswith(framework) and "extra == 'all'" in line]


def test_the_extra_dev_has_the_sources_that_the_price_table_is_made_of(metadata: Message) -> None:
    sources = json.loads((ROOT / "budget_guard" / "pricing" / "prices.json").read_text("utf-8"))["sources"]
    wanted = {line.partition(";")[0].strip() for line in metadata.get_all("Requires-Dist", ()) if "'dev'" in line}

    assert sources and {f"{name}=={version}" for name, version in sources.items()} <= wanted


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
    assert f'pip install "budget-guard-py[{extra}]"' in run.stderr
