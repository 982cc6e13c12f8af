"""Break the code in small ways, and see which breaks no test notices.

Run with ``make mutants``, or ``python scripts/mutants.py --sample 300 --seed 7``. Each mutant is one change of one
line: a comparison that lets one more in, a condition turned round, a statement left out, a lock dropped, a default
changed; in the Lua scripts as well. It is run by the tests that cover its line, in a copy of the tree, several at once.
A test that fails or hangs notices it. ``mutants_runner.py`` collects the tests once and forks for each mutant; time is
CPU time, so that a busy machine comes to the same score.

What is kept in ``.mutants/``: which tests cover which lines (made by running every test once; ``--map`` makes it anew,
or adds what is named after ``--tests`` to it), and what became of each mutant, so that a run that was stopped goes on.

A mutant that no test notices is printed as a survivor. One that changes no behaviour is not the tests' fault. Where
that is certain from the code around it, it is not made: ``mutants_left_out.py`` says where. Any other is listed with
its reason in ``tests/equivalent_mutants.txt``, and left out of the score.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple, TypeAlias

from mutants_left_out import changes_nothing

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".mutants"
"""Where the map and the results are kept."""
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
TARGETS = ("budget_guard", "integrations/budget_guard_openai_agents", "integrations/budget_guard_langchain")
LEFT_OUT = (
    "budget_guard/testing/",
    "budget_guard/integrations/",
    "budget_guard/pricing/prices.json",
    "budget_guard/cli/drives.py",
)
"""What is made for tests, the faces of adapters, and the programs that `doctor` runs against each adapter: they stand
for a user's own, and most need frameworks that are not installed together."""
COPIED = (
    "budget_guard",
    "integrations",
    "tests",
    "examples",
    "scripts",
    "docs",
    "benchmarks",
    "deploy",
    "pyproject.toml",
    "README.md",
    "Makefile",
)
LUA_TESTS = (
    *("tests/ledger/test_redis.py", "tests/ledger/test_redis_faults.py"),
    "tests/test_public_api.py::test_constants_and_defaults",
)
_ARGUMENT = re.compile(r"argument (\w+) left out")
_SET = re.compile(r"\s*(\w+)(?:: [^=]+)? = ")
_FEW = 50
"""So many tests that name an argument come before those that do not."""
OF_ALL = ("tests/test_architecture.py", "tests/test_public_api.py")
"""Their tests read every file, or look at every public name: they belong to whatever is run while it is imported."""
MOST_AT_ONCE = (
    *("tests/session/test_stories.py", "tests/wire/test_reference.py"),
    *("tests/ledger/test_reference.py", "tests/reporting/test_reference.py", "tests/adapter/test_reference.py"),
    *("tests/cli/test_reference.py", "tests/events/test_reference.py", "tests/pricing/test_reference.py"),
    *("tests/policy/test_reference.py", "tests/session/test_guarded_by_locks.py"),
    *("tests/protocol/test_reference.py", "tests/calls/test_reference.py", "tests/pricing/test_ladders.py"),
    *("tests/integrations/langchain/test_reference.py", "tests/integrations/openai_agents/test_reference.py"),
    *("tests/test_architecture.py::test_values_are", "tests/test_public_api.py::test_names_arguments"),
    *("tests/test_public_api.py::test_constants_and", "tests/test_live.py::test_lines_and_boards"),
)
"""Tests that compare the most at once. They come before others, though many are faster."""
_FURTHER = re.compile(r"\[\w+-(?:[3-9]|\d\d)\]$")
"""The further groups of made-up runs of one kind, which are much alike: they come among the others."""
_IGNORED = tuple(f"--ignore=tests/test_{name}.py" for name in ("readme", "examples", "packaging"))
"""Their programs run in processes of their own, where nothing sees which lines they run."""
_PYTEST = (sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider")


Result: TypeAlias = Literal["noticed", "hung", "survived", "not covered", "elsewhere"]


class Mutant(NamedTuple):
    """One change of one place."""

    path: str
    line: int
    start: int
    """Where the text that is replaced begins in the file, in characters."""
    end: int
    new: str
    what: str
    """The kind of change."""
    lines: Sequence[int] = ()
    """The lines of which one is run where the mutant is: its own, or those of its statement."""


class Outcome(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    result: Result
    by: str
    """The test that noticed."""
    before: str
    after: str


# Mutants of Python

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_ARITHMETIC: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.FloorDiv(),
    ast.FloorDiv: ast.Mult(),
    ast.Div: ast.Mult(),
    ast.BitOr: ast.BitAnd(),
}


def mutants_of_python(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = text.splitlines()
    tree = ast.parse(text)
    statements = _statements(tree)
    harmless = changes_nothing(tree)

    def at(line: int, column: int) -> int:  # columns are counted in bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def change(node: ast.expr | ast.stmt, new: str, what: str) -> Mutant:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)
        return Mutant(path, node.lineno, start, end, new, what, statements.get(node.lineno, (node.lineno,)))

    for node in _walk(tree):
        if node in harmless:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
            yield change(node, f"{left} {_COMPARISONS[type(node.ops[0])]} {right}", "comparison")
        elif isinstance(node, ast.BoolOp):
            other: ast.boolop = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield change(node, f"({ast.unparse(ast.BoolOp(other, node.values))})", "and or")
            yield change(node, f"({ast.unparse(node.values[0])})", "condition left out")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield change(node, f"({ast.unparse(node.operand)})", "not left out")
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            if not _is_text(node.left) and not _is_text(node.right):
                new = ast.BinOp(node.left, _ARITHMETIC[type(node.op)], node.right)
                yield change(node, f"({ast.unparse(new)})", "arithmetic")
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, bool):
                yield change(node, str(not node.value), "constant")
            elif isinstance(node.value, int):
                yield change(node, str(node.value + 1), "constant")
        elif isinstance(node, (ast.If, ast.While)):
            yield change(node.test, f"(not ({ast.unparse(node.test)}))", "condition turned round")
        elif isinstance(node, ast.IfExp):
            yield change(node, f"({ast.unparse(node.body)})", "condition left out")
            yield change(node, f"({ast.unparse(node.orelse)})", "condition left out")
        elif (
            isinstance(node, ast.Return) and node.value is not None and not _is_constant(node.value, None, True, False)
        ):
            yield change(node.value, "None", "return value")
        elif isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise)):
            yield change(node, "pass", "statement left out")
        elif isinstance(node, ast.Assign) and all(
            isinstance(each, (ast.Attribute, ast.Subscript)) for each in node.targets
        ):
            yield change(node, "pass", "statement left out")
        elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await)):
            yield change(node, "pass", "statement left out")
        elif isinstance(node, ast.Break):
            yield change(node, "continue", "break continue")
        elif isinstance(node, ast.Continue):
            yield change(node, "break", "break continue")
        elif isinstance(node, ast.With) and all("lock" in ast.unparse(each.context_expr) for each in node.items):
            first, last = node.items[0].context_expr, node.items[-1].context_expr
            assert last.end_lineno is not None and last.end_col_offset is not None
            start, end = at(first.lineno, first.col_offset), at(last.end_lineno, last.end_col_offset)
            nothing = "__import__('contextlib').nullcontext()"
            yield Mutant(path, node.lineno, start, end, nothing, "lock dropped", (node.lineno,))
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None and keyword not in harmless:
                    rest = [each for each in node.keywords if each is not keyword]
                    new_call = ast.Call(node.func, node.args, rest)
                    yield change(node, ast.unparse(new_call), f"argument {keyword.arg} left out")


