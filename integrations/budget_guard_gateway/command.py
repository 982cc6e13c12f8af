"""The commands ``serve`` and ``key``: settings from what is typed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from budget_guard import BudgetError
from budget_guard.calls.seen import OnCancel
from budget_guard_gateway.keys import add_key, read_keys, revoke_key
from budget_guard_gateway.option_values import pairs, plans, whole
from budget_guard_gateway.run_options import add_run_options, run_settings
from budget_guard_gateway.settings import GatewaySettings, OnDisconnect, upstream_of

_DEFAULT_KEYS = "keys.toml"
_ADMIN_TOKEN = "BUDGET_GUARD_ADMIN_TOKEN"


def add_commands(commands: Any) -> None:
    """Add ``serve`` and ``key`` to the commands of a parser, which are run as ``arguments.run(arguments)``.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` gives.
    """
    serving = commands.add_parser("serve", help="hold requests of any language to a budget, by a URL and a key")
    _add_serve(serving)
    serving.set_defaults(run=_serve)
    keys = commands.add_parser("key", help="make, list and revoke the keys of `serve`")
    _add_key(keys)


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m budget_guard_gateway") -> int:
    """Run a command; returns the exit status.

    Args:
        arguments: What was typed; what the process was started with by default.
        prog: What the command is called.
    """
    parser = argparse.ArgumentParser(prog=prog)
    add_commands(parser.add_subparsers(required=True))
    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given)
    except (ValueError, OSError, BudgetError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return status


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--run-budget", required=True, metavar="DOLLARS", help="what each run may spend, such as '$5.00'")
    add("--upstream", action="append", default=[], metavar="NAME=URL", help="a provider; its key is NAME_API_KEY")
    add_run_options(parser)
    add("--plan", action="append", default=[], metavar="NAME:KIND=DOLLARS[/WINDOW]", help="such as 'pro:user=$50/day'")
    add("--admin", metavar="HOST:PORT", help="where operators look and act; their token is BUDGET_GUARD_ADMIN_TOKEN")
    add("--admin-token-file", metavar="FILE", help="has that token, in place of the environment")
    add("--keys", metavar="FILE", help="the file of keys; without one any token is taken, on this machine alone")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=4000, help="0 takes a free one")
    add("--workers", type=int, default=1, help="processes; more than one need a ledger that they share")
    add("--max-live-runs", action="append", default=[], metavar="KIND=N", help="runs open at once, such as key=20")
    add("--allowed-host", action="append", default=[], metavar="NAME", help="a further name that it is asked by")
    add("--allowed-origin", action="append", default=[], metavar="ORIGIN", help="pages whose scripts may ask")
    add("--on-disconnect", choices=get_args(OnDisconnect), default="finish")
    add("--on-cancel", choices=get_args(OnCancel), default="bound")
    add("--decisions-kept", type=float, default=30, metavar="DAYS", help="for a look-up of their records")
    add("--status", type=int, default=402, help="of a refusal where a limit is reached; 402 by default")
    add("--grace", type=float, default=30, metavar="SECONDS", help="for calls under way, when it is stopped")
    add("--max-body", type=int, default=20_000_000, metavar="BYTES")
    add("--max-concurrency", type=int, default=1_000, metavar="N", help="requests under way in each process")


def settings_of(given: argparse.Namespace) -> GatewaySettings:
    """The settings that were typed.

    Raises:
        ValueError: If a value makes no sense.
    """
    return GatewaySettings(
        **run_settings(given, given.run_budget),
        upstreams=[upstream_of(each) for each in given.upstream],
        plans=plans("--plan", given.plan) or None,
        admin=given.admin,
        admin_token=None if given.admin is None else _admin_token(given.admin_token_file),
        keys=given.keys,
        host=given.host,
        port=given.port,
        workers=given.workers,
        allowed_hosts=given.allowed_host,
        allowed_origins=given.allowed_origin,
        max_live_runs={kind: whole("--max-live-runs", n) for kind, n in pairs("--max-live-runs", given.max_live_runs)}
        or None,
        on_disconnect=given.on_disconnect,
        on_cancel=given.on_cancel,
        exceeded_status=given.status,
        decisions_kept_days=given.decisions_kept,
        grace_s=given.grace,
        max_body=given.max_body,
        max_concurrency=given.max_concurrency,
    )


def _serve(given: argparse.Namespace) -> int:
    from budget_guard_gateway.serving import serve

    serve(settings_of(given))
    return 0


def _admin_token(file: str | None) -> str | None:
    """The token of operators: that in *file*, else that of the environment.

    Raises:
        ValueError: If there is an empty one.
        OSError: If the file cannot be read.
    """
    token = os.environ.get(_ADMIN_TOKEN) if file is None else Path(file).read_text("utf-8").strip()
    if token == "":
        raise ValueError(f"{_ADMIN_TOKEN if file is None else file} is empty: make a token with `openssl rand -hex 32`")
    return token


def _add_key(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True)
    adding = verbs.add_parser("add", help="make a key, and show it this once")
    adding.add_argument("name")
    for field in ("user", "team", "feature"):
        adding.add_argument(f"--{field}")
    adding.add_argument("--model", action="append", default=[], metavar="PATTERN", help="it may use, such as 'gpt-4o*'")
    adding.add_argument("--run-budget", metavar="DOLLARS", help="that each of its runs may spend")
    adding.set_defaults(run=_key_add)
    listing = verbs.add_parser("list", help="who has one")
    listing.set_defaults(run=_key_list)
    revoking = verbs.add_parser("revoke", help="take it away, at once")
    revoking.add_argument("name")
    revoking.set_defaults(run=_key_revoke)
    for each in (adding, listing, revoking):
        each.add_argument("--keys", default=_DEFAULT_KEYS, metavar="FILE", help=f"{_DEFAULT_KEYS} by default")


def _key_add(given: argparse.Namespace) -> int:
    key = add_key(
        given.keys,
        given.name,
        user=given.user,
        team=given.team,
        feature=given.feature,
        models=given.model,
        run_budget=given.run_budget,
    )
    print(key)
    return 0


def _key_list(given: argparse.Namespace) -> int:
    for name, entry in read_keys(given.keys).items():
        print(name, *(f"{field}={value}" for field, value in entry.items() if field != "sha256"))
    return 0


def _key_revoke(given: argparse.Namespace) -> int:
    if revoke_key(given.keys, given.name):
        return 0
    print(f"there is no key {given.name!r} in {given.keys}", file=sys.stderr)
    return 1
