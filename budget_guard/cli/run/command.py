"""``run``: starts a program on a budget, and says what it was held to.

The program gets the address of a gateway in this process in place of its providers', and a key that only that gateway
takes. The real keys stay here: what goes round the gateway has none.
"""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from budget_guard.cli.answer import WRONG_USE, Failure
from budget_guard.cli.run.child import CannotStart, Child, KeptSignals, check_command
from budget_guard.cli.run.dotenv import settings_near
from budget_guard.cli.run.environment import Plan
from budget_guard.cli.run.status_row import StatusRow
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import BudgetError
from budget_guard.live import SpendLine
from budget_guard.reporting.text import table
from budget_guard.units.money import cost_nano, format_usd, parse_usd
from budget_guard.units.printable import printable

if TYPE_CHECKING:
    from budget_guard.integrations.gateway import Coverage, ProgramGateway, ProgramProxy
    from budget_guard.reporting.report import BudgetReport

STOPPED = 3
"""The exit code where the budget stopped the program, whatever it made of that."""
NOT_COVERED = 4
"""The exit code where the program asked for something that could not be held, or had a key of its own."""

_EXAMPLE = "budget-guard run --budget '$1.00' -- python script.py"
_DOLLAR = "in double quotes a shell takes $1 for a variable of its own, so write '$1.00' or 1.00"
_EPILOG = f"""\
example: {_EXAMPLE}

Exit codes: the program's own; 3 if the budget stopped it, even if it made nothing of that; else 4 if it asked for what
cannot be held, or had a key of its own; 126 and 127 if the command cannot be started; 2 if it was not, as something was
missing."""
_IN_MEMORY = "memory://"
_SHORT_S = 0.5
"""Seconds after which it is said that calls under way are waited for."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = f": {_DOLLAR}" if "--budget" in message and "expected" in message else ""
        raise Failure(f"{message}{hint}: see {self.prog} --help", WRONG_USE)


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code.

    Args:
        arguments: The command line, which begins with its name.

    Raises:
        Failure: If nothing was started.
    """
    try:
        from budget_guard.integrations.gateway import add_run_options
    except ImportError as error:
        raise Failure(f"budget-guard run needs the gateway: {error}", WRONG_USE) from error
    parser = _parser()
    add_run_options(parser)
    given, command = _read(parser, list(arguments[1:]))
    try:
        check_command(command, os.environ)
        with KeptSignals() as signals:  # first of all, as what is started here inherits that
            started = _Run(given, command)
            code = started.perform(signals)
        return started.conclude(code)
    except CannotStart as error:
        raise Failure(str(error), error.status) from None
    except (BudgetError, OSError) as error:
        raise Failure(f"nothing was started: {error}", WRONG_USE) from error


