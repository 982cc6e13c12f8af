"""The command line: reads it, runs a command, prints its answer. No traceback, no secret, ever.

Exit codes: 0 all is well; 1 the answer is bad news; 2 the command line makes no sense; 3 what it is about is not there
or cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

import budget_guard
from budget_guard.cli import demo, doctor, ledgers, prices, reports, serving, watch
from budget_guard.cli.answer import NOT_THERE, WRONG_USE, Answer, Failure, Run
from budget_guard.cli.run.command import run
from budget_guard.errors import BudgetError, UnknownPriceError
from budget_guard.ledger.url import shown_url
from budget_guard.units.printable import escaped

_URL = re.compile(r"""[A-Za-z][\w+.-]*:/{1,2}[^\s'"]*""")
_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and shows no secret that stands where it should not."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}: see {self.prog} --help", WRONG_USE)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    made = _Parser(
        prog="budget-guard",
        description="Prices, estimates, reports and shared ceilings of budget_guard.",
        epilog="Exit codes: 0 all is well, 1 the answer is bad news, 2 the command line makes no sense, 3 what it is "
        "about is not there or cannot be reached. BUDGET_GUARD_PRICES names a price table to use.",
    )
    made.add_argument("--version", action="version", version=f"budget-guard-py {budget_guard.__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Run, words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        added.add_argument("--json", action="store_true", help="print the answer as JSON")
        added.set_defaults(perform=run)
        return added

    for group in (demo, prices, reports, ledgers, watch, doctor):
        group.add_to(command)
    for name, words in {
        "run": "start a program in any language on a budget",
        **serving.COMMANDS,
    }.items():  # to be listed
        commands.add_parser(name, help=words)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    logging.getLogger("budget_guard").addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given and given[0] in serving.COMMANDS:
            return serving.run(given)
        if given and given[0] == "run":
            return run(given)
        return _perform(parser(), given)
    except Failure as failure:
        return _fail(str(failure), failure.status)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # who reads it has had enough
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        return 0
    except (ValueError, UnknownPriceError, TypeError) as error:
        return _fail(str(error), WRONG_USE)
    except (BudgetError, OSError, ImportError) as error:
        return _fail(str(error) or type(error).__name__, NOT_THERE)
    except KeyError as error:
        return _fail(str(error.args[0]) if error.args else "it is not known", NOT_THERE)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", NOT_THERE)


def _perform(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    given = made.parse_args(arguments)
    perform: Callable[[argparse.Namespace], Answer] = given.perform
    answer = perform(given)
    if given.json:
        _print(json.dumps(answer.data, indent=2, default=str), sys.stdout)
    elif answer.text:
        _print(answer.text, sys.stdout)
    for note in answer.notes:
        _print(f"budget-guard: {harmless(note)}", sys.stderr)
    return answer.status


def _fail(message: str, status: int) -> int:
    _print(f"budget-guard: {harmless(message)}", sys.stderr)
    return status


def harmless(message: str) -> str:
    """*message* on one line, without what may be a secret in an address."""
    one_line = " ".join(message.split())
    return escaped(_URL.sub(lambda found: shown_url(found[0]), one_line))


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal that knows ASCII alone
        print(text.encode("ascii", "replace").decode("ascii"), file=stream, flush=True)


def entry() -> Any:
    """The console script."""
    sys.exit(main())
