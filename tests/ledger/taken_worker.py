"""A process of its own that spends from a user's ceiling, and goes on whatever is taken away from the ledger.

``python -m tests.ledger.taken_worker NAME URL...``: each session makes one call. A line is printed for each that was
paid for. On each ledger it says ``ready`` after the first five, waits for a line, and says ``done`` at the end.
"""

from __future__ import annotations

import sys
import time

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import LedgerUnavailable
from budget_guard.ledger import Held, Ledger
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.url import open_ledger
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope

USER = Scope("user", "u")
CEILING = Limits(cost=100)
SESSIONS = 60
_ONE = Amounts(cost=1)


def one_session(ledger: Ledger, run: Scope, call: str) -> bool:
    """Open what an authority opens, and pay for one call where it is held; return whether it was."""
    ledger.set_limits(run, Limits())
    try:
        opened = ledger.balances((USER,))[0].limits == CEILING
    except KeyError:
        opened = False
    if not opened:
        ledger.set_limits(USER, CEILING)
    hold = hold_id(SYSTEM_CLOCK.now_ms(), call)
    if not isinstance(ledger.reserve(hold, (run, USER), _ONE, _ONE), Held):
        return False
    print("paid", flush=True)
    ledger.commit(hold, (run, USER), _ONE)
    return True


def spend(url: str, name: str) -> None:
    """Make calls from the ledger at *url*, also while it refuses."""
    ledger: Ledger | None = None
    for number in range(SESSIONS):
        if number == 5:
            print("ready", flush=True)
            sys.stdin.readline()
        try:
            ledger = ledger or open_ledger(url)
            one_session(ledger, Scope("run", f"{name}-{number}"), f"{name}-{number}")
        except LedgerUnavailable:
            if ledger is not None and number % 3 == 0:  # as a program does that is started anew
                ledger.close()
                ledger = None
            time.sleep(0.002)
    if ledger is not None:
        ledger.close()
    print("done", flush=True)


if __name__ == "__main__":
    for url in sys.argv[2:]:
        spend(url, sys.argv[1])
