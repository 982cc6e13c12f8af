"""``python -m budget_guard_gateway serve ...``."""

import sys

from budget_guard_gateway.command import main

if __name__ == "__main__":
    sys.exit(main())