def _statements(tree: ast.AST) -> dict[int, Sequence[int]]:
    """Of each line the lines of its statement; of one with a body, those before it."""
    found: dict[int, Sequence[int]] = {}
    for node in ast.walk(tree):  # the outer ones come first
        if isinstance(node, ast.stmt):
            body: list[ast.stmt] = getattr(node, "body", [])
            end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            span = range(node.lineno, end + 1)
            found.update(dict.fromkeys(span, span))
    return found


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are run: no annotations, docstrings, logging, messages, or what is for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Expr) and (
            isinstance(node.value, ast.Constant) or ast.unparse(node).startswith("_log.")
        ):
            continue
        if isinstance(node, (ast.JoinedStr, ast.arg, ast.Import, ast.ImportFrom, ast.Assert)):
            continue
        if isinstance(node, ast.AnnAssign):
            if node.value is not None and "TypeAlias" not in ast.unparse(node.annotation):
                yield from _walk_one(node.value)
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if any("overload" in ast.unparse(each) or "abstract" in ast.unparse(each) for each in node.decorator_list):
                continue
            for each in (
                *node.args.defaults,
                *(each for each in node.args.kw_defaults if each is not None),
                *node.body,
            ):
                yield from _walk_one(each)
            continue
        yield node
        yield from _walk(node)


