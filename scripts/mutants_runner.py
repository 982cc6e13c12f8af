"""A plugin of pytest for ``mutants.py``: it collects the tests once, and runs each mutant in a fork of that.

Importing the frameworks and collecting the tests takes far longer than most tests do. So a mutant inside a function is
put into the functions that are imported already; only one that changes what a module does while it is imported (a
default, a constant, a field) is run by a pytest of its own, in the fork of a process that has imported all but ours.

It reads jobs, one JSON object a line, from the file descriptor ``MUTANTS_JOBS``, and writes what became of each to
``MUTANTS_ANSWERS``.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

PASSED, FAILED, ELSEWHERE = 0, 1, 3
"""How a fork ends: no test failed; one did; the mutant can not be put into what is imported."""
MOST_MEMORY = 12 << 30
ALLOWED_S, ALLOWED_TIMES = 6, 6
"""A test that takes so many seconds of CPU more than it took, so many times over, does not end."""
IDLE_S = 40
"""Nothing that waits for something that will come waits so long without doing anything."""
OURS = ("budget_guard", "tests", "conftest", "examples", "benchmarks", "mutants")


# A mutant in functions that are imported


def codes(code: CodeType) -> Iterator[CodeType]:
    """The code of every function within *code*, in the order of the source."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from codes(each)


def own_work(code: CodeType) -> tuple[Any, ...]:
    """What *code* does itself, whatever is done in the functions that it makes."""
    constants = tuple(each.co_name if isinstance(each, CodeType) else (type(each), each) for each in code.co_consts)
    return code.co_code, constants, code.co_names, getattr(code, "co_exceptiontable", b"")


def put_in(functions: Iterable[FunctionType], old: str, new: str) -> bool:
    """Give the *functions* of a file the code that they have in *new*; False where that is not enough."""
    before, after = compile(old, "", "exec"), compile(new, "", "exec")
    olds, news = list(codes(before)), list(codes(after))
    if own_work(before) != own_work(after) or len(olds) != len(news):
        return False
    replaced: dict[object, CodeType] = {}
    for was, now in zip(olds, news, strict=True):
        if own_work(was) != own_work(now) and not was.co_flags & inspect.CO_NEWLOCALS:
            return False  # the body of a class: it has run
        if was != now:  # it does something else, or a function in it does
            replaced[_place(was)] = now
    found = False
    for function in functions:
        code = replaced.get(_place(function.__code__))
        if code is not None:
            if code.co_freevars != function.__code__.co_freevars:
                return False
            function.__code__ = code
            found = True
    return found


def _place(code: CodeType) -> object:
    """Where a function is in the source."""
    return code.co_name, code.co_firstlineno, code.co_linetable


# Forks


