"""``serve`` and ``key``: the gateway's own commands, which read their part of the command line themselves.

Nothing of the gateway is imported for any other command.
"""

from __future__ import annotations

from collections.abc import Sequence

COMMANDS = {
    "serve": "hold programs in any language to a budget, by a URL and a key",
    "key": "make, list and revoke the keys of serve",
}
"""Their names, and what they do."""


def run(arguments: Sequence[str]) -> int:
    """Run one of them; return its exit code.

    Args:
        arguments: The command line, which begins with its name.

    Raises:
        ImportError: If the gateway is not installed, with the line that installs it.
    """
    from budget_guard.integrations.gateway import command

    return command(arguments, prog="budget-guard")