def _walk_one(node: ast.AST) -> Iterator[ast.AST]:
    holder = ast.Module([], [])
    holder.body = [node]  # type: ignore[list-item]  # an expression as well: it is walked, not compiled
    return _walk(holder)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def _is_constant(node: ast.AST, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is each for each in values)


# Mutants of Lua

_LUA = (
    (re.compile(r" (<=) "), " < ", "comparison"),
    (re.compile(r" (<) "), " <= ", "comparison"),
    (re.compile(r" (>=) "), " > ", "comparison"),
    (re.compile(r" (>) "), " >= ", "comparison"),
    (re.compile(r" == "), " ~= ", "comparison"),
    (re.compile(r" ~= "), " == ", "comparison"),
    (re.compile(r" \+ "), " - ", "arithmetic"),
    (re.compile(r" - "), " + ", "arithmetic"),
    (re.compile(r" and "), " or ", "and or"),
    (re.compile(r" or "), " and ", "and or"),
    (re.compile(r"\bnot "), "", "not left out"),
    (re.compile(r"(?<![\w.'\[])(\d+)(?![\w'.\]])"), None, "constant"),
    (re.compile(r"^\s*(?:redis\.call|wrote|settled|remember|move|fence|made)\(.*\)$"), "", "statement left out"),
)


