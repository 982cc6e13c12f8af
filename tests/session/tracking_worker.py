"""A process that calls a priced tool, told by lines how often. See `tests.session.test_tracking_processes`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable

from budget_guard import Budget, BudgetAuthority, BudgetError, BudgetRevoked, Session
from tests.builders import PRICES, call


def main(url: str) -> None:
    logging.disable()
    authority = BudgetAuthority(url, {"user": Budget("$1.00")}, pricing=PRICES)
    ran: list[int] = []
    with authority.session(Budget("$50", max_wait_s=0), user="u1") as session:

        @session.track_tool(cost="0.01")
        def search() -> None:
            ran.append(1)

        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            if line.strip() == "cut off?":
                print(json.dumps(_stops(session, search)), flush=True)
                continue
            before, refused = len(ran), 0
            for _ in range(int(line)):
                try:
                    search()
                except BudgetError:
                    refused += 1
            print(json.dumps([len(ran) - before, refused]), flush=True)


def _stops(session: Session, search: Callable[[], None]) -> list[str]:
    """Why each of the verbs raises now."""
    told: list[str] = []
    verbs: list[Callable[[], object]] = [
        lambda: session.track("rows", cost="0.01", tool="serp_api"),
        search,
        lambda: session.authorize(call()).require(),
    ]
    for verb in verbs:
        try:
            verb()
        except BudgetRevoked as stop:
            told.append(stop.reason)
    return told


if __name__ == "__main__":
    main(*sys.argv[1:])