def _parser() -> _Parser:
    parser = _Parser(
        prog="budget-guard run",
        usage="budget-guard run --budget DOLLARS [OPTIONS] -- COMMAND ...",
        description="Start a command on a budget. No line of it is changed, and it may be in any language.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--budget", metavar="DOLLARS", help="what it may spend, such as '$1.00'")
    add("--upstream", action="append", default=[], metavar="NAME[=URL]", help="a provider, or its address")
    add("--run-id", metavar="ID", help="the name of the run, to go on with one that is in a ledger")
    add("--user", metavar="NAME", help="who spends; your login by default")
    add("--team", metavar="NAME", help="whose money it is")
    add("--html", metavar="FILE", help="write the report to a page")
    add("--keep", action="append", default=[], metavar="VARIABLE", help="a key that the program is left")
    add("--grace", type=float, default=10, metavar="SECONDS", help="for calls under way when it has ended; 10")
    add("--end-when-stopped", action="store_true", help="ask it to end (SIGTERM) once the budget refuses a call")
    add("--quiet", action="store_true", help="no line while it runs, and one line at the end")
    add("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _read(parser: _Parser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the command after them."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    given = parser.parse_args(arguments[:at])
    command = [*given.command, *arguments[at:]] if given.command else arguments[at + 1 :]
    if given.budget is None:
        raise Failure(f"a budget is missing: {_EXAMPLE}", WRONG_USE)
    dollars = given.budget.strip()
    if not dollars:
        raise Failure(f"--budget is empty: {_DOLLAR}", WRONG_USE)
    if parse_usd(dollars, "--budget") == 0:
        raise Failure(f"--budget {dollars!r} allows no call: {_DOLLAR}", WRONG_USE)
    if not command:
        raise Failure(f"a command is missing: {_EXAMPLE}", WRONG_USE)
    if given.html is not None and not Path(given.html).absolute().parent.is_dir():
        raise Failure(f"--html {given.html}: there is no such folder", WRONG_USE)
    return given, command


class _Run:
    """One program, and the gateway that it calls.

    Args:
        given: What was typed.
        command: What is started.

    Raises:
        Failure, ValueError, BudgetError, OSError: If something that was typed makes no sense, or is missing.
    """

    def __init__(self, given: argparse.Namespace, command: list[str]) -> None:
        from budget_guard.integrations.gateway import (
            GatewaySettings,
            Principal,
            ProgramGateway,
            ProgramProxy,
            Upstream,
            is_run_id,
            run_settings,
        )

        self._given = given
        self._command = command
        if given.run_id is not None and given.ledger == _IN_MEMORY:
            raise Failure("--run-id goes on with a run that is in a ledger: --ledger sqlite:///budget.db", WRONG_USE)
        if given.run_id is not None and not is_run_id(given.run_id):
            raise Failure(f"--run-id {given.run_id!r} must be letters, digits and ._:-, at most 128", WRONG_USE)
        self._run_id: str = given.run_id or f"run-{SYSTEM_CLOCK.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self._plan = Plan(os.environ, settings_near(command, Path.cwd()), given.upstream, given.keep)
        self._token = f"sk-budget-guard-{secrets.token_urlsafe(32)}"
        settings = GatewaySettings(
            **run_settings(given, given.budget),
            upstreams=[Upstream(name=each.name, url=each.url, key=each.key) for each in self._plan.targets],
            port=0,
            grace_s=given.grace,
        )
        who = Principal("budget-guard-run", user=given.user or _login(), team=given.team)
        self._gateway: ProgramGateway = ProgramGateway(
            settings,
            token=self._token,
            who=who,
            run_id=self._run_id,
            absent=self._plan.absent,
            left=self._plan.kept,
        )
        self._proxy: ProgramProxy = ProgramProxy(self._gateway)

    def perform(self, signals: KeptSignals) -> int:
        """Run it to its end; return its exit code."""
        session = self._proxy.start()
        try:
            if not self._given.quiet:
                self._announce()
            signals.check()
            child = Child(self._command, self._plan.environment(self._proxy.url, self._token), signals)
        except BaseException:
            self._proxy.stop()
            self._proxy.join()
            raise
        if self._given.end_when_stopped:
            self._gateway.coverage.when_stopped(child.end)
        with StatusRow(SpendLine(session), shown=not self._given.quiet) as row:
            return child.wait(row.draw, row.clear)

    def conclude(self, code: int) -> int:
        """Settle what is under way, and say what it came to; return the exit code.

        Args:
            code: The program's own.
        """
        self._settle()
        self._report()
        coverage = self._gateway.coverage
        return STOPPED if coverage.stopped else code if coverage.is_complete else NOT_COVERED

    def _announce(self) -> None:
        """Say what is held, before it starts."""
        plan = self._plan
        names = ", ".join(each.name for each in plan.targets)
        run = "" if self._given.ledger == _IN_MEMORY else f", run {self._run_id}"
        dollars = _usd(self._gateway.settings.run_budget.max_cost_usd)
        _say(f"{dollars} for this run{run}: calls to {names} go through {self._proxy.url}")
        if plan.taken_out:
            names = ", ".join(plan.taken_out)
            _say(f"kept from it, as calls with them cannot be held: {names} (--keep NAME leaves it one)")
        if any(map(plan.carries_key, self._command)):
            _say("a key is on its command line: what it sends with that to the provider itself is not seen")
        if plan.in_files:
            names = ", ".join(sorted(plan.in_files))
            files = ", ".join(sorted(set(map(str, plan.in_files.values()))))
            _say(
                f"{names} in {files}: the program is given a dummy, which loading the file leaves in place. If it "
                "loads it with override=True, it has the key, and what it sends to the provider itself is not seen"
            )

    def _settle(self) -> None:
        """Wait for calls that are under way, as long as there is patience."""
        proxy = self._proxy
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        try:
            proxy.stop()
            if not proxy.join(_SHORT_S):
                _say(f"calls under way have {self._given.grace:g} s to end; an interrupt books them as they are held")
                proxy.join()
        except KeyboardInterrupt:
            proxy.cancel()
            proxy.join()

    def _report(self) -> None:
        """Say what it came to."""
        coverage, report = self._gateway.coverage, self._gateway.report
        if not self._given.quiet:
            if report is not None:
                _print(f"\n{table(report, sys.stderr)}")
            self._explain(coverage)
        if report is None:
            _say("the report is not there, as the ledger cannot be reached")
        elif self._given.html is not None:
            try:
                report.to_html(self._given.html)
            except OSError as error:
                _say(f"--html {self._given.html}: {error.strerror}")
        _print(f"{coverage}{self._spent(report)}")

    def _explain(self, coverage: Coverage) -> None:
        if coverage.stopped:
            _say(f"stopped by the budget: {coverage.stop}")
        if coverage.refusal:
            _say(f"refused: {coverage.refusal}")
        if coverage.own_keys:
            _say("it has a key that is not the dummy. What it sends with that to a provider itself is not seen")
        if not (coverage.covered or coverage.stopped or coverage.refused or coverage.own_keys):
            _say("it called no provider through here. What it sends elsewhere has a dummy for a key, and gets a 401")

    def _spent(self, report: BudgetReport | None) -> str:
        if report is None:
            return ""
        return f"; spent {_usd(report.total_spent)} of {_usd(self._gateway.settings.run_budget.max_cost_usd)}"


def _usd(dollars: Any) -> str:
    return format_usd(cost_nano(dollars))


def _login() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # in a container, a user may have no name
        return None


def _say(words: str) -> None:
    _print(f"budget-guard: {printable(words)}")


def _print(text: str) -> None:
    """Print to standard error, if anybody reads that: a program goes on, and has its exit code, if nobody does."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr)