def mutants_of_lua(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a script."""
    start = 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        code = line.partition("--")[0].rstrip("\n")
        for pattern, new, what in _LUA:
            for found in pattern.finditer(code):
                words = str(int(found[1]) + 1) if new is None else new
                yield Mutant(path, number, start + found.start(), start + found.end(), words, what)
        condition = re.match(r"(\s*(?:else)?if )(.*)( then)$", code)
        if condition is not None:
            new = f"not ({condition[2]})"
            yield Mutant(
                path, number, start + condition.start(2), start + condition.end(2), new, "condition turned round"
            )
        start += len(line)


def all_mutants(folders: Sequence[str]) -> list[Mutant]:
    """Every mutant of every file in *folders*."""
    found: list[Mutant] = []
    for folder in folders:
        base = ROOT / folder
        for file in sorted(base.rglob("*") if base.is_dir() else [base]):
            path = file.relative_to(ROOT).as_posix()
            if file.suffix not in (".py", ".lua") or path.startswith(LEFT_OUT):
                continue
            text = file.read_text("utf-8")
            found.extend((mutants_of_python if file.suffix == ".py" else mutants_of_lua)(path, text))
    return found


# Which tests cover which lines

PLUGIN = '''
"""Notes which lines of the library each test runs, and how many seconds of CPU it takes."""
import json, os
import coverage, pytest

cov = coverage.Coverage(config_file=os.environ["MUTANTS_RC"], data_suffix=True)
cov.start()
ends = []

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    mine, began = os.getpid(), sum(os.times()[:4])
    os.environ["MUTANTS_TEST"] = item.nodeid.replace("$", "$$")
    cov.switch_context(item.nodeid)
    yield
    if os.getpid() == mine:  # and not a fork of it
        with open(os.path.join(os.environ["MUTANTS_OUT"], f"seconds.{mine}"), "a") as out:
            out.write(json.dumps([item.nodeid, sum(os.times()[:4]) - began]) + "\\n")
        cov.switch_context("")

def pytest_sessionfinish():
    cov.stop()
    cov.save()
'''
OF_CHILDREN = '''
"""Notes the same of processes that a test starts."""
import os
if os.environ.get("MUTANTS_TEST"):
    import coverage
    os.environ["COVERAGE_PROCESS_START"] = os.environ["MUTANTS_RC"]
    coverage.process_startup()
'''
RC = """
[run]
data_file = ${MUTANTS_OUT}/lines
context = ${MUTANTS_TEST-}
parallel = true
sigterm = true
source =
  ${MUTANTS_ROOT}/budget_guard
  ${MUTANTS_ROOT}/integrations
disable_warnings =
  trace-changed, no-data-collected, module-not-imported, module-not-measured, already-imported, no-sysmon
"""


class Coverage:
    """Which tests run which lines, and how many seconds of CPU each takes."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = json.loads((folder / "seconds.json").read_text())
        self.reach: dict[str, int] = json.loads((folder / "reach.json").read_text())
        """How many lines of the library each test runs."""
        self._sources = _sources()
        self._numbers: dict[str, dict[int, int]] = {}
        self._data: Any = import_module("coverage").CoverageData(str(folder / "lines"))
        self._data.read()
        self._files: dict[str, dict[int, list[str]]] = {}
        self._words: dict[str, dict[str, set[str]]] = {}
        self._trees: dict[str, ast.Module] = {}
        self.stale: set[str] = set()

    def _words_of(self, test: str) -> set[str]:
        """The words in the function that a test is."""
        path, _, name = test.partition("::")
        if path not in self._words:
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            text = (ROOT / path).read_text("utf-8") if (ROOT / path).exists() else ""
            found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, functions)]
            self._words[path] = {
                node.name: set(re.findall(r"\w+", ast.get_source_segment(text, node) or "")) for node in found
            }
        return self._words[path].get(name.partition("[")[0].rpartition("::")[2], set())

    def _lines(self, path: str) -> dict[int, list[str]]:
        if path not in self._files:
            self._files[path] = self._data.contexts_by_lineno(path)
        return self._files[path]

    def _were(self, path: str) -> dict[int, int]:
        """Of each line of a file the number that it had when the map was made; what has changed since has none."""
        if path not in self._numbers:
            was, now = self._sources.get(path, ""), (ROOT / path).read_text("utf-8")
            if was != now:
                self.stale.add(path)
            self._numbers[path] = numbers_before(was, now)
        return self._numbers[path]

    def of(self, mutant: Mutant, seconds: float, noticed: Mapping[tuple[str, str], int] | None = None) -> list[str]:
        """The tests that run the line of *mutant*, in about so many *seconds* of CPU: those of its own file first, then
        of its room, and at least half of the time for all others. Those that name an argument which is left out are
        among them before all others, then what compares the most at once; then, of each file, those that have *noticed*
        other mutants of the module, then the fastest, and of these the ones that run little else.

        What is run while a module is imported, or while tests are collected, belongs to every test that runs anything
        of the module, and to every test of its room; so does what was written since the map was made. Those that run
        the line by themselves come first, and with them those that run a line which names what is set there.
        """
        noticed = noticed or {}
        argument = _ARGUMENT.fullmatch(mutant.what)

        def names_it(test: str) -> bool:
            return argument is not None and argument[1] in self._words_of(test)

        def order(test: str) -> tuple[object, ...]:
            took = round(self.seconds[test] + 0.05, 1)
            known = -noticed.get((mutant.path, test), 0)
            compares = _compares_most(test)
            return not names_it(test), _distance(mutant, test), not compares, known, took, self.reach.get(test, 0)

        more: set[str] = set()
        if mutant.path.endswith(".lua"):
            found = {test for test in self.seconds if test.startswith(LUA_TESTS)}
        else:
            lines = self._lines(mutant.path)
            were = self._were(mutant.path)
            known = [were[each] for each in mutant.lines if each in were]
            here = [lines[each] for each in known if each in lines]
            found = set(lines.get(were.get(mutant.line, 0), ())) or set().union(*here)
            outside = self._outside(mutant)
            if not found or "" in found or outside:  # it is new, or run while no test was, or in a forked process
                users = self._users(mutant, outside)
                found = users if outside else found | users  # who imports it in a process of its own is no user
                more = set().union(*lines.values())
                of_all = {test for test in self.seconds if test.startswith(OF_ALL)}
                more |= {test for test in self.seconds if _distance(mutant, test) < 2} | of_all
                found |= {test for test in of_all if test.startswith(MOST_AT_ONCE)}
        chosen: list[str] = []
        for tests in (found, more - found):
            near: list[str] = []
            far: list[str] = []
            for test in sorted(tests & self.seconds.keys(), key=order):
                (near if _distance(mutant, test) < 2 else far).append(test)
            left = seconds - sum(self.seconds[test] for test in chosen)
            of_near = self._few(near, left / 2 if far else left, chosen)
            left -= sum(self.seconds[test] for test in of_near)
            named = list(filter(names_it, far))
            compare = list(filter(_compares_most, far))
            of_far = self._few(list(dict.fromkeys([*named[:_FEW], *compare, *_by_turns(far)])), left, chosen)
            place = {test: at for at, test in enumerate((*of_near, *of_far))}
            chosen += sorted(place, key=lambda test: (_distance(mutant, test), _server(test), place[test]))
        return chosen

    def _outside(self, mutant: Mutant) -> ast.stmt | None:
        """The statement that a mutant is in where that is run while its module is imported: one of the module, the
        head of a class or function, a field."""

        def within(body: Sequence[ast.stmt]) -> ast.stmt | None:
            for node in body:
                first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
                if first <= mutant.line <= (node.end_lineno or node.lineno):
                    inner: list[ast.stmt] = getattr(node, "body", [])
                    if not inner or mutant.line < inner[0].lineno:
                        return node
                    return within(inner) if isinstance(node, (ast.ClassDef, ast.If, ast.Try)) else None
            return None

        if mutant.path not in self._trees:
            self._trees[mutant.path] = ast.parse((ROOT / mutant.path).read_text("utf-8"))
        return within(self._trees[mutant.path].body)

    def _users(self, mutant: Mutant, outside: ast.stmt | None) -> set[str]:
        """The tests that run what uses that which is set where the mutant is: the number that a function compares with
        is set while its module is imported, and so are a field and an argument's default."""
        if isinstance(outside, (ast.FunctionDef, ast.AsyncFunctionDef)):
            were, tests = self._were(mutant.path), self._lines(mutant.path)
            inside = range(outside.body[0].lineno, (outside.end_lineno or 0) + 1)
            return set().union(*(tests.get(were.get(line, 0), ()) for line in inside)) - {""}
        if outside is None:
            return set()
        if isinstance(outside, ast.ClassDef):
            name: str = outside.name
        else:
            found_name = _SET.match((ROOT / mutant.path).read_text("utf-8").splitlines()[outside.lineno - 1])
            if found_name is None:
                return set()
            name = found_name[1]
        named = re.compile(rf"\b{name}\b")
        found: set[str] = set()
        for path in [mutant.path] if name.startswith("_") else self._sources:
            if path.endswith(".py") and (ROOT / path).exists():
                were, tests = self._were(path), self._lines(path)
                text = (ROOT / path).read_text("utf-8")
                for number, line in enumerate(text.splitlines(), 1) if name in text else ():
                    if named.search(line) and "" not in (of_line := tests.get(were.get(number, 0), ())):
                        found.update(of_line)  # and not of one that imports it, or sets it
        return found

    def _few(self, tests: Sequence[str], seconds: float, others: Sequence[str]) -> list[str]:
        """The first of *tests*, as many as take *seconds*; where there are no *others*, one at least."""
        chosen: list[str] = []
        for test in tests:
            seconds -= self.seconds[test]
            if seconds < 0 and (chosen or others):
                break
            chosen.append(test)
        return chosen


