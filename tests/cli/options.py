"""The options of every command, one in a line, as its parser has them. ``python -m tests.cli.options`` writes them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from budget_guard.cli.main import parser
from budget_guard.cli.run.command import _parser as parser_of_run
from budget_guard_gateway.command import add_commands
from budget_guard_gateway.run_options import add_run_options

FILE = Path(__file__).with_suffix(".txt")
_TOLD = ("nargs", "const", "default", "type", "choices", "required", "metavar", "help")


def lines() -> list[str]:
    """All of them."""
    running = parser_of_run()
    add_run_options(running)
    serving = argparse.ArgumentParser(prog="budget-guard")
    add_commands(serving.add_subparsers())
    found = [line for each in (parser(), running, serving) for line in _options(each)]
    return list(dict.fromkeys(found))


def _options(of: argparse.ArgumentParser) -> Iterator[str]:
    yield f"{of.prog}: {of.description!r} {of.epilog!r}"
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (f"{of.prog} {each.dest}: {each.help}" for each in action._choices_actions)
            for each in action.choices.values():
                yield from _options(each)
        elif not isinstance(action, argparse._HelpAction):
            told = {name: getattr(action, name) for name in _TOLD if getattr(action, name) not in (None, False)}
            kind = type(action).__name__.strip("_")
            words = [f"{name}={getattr(value, '__name__', repr(value))}" for name, value in told.items()]
            yield " ".join([f"{of.prog}: {', '.join(action.option_strings) or action.dest} {kind}", *words])


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in lines()), "utf-8")
