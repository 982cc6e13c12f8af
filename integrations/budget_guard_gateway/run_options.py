"""What is typed of the budget of a run and of its calls: the same for ``serve`` and for ``run``."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from budget_guard import Budget
from budget_guard.policy.budget import ClampOutput, Mode
from budget_guard_gateway.option_values import ceilings, pairs, price


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to *parser*."""
    add = parser.add_argument
    add("--ledger", default="memory://", metavar="URL", help="where the counters live; memory:// by default")
    add("--ceiling", action="append", default=[], metavar="KIND=DOLLARS[/WINDOW]", help="such as 'user=$20/day'")
    add("--mode", choices=get_args(Mode), default="hard_gate")
    add("--soft-margin", metavar="DOLLARS", help="by which soft_gate lets a call's estimate exceed what is left")
    add("--downgrade", action="append", default=[], metavar="MODEL=CHEAPER", help="near the end of a run's budget")
    add("--alternative", action="append", default=[], metavar="MODEL", help="that refusals name where it is cheaper")
    add("--max-output-tokens", type=int, metavar="N", help="the cap of calls that set none, in place of a share")
    add("--clamp-output", choices=get_args(ClampOutput), help="'reject' refuses a cap above that, or above the model's")
    add("--max-requests", type=int, metavar="N", help="model calls of each run")
    add("--max-duration", type=float, metavar="SECONDS", help="after which a run may call no more")
    add("--max-wait", type=float, default=30, metavar="SECONDS", help="that a call waits for room; 30 by default")
    add("--price", action="append", default=[], metavar="MODEL=IN,OUT", help="dollars per million tokens")
    add("--model", action="append", default=[], metavar="NAME=MODEL", help="the model behind a name of your own")
    add("--passthrough", action="append", default=[], metavar="'METHOD PATH'", help="passed on without being held")
    add("--leases", action="store_true", help="take parts of a shared ledger in advance, and ask it less often")
    add("--outbox", metavar="FILE", help="keeps what was spent while the ledger could not be reached")


def run_settings(given: argparse.Namespace, dollars: str) -> dict[str, Any]:
    """What was typed, as arguments of `GatewaySettings`.

    Args:
        given: What was typed.
        dollars: What a run may spend.

    Raises:
        ValueError: If a value makes no sense.
    """
    budget = Budget(
        dollars,
        max_requests=given.max_requests,
        max_duration_s=given.max_duration,
        mode=given.mode,
        soft_margin_usd=given.soft_margin,
        max_wait_s=given.max_wait,
        downgrade=dict(pairs("--downgrade", given.downgrade)) or None,
        call_max_output_tokens=given.max_output_tokens,
        clamp_output=given.clamp_output or ("when_unset" if given.max_output_tokens is None else "never"),
    )
    return {
        "run_budget": budget,
        "ledger": given.ledger,
        "leases": given.leases,
        "ceilings": ceilings("--ceiling", given.ceiling),
        "per_million": {model: price("--price", model, text) for model, text in pairs("--price", given.price)} or None,
        "models": dict(pairs("--model", given.model)),
        "alternatives": given.alternative,
        "passthrough": given.passthrough,
        "outbox": given.outbox,
    }