def _compares_most(test: str) -> bool:
    return test.startswith(MOST_AT_ONCE) and _FURTHER.search(test) is None


def _distance(mutant: Mutant, test: str) -> int:
    """How far away from the mutant a test is: in the test file of its module, in that of its room, or elsewhere."""
    path = Path(mutant.path).with_suffix("")
    room = path.parts[1] if len(path.parts) > 2 else ""
    if mutant.path.startswith("integrations/"):
        room = "integrations/" + path.parts[1].removeprefix("budget_guard_")
    file = test.partition("::")[0]
    return 0 if Path(file).stem == f"test_{path.name}" else 1 if file.startswith((f"tests/{room}/", *OF_ALL)) else 2


def _by_turns(tests: Iterable[str]) -> list[str]:
    """One of each file, then a second one of each, and so on: those of one file have much in common."""
    turns: dict[str, int] = {}
    turn: dict[str, int] = {}
    for test in tests:
        file = test.partition("::")[0]
        turn[test] = turns[file] = turns.get(file, 0) + 1
    return sorted(turn, key=lambda test: turn[test])


def _server(test: str) -> str:
    """The tests of one file share a server of Redis, so they run in one go."""
    file = test.partition("::")[0]
    return file if "redis" in file else ""


def hash_of(path: str) -> str:
    """What a file says, in short."""
    return hashlib.sha1((ROOT / path).read_bytes(), usedforsecurity=False).hexdigest()[:10]