def forked(work: Callable[[Callable[[str], None]], int]) -> dict[str, Any]:
    """Do *work* in a fork, and tell what came of it.

    How busy the machine is makes no difference: a fork hangs when its CPU time is used up (`Watch` allows so much for
    each test), or when none of its processes has used any for `IDLE_S` seconds.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as note:
        child = os.fork()
        if child == 0:
            code = FAILED
            try:
                os.setsid()
                sys.dont_write_bytecode = True
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
                code = work(lambda told: _write(note.fileno(), told))
            finally:
                os._exit(code)
        status = _end_of(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
        told = os.pread(note.fileno(), 4000, 0).decode(errors="replace").strip()
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        result = "hung"
    elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == PASSED:
        result = "survived"
    elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == ELSEWHERE:
        result = "elsewhere"
    else:
        result = "noticed"
    by = told if result in ("noticed", "hung") else ""
    return {"result": result, "by": by, "seconds": time.monotonic() - began}


def _end_of(child: int) -> int | None:
    """The status that *child* ended with; None where it waits for what never comes."""
    used, since, looked = -1.0, time.monotonic(), time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        now = time.monotonic()
        if now > looked + 2:
            looked = now
            uses = _cpu_seconds(child)
            if uses > used + 0.03:
                used, since = uses, now
            elif now > since + IDLE_S:
                return None
        time.sleep(0.005)


def _cpu_seconds(session: int) -> float:
    """What the processes of a *session* have used. Where there is no ``/proc``, as much as there was time."""
    ticks = 0
    if not Path("/proc/self/stat").exists():
        return time.monotonic() / 100
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            name, _, rest = stat.read_text().rpartition(")")
            fields = rest.split()
            if int(fields[3]) == session and not name.endswith("(redis-server"):  # which is never quite idle
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _write(to: int, told: str) -> None:
    """Leave a note, in place of the one before."""
    os.pwrite(to, told.encode()[:4000].ljust(4000), 0)


def serve(work: Callable[[dict[str, Any], Callable[[str], None]], int]) -> None:
    """Answer every job with what came of *work* in a fork."""
    gc.collect()
    gc.freeze()
    with (
        os.fdopen(int(os.environ["MUTANTS_JOBS"])) as jobs,
        os.fdopen(int(os.environ["MUTANTS_ANSWERS"]), "w") as answers,
    ):
        answers.write("ready\n")
        answers.flush()
        for line in jobs:
            job = json.loads(line)
            answer = forked(lambda tell, job=job: work(job, tell))  # type: ignore[misc]
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


class Watch:
    """Tells which test failed first, or is running when the time is up, and allows each test its CPU seconds.

    Args:
        tell: Told the name of the test.
        seconds: How many seconds of CPU each test takes when nothing is broken.
    """

    def __init__(self, tell: Callable[[str], None], seconds: Mapping[str, float]) -> None:
        self._tell = tell
        self._told = False
        self._seconds = seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Give the test that begins as much as it took before, several times over."""
        if not self._told:
            self._tell(item.nodeid)
        used = sum(os.times()[:2])
        allowed = int(used + ALLOWED_S + ALLOWED_TIMES * self._seconds.get(item.nodeid, 0)) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell which one failed."""
        if report.failed and not self._told:
            self._told = True
            self._tell(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running what was collected: run some of it for each job."""
    items = {item.nodeid: item for item in session.items}
    uncollected = session.testsfailed
    imported = [name for name, module in sys.modules.items() if _is_of_others(name, module)]
    Path(os.environ["MUTANTS_IMPORTED"]).write_text("\n".join(imported))
    functions: dict[str, list[FunctionType]] = {}
    remembering: dict[str, list[Any]] = {}
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            functions.setdefault(each.__code__.co_filename, []).append(each)
        elif hasattr(type(each), "cache_clear") and isinstance(inner := inspect.unwrap(each), FunctionType):
            remembering.setdefault(inner.__code__.co_filename, []).append(each)

    def work(job: dict[str, Any], tell: Callable[[str], None]) -> int:
        if job["new"] is not None and not put_in(functions.get(job["file"], ()), job["old"], job["new"]):
            return ELSEWHERE
        for each in remembering.get(job["forgets"], ()):
            each.cache_clear()  # it may have been called while tests were collected
        session.config.pluginmanager.register(Watch(tell, job["tests"]))
        chosen = [items[each] for each in job["tests"] if each in items]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed > uncollected:
                return FAILED
        return PASSED

    serve(work)
    return True


def _is_of_others(name: str, module: Any) -> bool:
    file = getattr(module, "__file__", None) or ""
    return "site-packages" in file and not name.startswith((*OURS, "_pytest", "pytest", "__editable__"))


def main() -> None:
    """Import all but ours, and run a pytest in a fork for each job."""
    for name in Path(os.environ["MUTANTS_IMPORTED"]).read_text().split("\n"):
        with contextlib.suppress(BaseException):
            __import__(name)

    def work(job: dict[str, Any], tell: Callable[[str], None]) -> int:
        null = os.open(os.devnull, os.O_RDWR)
        for each in (0, 1, 2):
            os.dup2(null, each)
        names = Path("mutant-tests.txt")
        names.write_text("\n".join(job["tests"]))
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return PASSED if pytest.main([*arguments, f"@{names}"], [Watch(tell, job["tests"])]) == 0 else FAILED

    serve(work)


if __name__ == "__main__":
    main()
