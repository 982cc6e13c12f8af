"""Programs run in processes of their own, in which what takes long to import is there already.

A server imports it once for each worker of the tests, and forks for each program: what one program sets or patches, no
other one sees.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_IMPORTED = ["agents", "langchain.agents", "langchain_openai", "langchain_anthropic", "openai", "uvicorn"]
_processes = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else multiprocessing.get_context("spawn")
_processes.set_forkserver_preload(_IMPORTED)  # does nothing where there is no fork


class Done(NamedTuple):
    """A program that is over."""

    returncode: int | None
    stdout: str
    stderr: str


def run_script(path: Path, arguments: Sequence[str] = (), *, timeout_s: float = 120) -> Done:
    """Run a script as ``python path arguments`` does, without any API key."""
    return _run(_script, (str(path), tuple(arguments)), str(path.parent), timeout_s)


def run_function(function: Callable[[Path], None], argument: Path, *, timeout_s: float = 120) -> Done:
    """Run *function*, of a module that can be imported, in an empty folder and without any API key."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(function, (argument,), folder, timeout_s)


def _run(function: Callable[..., None], arguments: tuple[object, ...], folder: str, timeout_s: float) -> Done:
    with tempfile.TemporaryDirectory() as told:
        process = _processes.Process(target=_child, args=(function, arguments, folder, told), daemon=False)
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
        said = [Path(told, name).read_text("utf-8") if Path(told, name).exists() else "" for name in ("out", "err")]
        return Done(process.exitcode, *said)


def _child(function: Callable[..., None], arguments: tuple[object, ...], folder: str, told: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(os.path.join(told, name), os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", write_through=True)
    for key in [key for key in os.environ if key.endswith("_API_KEY")]:
        del os.environ[key]
    os.chdir(folder)
    code = 0
    try:
        function(*arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(ValueError):
        sys.stdout.flush()
    os._exit(code)


def _script(path: str, arguments: Sequence[str]) -> None:
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")