def coverage(anew: bool, processes: int, tests: Sequence[str]) -> Coverage:
    """The map, made where it is not there. Named *tests* are added to it."""
    if anew or not (FOLDER / "lines").exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as out:
            (Path(out) / "mutants_plugin.py").write_text(PLUGIN)
            (Path(out) / "sitecustomize.py").write_text(OF_CHILDREN)
            (Path(out) / "rc").write_text(RC)
            environment = _environment(ROOT) | {
                "MUTANTS_ROOT": str(ROOT),
                "MUTANTS_OUT": out,
                "MUTANTS_RC": str(Path(out) / "rc"),
            }
            environment["PYTHONPATH"] += os.pathsep + out
            print("making the map of which tests cover which lines: every test runs once ...", flush=True)
            subprocess.run(
                [*_PYTEST, "-p", "mutants_plugin", "-n", str(processes), *_IGNORED, *(tests or ["tests"])],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            keep_map(Path(out), add=bool(tests))
    return Coverage(FOLDER)


def keep_map(out: Path, add: bool) -> None:
    """Put together what the processes in *out* have noted."""
    library: Any = import_module("coverage")
    lines, seconds = FOLDER / "lines", FOLDER / "seconds.json"
    told: dict[str, float] = json.loads(seconds.read_text()) if add and seconds.exists() else {}
    if not add:
        lines.unlink(missing_ok=True)
    data = library.CoverageData(str(lines))
    data.read()
    for part in sorted(out.glob("lines.*")):
        one = library.CoverageData(str(part))
        one.read()
        if add:
            _add_to(data, one)
        else:
            data.update(one, map_path=lambda path: Path(path).relative_to(ROOT).as_posix())
    data.write()
    reach: Counter[str] = Counter()
    for path in data.measured_files():
        reach.update(test for covering in data.contexts_by_lineno(path).values() for test in covering)
    (FOLDER / "reach.json").write_text(json.dumps(reach))
    data.close()
    for file in out.glob("seconds.*"):
        told.update(json.loads(line) for line in file.read_text().splitlines())
    seconds.write_text(json.dumps(told))
    paths = {mutant.path for mutant in all_mutants(TARGETS)}
    now = {path: (ROOT / path).read_text("utf-8") for path in sorted(paths)}
    (FOLDER / "sources.json").write_text(json.dumps(now | (_sources() if add else {})))


def _sources() -> dict[str, str]:
    """What each file said when the map was made."""
    file = FOLDER / "sources.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _add_to(data: Any, one: Any) -> None:
    """Add to the map what *one* process has seen, by the numbers that the lines had when the map was made."""
    sources = _sources()
    for file in one.measured_files():
        path = Path(file).relative_to(ROOT).as_posix()
        now = (ROOT / path).read_text("utf-8")
        were = numbers_before(sources.get(path, now), now)
        lines: dict[str, list[int]] = {}
        for line, tests in one.contexts_by_lineno(file).items():
            for test in tests:
                if line in were:
                    lines.setdefault(test, []).append(were[line])
        for test, seen in lines.items():
            data.set_context(test)
            data.add_lines({path: seen})


def numbers_before(was: str, now: str) -> dict[int, int]:
    """Of each line of a text the number that it had before; what has changed since has none."""
    blocks = SequenceMatcher(None, was.splitlines(), now.splitlines(), autojunk=False).get_matching_blocks()
    return {b + each + 1: a + each + 1 for a, b, size in blocks for each in range(size)}


def _environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            (str(root), str(root / "integrations"), *filter(None, [os.environ.get("PYTHONPATH")]))
        ),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(tempfile.gettempdir()) / "mutants-hypothesis"),
    }


# Running them


def changed(text: str, mutant: Mutant) -> str:
    """*text* with *mutant* in it."""
    return text[: mutant.start] + mutant.new + text[mutant.end :]


def line_at(text: str, at: int) -> str:
    """The line that the character number *at* is in."""
    return text[text.rfind("\n", 0, at) + 1 :].split("\n", 1)[0].strip()


