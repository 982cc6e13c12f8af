"""``python -m budget_guard``: the command ``budget-guard``."""

import sys

from budget_guard.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
