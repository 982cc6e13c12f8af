"""Break the code in small ways, and see which breaks no test notices.

Run with ``make mutants``, or ``python scripts/mutants.py --sample 300 --seed 7``. Each mutant is one change of one
line: a comparison that lets one more in, a condition turned round, a statement left out, a lock dropped, a default
changed; in the Lua scripts as well. It is run by the tests that cover its line, in a copy of the tree, several at once.
A test that fails or hangs notices it. The map of which tests cover which lines is made once, by running every test, and
made anew with ``--map``.

A mutant that no test notices is printed as a survivor. One that changes no behaviour is not the tests' fault: it is
listed with its reason in ``tests/equivalent_mutants.txt``, and left out of the score.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".mutants"
"""Where the map is kept."""
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
TARGETS = ("budget_guard", "integrations/budget_guard_openai_agents", "integrations/budget_guard_langchain")
LEFT_OUT = ("budget_guard/testing/", "budget_guard/integrations/", "budget_guard/pricing/prices.json")
COPIED = (
    "budget_guard",
    "integrations",
    "tests",
    "examples",
    "scripts",
    "docs",
    "pyproject.toml",
    "README.md",
    "Makefile",
)
LUA_TESTS = ("tests/ledger/test_redis.py", "tests/ledger/test_redis_faults.py")
LEAST_TIMEOUT_S = 90.0
_IGNORED = tuple(f"--ignore=tests/test_{name}.py" for name in ("readme", "examples", "packaging"))
"""Their programs run in processes of their own, where nothing sees which lines they run."""
_PYTEST = (sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider")


Result: TypeAlias = Literal["noticed", "hung", "survived", "not covered"]


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


class Outcome(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    result: Result
    seconds: float
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

    def at(line: int, column: int) -> int:  # columns are counted in bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def change(node: ast.expr | ast.stmt, new: str, what: str) -> Mutant:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)
        return Mutant(path, node.lineno, start, end, new, what)

    for node in _walk(ast.parse(text)):
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
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
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
            yield Mutant(path, node.lineno, start, end, "__import__('contextlib').nullcontext()", "lock dropped")
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    rest = [each for each in node.keywords if each is not keyword]
                    new_call = ast.Call(node.func, node.args, rest)
                    yield change(node, ast.unparse(new_call), f"argument {keyword.arg} left out")


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


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


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
"""Notes which lines of the library each test runs."""
import json, os, sys, threading, time
import pytest
ROOT = os.environ["MUTANTS_ROOT"] + os.sep
FOLDERS = tuple(ROOT + each for each in ("budget_guard" + os.sep, "integrations" + os.sep))
KNOWN = {}
quiet = {}
current = None
out = None

def trace(frame, event, argument):
    code = frame.f_code
    name = KNOWN.get(code)
    if name is None:
        file = code.co_filename
        name = KNOWN[code] = file[len(ROOT):].replace(os.sep, "/") if file.startswith(FOLDERS) else ""
    if not name or quiet.get(code, 0) > 30:
        return None
    seen = current.setdefault(name, set())
    before = len(seen)
    seen.add(frame.f_lineno)
    def local(frame, event, argument):
        nonlocal before
        if event == "line":
            seen.add(frame.f_lineno)
        elif event == "return":
            quiet[code] = 0 if len(seen) > before else quiet.get(code, 0) + 1
        return local
    return local

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    global current, out
    if out is None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "all")
        out = open(os.path.join(os.environ["MUTANTS_OUT"], worker + ".jsonl"), "a", buffering=1)
    mine, current = os.getpid(), {}
    quiet.clear()
    began = time.perf_counter()
    threading.settrace(trace)
    sys.settrace(trace)
    yield
    sys.settrace(None)
    threading.settrace(None)
    if os.getpid() == mine:  # and not a fork of it
        found = {file: sorted(each) for file, each in current.items()}
        out.write(json.dumps([item.nodeid, time.perf_counter() - began, found]) + "\\n")
'''


class Coverage:
    """Which tests run which lines, and how long each takes."""

    def __init__(self, lines: dict[str, dict[str, list[int]]], seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self._size = {test: sum(map(len, files.values())) for test, files in lines.items()}
        self._tests: dict[tuple[str, int], list[str]] = {}
        for test, files in lines.items():
            for file, numbers in files.items():
                for number in numbers:
                    self._tests.setdefault((file, number), []).append(test)

    def of(self, mutant: Mutant, most: int) -> list[str]:
        """The tests that run the line of *mutant*: the most special ones of its own room, and as many of all others."""
        if mutant.path.endswith(".lua"):
            return [test for test in sorted(self._size) if test.startswith(LUA_TESTS)]
        room = "/".join(Path(mutant.path).with_suffix("").parts[1:2])
        if mutant.path.startswith("integrations/"):
            room = "integrations/" + Path(mutant.path).parts[1].removeprefix("budget_guard_")
        tests = self._tests.get((mutant.path, mutant.line), [])
        ordered = sorted(tests, key=lambda test: (not test.startswith(f"tests/{room}"), self._size[test], test))
        special, others = ordered[: most // 2], ordered[most // 2 :]
        return special + random.Random(f"{mutant.path}:{mutant.line}").sample(
            others, min(most - len(special), len(others))
        )


def coverage(anew: bool, processes: int, folders: Sequence[str]) -> Coverage:
    """The map, made where it is not there."""
    file = FOLDER / "map.json"
    if anew or not file.exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as out:
            plugin = Path(out) / "mutants_plugin.py"
            plugin.write_text(PLUGIN)
            environment = _environment(ROOT) | {"MUTANTS_ROOT": str(ROOT), "MUTANTS_OUT": out}
            environment["PYTHONPATH"] += os.pathsep + out
            print("making the map of which tests cover which lines: every test runs once ...", flush=True)
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "mutants_plugin",
                    "-n",
                    str(processes),
                    "-p",
                    "no:cacheprovider",
                    *_IGNORED,
                    *folders,
                ],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            lines: dict[str, dict[str, list[int]]] = {}
            seconds: dict[str, float] = {}
            for part in Path(out).glob("*.jsonl"):
                for line in part.read_text().splitlines():
                    test, took, found = json.loads(line)
                    lines[test], seconds[test] = found, took
        file.write_text(json.dumps({"lines": lines, "seconds": seconds}))
    told = json.loads(file.read_text())
    return Coverage(told["lines"], told["seconds"])


def _environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(root), str(root / "integrations"))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(tempfile.gettempdir()) / "mutants-hypothesis"),
    }


# Running them


def changed(text: str, mutant: Mutant) -> str:
    """*text* with *mutant* in it."""
    return text[: mutant.start] + mutant.new + text[mutant.end :]


def line_at(text: str, at: int) -> str:
    """The line that the character number *at* is in."""
    return text[text.rfind("\n", 0, at) + 1 :].split("\n", 1)[0].strip()


def run(mutant: Mutant, tree: Path, tests: Sequence[str], seconds: float) -> Outcome:
    """Run the tests on a copy of the tree with *mutant* in it."""
    text = (ROOT / mutant.path).read_text("utf-8")
    broken = changed(text, mutant)
    before, after = line_at(text, mutant.start), line_at(broken, mutant.start)
    if not tests:
        return Outcome(mutant, "not covered", 0.0, before, after)
    file = tree / mutant.path
    began = time.monotonic()
    try:
        file.write_text(broken, "utf-8")
        result = ran(tree, tests, seconds)
    finally:
        file.write_text(text, "utf-8")
    return Outcome(mutant, result, time.monotonic() - began, before, after)


def ran(tree: Path, tests: Sequence[str], seconds: float) -> Result:
    """Run *tests* in *tree*, which took about *seconds* when they were mapped."""
    names = tree / "mutant-tests.txt"
    names.write_text("\n".join(tests))
    process = subprocess.Popen(
        [*_PYTEST, "-x", f"@{names}"],
        cwd=tree,
        env=_environment(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return "survived" if process.wait(max(LEAST_TIMEOUT_S, 10 * seconds)) == 0 else "noticed"
    except subprocess.TimeoutExpired:
        return "hung"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run and whatever it has started."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
    else:
        process.kill()
    process.wait()


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


def main() -> int:
    """Run a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=TARGETS, help="which files or folders to break; all by default")
    parser.add_argument("--sample", type=int, default=300, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2, help="how many at the same time")
    parser.add_argument("--most-tests", type=int, default=150, help="how many tests one is run by at most")
    parser.add_argument("--map", action="store_true", help="make the map of which tests cover which lines anew")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="which tests to make the map of")
    parser.add_argument("--only", default="", help="only kinds of changes with these words in them, such as 'lock'")
    options = parser.parse_args()
    mutants = [each for each in all_mutants(options.folders) if options.only in each.what]
    chosen = random.Random(options.seed).sample(mutants, min(options.sample or len(mutants), len(mutants)))
    tests = coverage(options.map, options.processes, options.tests)
    print(f"{len(chosen)} of {len(mutants)} mutants, seed {options.seed}", flush=True)
    trees: SimpleQueue[Path] = SimpleQueue()
    printing = threading.Lock()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.processes):
            tree = Path(folder) / str(number)
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
                elif source.exists():
                    tree.mkdir(exist_ok=True)
                    shutil.copy(source, tree / name)
            trees.put(tree)
        some = random.Random(options.seed).sample(sorted(tests.seconds), min(60, len(tests.seconds)))
        clean = trees.get()
        if ran(clean, some, sum(tests.seconds[test] for test in some)) != "survived":
            print("the tests fail in a copy of the tree without any mutant in it: run them, then this again with --map")
            return 2
        trees.put(clean)

        def one(mutant: Mutant) -> Outcome:
            tree = trees.get()
            try:
                selected = tests.of(mutant, options.most_tests)
                outcome = run(mutant, tree, selected, sum(tests.seconds.get(test, 1.0) for test in selected))
            finally:
                trees.put(tree)
            with printing:
                where = f"{mutant.path}:{mutant.line}"
                print(f"{outcome.result:11} {outcome.seconds:5.1f} s  {where}  {outcome.after[:80]}", flush=True)
            return outcome

        with ThreadPoolExecutor(options.processes) as pool:
            outcomes = list(pool.map(one, chosen))
    return 1 if score(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