class Runner:
    """A copy of the tree, and the processes that run its tests.

    Args:
        tree: Where to make it.
        imports_again: Whether to run survivors once more in a process that has imported none of the tree: a function
            may have been called while it was imported.
    """

    def __init__(self, tree: Path, imports_again: bool = False) -> None:
        self._tree = tree
        self._imports_again = imports_again
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                tree.mkdir(exist_ok=True)
                shutil.copy2(source, tree / name)
        collecting = ("-m", "pytest", "-q", "-p", "mutants_runner", "-p", "no:cacheprovider", *_IGNORED, "tests")
        self._collected = _Server(tree, collecting)
        self._fresh: _Server | None = None
        self._sound: dict[str, bool] = {}

    def judge(self, tests: Mapping[str, float], mutant: Mutant) -> tuple[Result, str]:
        """As `run`, and a test that fails without the mutant as well does not count."""
        while True:
            tests = {test: seconds for test, seconds in tests.items() if self._sound.get(test, True)}
            result, by = self.run(tests, mutant) if tests else ("not covered", "")
            if by not in tests:
                return result, by
            if by not in self._sound:
                self._sound[by] = self.run({by: tests[by]}, None, mutant.path)[0] == "survived"
            if self._sound[by]:
                return result, by
            print(f"without any mutant it fails too: {by}", flush=True)

    def run(self, tests: Mapping[str, float], mutant: Mutant | None, forgets: str = "") -> tuple[Result, str]:
        """Run the tests, of which each takes so many seconds of CPU, with *mutant* in the tree. The functions of that
        file, or of the one at *forgets*, forget what they remember.

        Returns:
            What came of it, and which test failed.
        """
        job: dict[str, Any] = {"tests": tests, "forgets": str(self._tree / (mutant.path if mutant else forgets))}
        if mutant is None:
            return self._collected.ask({**job, "new": None})
        file = self._tree / mutant.path
        text = file.read_text("utf-8")
        times = file.stat()
        broken = changed(text, mutant)
        try:
            file.write_text(broken, "utf-8")
            python = mutant.path.endswith(".py")
            told = {"file": str(file), "old": text, "new": broken} if python else {"new": None}
            result, by = self._collected.ask({**job, **told})
            if result == "elsewhere" or (result == "survived" and python and self._imports_again):
                if self._fresh is None:
                    self._fresh = _Server(self._tree, (str(ROOT / "scripts" / "mutants_runner.py"),))
                result, by = self._fresh.ask(job)
        finally:
            file.write_text(text, "utf-8")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that what was compiled of it is used
        return result, by

    def close(self) -> None:
        """End its processes."""
        self._collected.close()
        if self._fresh is not None:
            self._fresh.close()


class _Server:
    """A process of ``mutants_runner.py``."""

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        jobs, self._jobs = os.pipe()
        self._answers, answers = os.pipe()
        environment = _environment(tree) | {
            "MUTANTS_JOBS": str(jobs),
            "MUTANTS_ANSWERS": str(answers),
            "MUTANTS_IMPORTED": str(tree / "imported.txt"),
        }
        environment["PYTHONPATH"] += os.pathsep + str(ROOT / "scripts")
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tree,
            env=environment,
            pass_fds=(jobs, answers),
            stdin=subprocess.DEVNULL,
            stdout=(tree / "out.txt").open("ab"),
            stderr=subprocess.STDOUT,
        )
        os.close(jobs)
        os.close(answers)
        self._said = os.fdopen(self._answers)
        self._said.readline()  # it has imported the tree as it is, and any file of it may be broken now

    def ask(self, job: dict[str, Any]) -> tuple[Result, str]:
        """What comes of *job*."""
        os.write(self._jobs, (json.dumps(job) + "\n").encode())
        answer = self._said.readline()
        if not answer:
            raise SystemExit("the process that runs the tests has ended: do they all collect?")
        told = json.loads(answer)
        return told["result"], told["by"]

    def close(self) -> None:
        """End it."""
        os.close(self._jobs)
        self._process.wait()
        self._said.close()


