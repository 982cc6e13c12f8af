"""The same stuck agent twice: without a guard, and with one. Both bills come from the provider's own ledger.

It is what ``budget-guard demo`` shows. The agent's search tool never finds anything, so its model searches again, and
each search makes the next call dearer. Without a guard, the run goes on until `max_turns` stops it. With a guard, it
warns, goes on with a cheaper model, and stops before the call that could pass $0.50. The code is in
`budget_guard/cli/demo.py`.

Prints both bills, the guard's ledger and the provider's. Exits with status 1 unless the ledgers agree to the
nano-dollar and the bill is within the budget.

    python examples/overspend_demo.py
"""

from __future__ import annotations

import sys

from budget_guard.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo"]))
