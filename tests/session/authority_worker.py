"""A process that runs a session of an authority's, told by lines what to do.

See `tests.session.test_authority_processes`.
"""

from __future__ import annotations

import json
import logging
import sys

from budget_guard import Budget, BudgetAuthority, Usage, open_ledger
from budget_guard.ledger.leased.ledger import LeasedLedger
from tests.builders import PRICES, call


def main(url: str, user: str, leased: str) -> None:
    logging.disable()
    ledger = open_ledger(url)
    if leased == "leased":
        ledger = LeasedLedger(ledger, heartbeat_s=1e-6, lease_ttl_s=60)
    authority = BudgetAuthority(ledger, {"user": Budget("$1.00", window="month")}, pricing=PRICES)
    with authority.session(Budget("$50", max_wait_s=0), user=user) as session:
        print(json.dumps(session.id), flush=True)
        for line in sys.stdin:
            answers: list[tuple[str, str]] = []
            for _ in range(int(line)):
                decision = session.authorize(call())
                if decision.reservation is not None:
                    decision.reservation.forward()
                    decision.reservation.commit(Usage())
                answers.append((decision.action, decision.reason))
            print(json.dumps(answers), flush=True)
    ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