def known_to_change_nothing() -> dict[str, str]:
    """The reason of each mutant that changes no behaviour, by what it is."""
    known: dict[str, str] = {}
    if EQUIVALENT.exists():
        for line in EQUIVALENT.read_text("utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                name, _, reason = line.rpartition(" | ")
                known[name.strip()] = reason.strip()
    return known


def name_of(outcome: Outcome) -> str:
    """What a mutant is, whatever number its line has."""
    return f"{outcome.mutant.path} | {outcome.before} | {outcome.after}"


def score(outcomes: Iterable[Outcome]) -> int:
    """Print the score and the survivors; return how many of these there are."""
    outcomes = list(outcomes)
    known = known_to_change_nothing()
    survivors = [each for each in outcomes if each.result in ("survived", "not covered")]
    harmless = [each for each in survivors if name_of(each) in known]
    unnoticed = [each for each in survivors if name_of(each) not in known]
    noticed = len(outcomes) - len(survivors)
    counted = noticed + len(unnoticed)
    print(f"\n{len(outcomes)} mutants: {noticed} noticed, {len(unnoticed)} not, {len(harmless)} change no behaviour")
    print(f"score: {noticed / counted:.1%}" if counted else "score: none")
    for each in harmless:
        print(f"\n  changes nothing: {each.mutant.path}:{each.mutant.line}  {each.after}\n    {known[name_of(each)]}")
    for each in unnoticed:
        print(f"\n  {each.result}: {each.mutant.path}:{each.mutant.line}  ({each.mutant.what})")
        print(f"  - {each.before}\n  + {each.after}")
    return len(unnoticed)


def key_of(mutant: Mutant) -> str:
    """What a mutant is, in a file that says exactly what it says now."""
    return f"{mutant.path}@{hash_of(mutant.path)}:{mutant.start}-{mutant.end}={mutant.new}"


def sampled(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of the *mutants* by chance. Whether one is among them is the same however the code around it changes."""
    return sorted(mutants, key=lambda each: _chance(f"{seed} {name_of(_outcome(each, 'survived', ''))}"))[:count]


def _chance(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def earlier(again: bool) -> dict[str, tuple[Result, str]]:
    """What earlier runs have found, without the survivors where they are to be tried *again*."""
    file = FOLDER / "results.jsonl"
    found: dict[str, tuple[Result, str]] = {}
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        key, result, by = json.loads(line)
        found[key] = result, by
    return {key: each for key, each in found.items() if not again or each[0] in ("noticed", "hung")}


def main() -> int:
    """Run a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=TARGETS, help="which files or folders to break; all by default")
    parser.add_argument("--sample", type=int, default=300, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2, help="how many at the same time")
    parser.add_argument("--seconds", type=float, default=60, help="how many CPU seconds of tests one is run by at most")
    parser.add_argument("--map", action="store_true", help="make the map of which tests cover which lines anew")
    parser.add_argument("--tests", nargs="*", default=[], help="with --map: only add these tests to it")
    parser.add_argument("--again", action="store_true", help="try the survivors of earlier runs again")
    parser.add_argument("--only", default="", help="only kinds of changes with these words in them, such as 'lock'")
    parser.add_argument("--line", type=int, help="only mutants of this line")
    options = parser.parse_args()
    mutants = [
        each for each in all_mutants(options.folders) if options.only in each.what and options.line in (None, each.line)
    ]
    chosen = sampled(mutants, options.sample, options.seed) if options.sample else mutants
    tests = coverage(options.map, options.processes, options.tests)
    print(f"{len(chosen)} of {len(mutants)} mutants, seed {options.seed}", flush=True)
    known = earlier(options.again)
    outcomes: list[Outcome] = []
    noticed = Counter((key.partition("@")[0], by) for key, (_, by) in known.items() if by)
    left: SimpleQueue[Mutant] = SimpleQueue()
    harmless = known_to_change_nothing()
    for mutant in chosen:
        if name_of(_outcome(mutant, "survived", "")) in harmless:
            outcomes.append(_outcome(mutant, "survived", ""))
        elif key_of(mutant) in known:
            outcomes.append(_outcome(mutant, *known[key_of(mutant)]))
        else:
            left.put(mutant)
    noting = threading.Lock()

    def work(folder: Path) -> None:
        if left.empty():
            return
        runner = Runner(folder, options.again)
        try:
            while not left.empty():
                with noting:
                    if left.empty():
                        break
                    mutant = left.get()
                    selected = tests.of(mutant, options.seconds, noticed)
                began = time.monotonic()
                result, by = runner.judge({test: tests.seconds[test] for test in selected}, mutant)
                with noting:
                    outcomes.append(_outcome(mutant, result, by))
                    noticed[mutant.path, by] += 1
                    with (FOLDER / "results.jsonl").open("a", encoding="utf-8") as kept:
                        kept.write(json.dumps([key_of(mutant), result, by]) + "\n")
                    where = f"{mutant.path}:{mutant.line}"
                    took = time.monotonic() - began
                    print(f"{result:11} {took:5.1f} s  {where}  {outcomes[-1].after[:80]}  {by}", flush=True)
        finally:
            runner.close()

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.processes) as pool:
        for each in [pool.submit(work, Path(folder) / str(number)) for number in range(options.processes)]:
            each.result()
    if tests.stale:
        print(f"\n{len(tests.stale)} files have changed since the map was made: all tests near them ran what is new")
    return 1 if score(outcomes) else 0


@cache
def _text_of(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def _outcome(mutant: Mutant, result: Result, by: str) -> Outcome:
    text = _text_of(mutant.path)
    return Outcome(mutant, result, by, line_at(text, mutant.start), line_at(changed(text, mutant), mutant.start))


if __name__ == "__main__":
    sys.exit(main())
