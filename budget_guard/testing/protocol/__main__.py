"""``python -m budget_guard.testing.protocol``: performs the suite, and says what came of each check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import get_args

from budget_guard.testing.protocol import Target, checks_for, new_provider, perform
from budget_guard.testing.protocol.suite import Profile


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform it; returns 0 where every check passed, 1 where one did not."""
    target, port = _read(arguments)
    with new_provider(port) if "proxy" in target.profiles else nullcontext() as provider:
        if provider is not None:
            print(f"the provider listens on {provider.root_url}", flush=True)
        failed = 0
        checks = checks_for(target)
        for each in checks:
            outcome = perform(each, target, provider)
            failed += not outcome.passed
            print(outcome, flush=True)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return 1 if failed else 0


def _read(arguments: Sequence[str] | None) -> tuple[Target, int]:
    parser = argparse.ArgumentParser(
        prog="python -m budget_guard.testing.protocol",
        description="Is a service an implementation of the Agent Budget Protocol?",
    )
    add = parser.add_argument
    add("--url", required=True, help="where the service listens")
    add("--key", default="conformance-a", help="a key")
    add("--other-key", default="conformance-b", help="a key of another principal")
    add("--tight-key", help="a key of a third one, under a ceiling of $0.15")
    add("--second-url", help="another process of the service, on the same ledger")
    add("--secret", action="append", default=[], metavar="NAME", help="a principal's name, which nobody may be told")
    add("--profile", action="append", choices=get_args(Profile), help="what it does; all of it by default")
    add("--provider-port", type=int, default=0, help="where the suite's own provider listens, which the service asks")
    add("--status", type=int, default=402, help="its status where a limit is reached; 402 by default")
    given = parser.parse_args(arguments)
    target = Target(
        url=given.url,
        key=given.key,
        other_key=given.other_key,
        tight_key=given.tight_key,
        second_url=given.second_url,
        secrets=given.secret,
        profiles=frozenset(given.profile or get_args(Profile)),
        exceeded_status=given.status,
    )
    return target, given.provider_port


if __name__ == "__main__":
    sys.exit(main())
