"""Put an adapter to the checks, in an environment that has its framework, and print them as one table.

::

    python scripts/framework_checks.py pydantic_ai --python /tmp/pydantic-ai/bin/python
    python scripts/framework_checks.py pydantic_ai=/tmp/pydantic-ai/bin/python crewai=/tmp/crewai/bin/python --types

A row is a check of tests/integrations/frameworks.py, a column an adapter. Ends with 1 if one fails.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
OTHER = "  others of its own"


def rows_of(path: Path) -> dict[str, str]:
    """By the names of tests, the rows that they belong to: what their docstrings begin with a digit or a dash say."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            said = ast.get_docstring(node) or ""
            if said[:2].strip().isdigit() or said.startswith("- "):
                found[node.name] = said
    return found


def run(name: str, python: str, processes: int) -> tuple[dict[str, str], list[str], int]:
    """Run the tests of the adapter *name*. Returns what became of each row, the reasons of what is left out, and the
    exit code."""
    folder = ROOT / "tests" / "integrations" / name
    rows = rows_of(ROOT / "tests" / "integrations" / "frameworks.py")
    for path in folder.glob("test_*.py"):
        rows |= rows_of(path)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        spread = ["--numprocesses", str(processes)] if processes > 1 else []
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *spread, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])},
            capture_output=True,
            text=True,
        )
        if done.returncode or not report.exists():
            print(done.stdout[-20_000:], done.stderr[-5_000:], sep="\n", file=sys.stderr)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    outcomes: dict[str, list[str]] = defaultdict(list)
    left_out: list[str] = []
    for case in cases:
        row = rows.get(case.get("name", "").partition("[")[0], OTHER)
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcomes[row].append("FAILS")
        elif skipped is not None:
            outcomes[row].append("n/a")
            left_out.append(f"{name}: {row}: {skipped.get('message')}")
        else:
            outcomes[row].append("ok")
    return {row: _cell(all_of) for row, all_of in outcomes.items()}, left_out, done.returncode


def _cell(outcomes: list[str]) -> str:
    if "FAILS" in outcomes:
        return "FAILS"
    done = [each for each in outcomes if each != "n/a"]
    return f"ok {len(done)}" if done else "n/a"


CHECKED_BY_A_CONFIG = ("litellm",)
"""Adapters for which pyright gets a configuration: files that pyproject.toml excludes it does not check by name."""


@contextmanager
def _config_of_pyright(files: list[str]) -> Iterator[str]:
    """A configuration for *files* alone, beside pyproject.toml: pyright's paths are relative to it."""
    config = {
        "typeCheckingMode": "strict",
        "include": [os.path.relpath(ROOT / file, ROOT) for file in files],
        "extraPaths": ["integrations"],
        "reportUnnecessaryIsInstance": False,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix=".pyright-", dir=ROOT) as file:
        json.dump(config, file)
        file.flush()
        yield file.name


def types(name: str, python: str) -> int:
    """Check the types of the adapter *name*, strictly, twice."""
    # by file: folders are left out of the checks where the framework is not installed
    adapter = sorted((ROOT / "integrations" / f"budget_guard_{name}").glob("*.py"))
    face, example = Path("budget_guard", "integrations", f"{name}.py"), ROOT / "examples" / "frameworks"
    files = [str(path) for path in (face, *adapter, Path("tests", "typing", f"{name}.py"))]
    tests = [*(ROOT / "tests" / "integrations" / name).glob("*.py"), *example.glob(f"{name}*.py")]
    more = [str(path) for path in tests]
    tools = Path(sys.executable).parent
    if name in CHECKED_BY_A_CONFIG:
        with _config_of_pyright(files) as config:
            pyright = [str(tools / "pyright"), "--project", config, "--pythonpath", python]
            failed = subprocess.run(pyright, cwd=ROOT).returncode
        mypy = [str(tools / "mypy"), "--follow-imports", "silent", "--python-executable", python, *files, *more]
        return max(failed, subprocess.run(mypy, cwd=ROOT).returncode)
    checks = (
        # the rest of the package is checked where all that it needs is installed
        [str(tools / "mypy"), "--follow-imports", "silent", "--python-executable", python, *files, *more],
        [str(tools / "pyright"), "--pythonpath", python, *files],
    )
    return max(subprocess.run(command, cwd=ROOT).returncode for command in checks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+", metavar="NAME[=PYTHON]")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of adapters that name none")
    parser.add_argument("--types", action="store_true", help="check their types as well")
    parser.add_argument("--numprocesses", type=int, default=1, help="how many processes run the tests of one adapter")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    left_out: list[str] = []
    failed = 0
    for each in arguments.adapters:
        name, _, python = each.partition("=")
        columns[name], more, code = run(name, python or arguments.python, arguments.numprocesses)
        left_out += more
        failed = max(failed, code)
        if arguments.types:
            failed = max(failed, types(name, python or arguments.python))
    rows = sorted({row for column in columns.values() for row in column}, key=lambda row: (row[0] == " ", row))
    width = max(map(len, rows), default=0)
    print(f"{'':{width}}  " + "  ".join(f"{name:15}" for name in columns))
    for row in rows:
        print(f"{row:{width}}  " + "  ".join(f"{column.get(row, '-'):15}" for column in columns.values()))
    for line in left_out:
        print(f"n/a  {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
