"""What importing costs, over what a program with pydantic or LangChain has paid for in any case.

Prints milliseconds of CPU time, each import in a fresh interpreter, in turn, medians of many: ``python
benchmarks/imports.py``. Installed packages are compiled, so each interpreter reads compiled files, of a folder made for
it; the first round, which has to compile them, is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 15
_HANDLER = "from budget_guard.integrations.langchain import BudgetCallbackHandler"
COMPARED = (
    ("from pydantic import BaseModel", "import budget_guard", "goal 100 ms"),
    ("import langchain_core", _HANDLER, "goal 130 ms"),
    ("from langchain_core.language_models import BaseChatModel", _HANDLER, "for a program that has a chat model"),
    ("import agents", "from budget_guard.integrations.openai_agents import BudgetGuard", ""),
)


def cpu_ms(base: str, more: str, compiled: str) -> tuple[float, float]:
    """CPU milliseconds of *base*, and of *more* after it, in one fresh interpreter.

    Args:
        base: What is imported first.
        more: What is imported then.
        compiled: The folder of the compiled files.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = compiled
    program = (
        f"import time; start = time.process_time_ns(); {base}\n"
        f"between = time.process_time_ns(); {more}\n"
        "print(between - start, time.process_time_ns() - between)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    first, second = map(int, done.stdout.split())
    return first / 1e6, second / 1e6


def main() -> None:
    """Measure and print."""
    taken: dict[str, list[tuple[float, float]]] = {base: [] for base, _, _ in COMPARED}
    with tempfile.TemporaryDirectory() as compiled:
        for _ in range(ROUNDS + 1):
            for base, more, _ in COMPARED:  # in turn, so that a change of the machine's speed meets them all
                taken[base].append(cpu_ms(base, more, compiled))
    for base, more, goal in COMPARED:
        first, second = (statistics.median(column) for column in zip(*taken[base][1:], strict=True))
        print(f"{more}\n  {second:4.0f} ms over the {first:.0f} ms of `{base}`   {goal}".rstrip())


if __name__ == "__main__":
    main()
