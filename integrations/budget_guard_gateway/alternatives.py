"""The cheaper models that a refusal names: those that the caller may ask for, by the names that it would use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from budget_guard import Alternative, Decision, LedgerUnavailable
from budget_guard_gateway.runs import OpenRun
from budget_guard_gateway.settings import GatewaySettings


async def alternatives_to(decision: Decision, run: OpenRun, settings: GatewaySettings) -> Sequence[Alternative]:
    """The cheaper models that who calls in *run* may ask for in the place of the one that *decision* refuses.

    They are the targets of ``--downgrade``, then the models that ``--alternative`` names, then those that the key is
    allowed by their whole names. None where the ledger cannot be reached.
    """
    who = run.who
    named: dict[str, str] = {}
    for name in (*settings.alternatives, *who.models):  # a pattern has no price, and so is none
        named.setdefault(settings.models.get(name, name), name)
    try:
        found = await run.session.aalternatives(decision, models=named)
    except LedgerUnavailable:
        return ()
    names = run.attempts.names_of | named
    told = [replace(each, model=names.get(each.model, each.model)) for each in found]
    return [each for each in told if who.may_use(each.model)]
