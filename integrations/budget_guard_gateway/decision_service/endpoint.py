"""Serves one request to the decision service: which operation is meant, and the headers of its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from budget_guard import BudgetError
from budget_guard.protocol import budget_headers, problem_of
from budget_guard_gateway.addresses import DESCRIPTION, operation_at
from budget_guard_gateway.decision_service.bodies import body_of
from budget_guard_gateway.decision_service.openapi import openapi
from budget_guard_gateway.decision_service.operations import OPERATIONS, Answer, Asked, DecisionService
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.messages import Client, Scope, encoded
from budget_guard_gateway.runs import least_remaining_usd
from budget_guard_gateway.state import GatewayState

PREFIX = "/budget/"
"""What its addresses begin with."""


async def serve_decision(
    gateway: GatewayState, scope: Scope, headers: Mapping[bytes, bytes], who: Principal, client: Client
) -> None:
    """Answer a request to an address that begins with `PREFIX`.

    Raises:
        Refused: If it makes no sense.
    """
    path: str = scope["raw_path"].decode("latin-1")
    if path == DESCRIPTION and scope["method"] == "GET":
        await _answer(gateway, client, Answer(200, openapi()))
        return
    operation, names = operation_at(OPERATIONS, scope["method"], path)
    body = body_of(operation.body, await client.body(gateway.settings.max_body, headers))
    service = DecisionService(gateway)
    try:
        client.watch(asyncio.current_task())
        answer = await operation.perform(service, Asked(who, names, headers, body, client))
    except BudgetError as error:
        run_id = getattr(body, "run_id", None)
        refusal = problem_of(error, run_id=run_id, exceeded_status=gateway.settings.exceeded_status)
        answer = Answer(refusal.status, refusal.document, error=error, refusal=refusal)
    await _answer(gateway, client, answer)


async def _answer(gateway: GatewayState, client: Client, answer: Answer) -> None:
    names = await _headers(gateway, answer)
    if answer.refusal is not None:
        await client.refuse(answer.refusal, names)
        return
    data = json.dumps(answer.document, ensure_ascii=False).encode("utf-8", "backslashreplace")
    await client.answer(answer.status, encoded([("Content-Type", "application/json"), *names]), data)


async def _headers(gateway: GatewayState, answer: Answer) -> list[tuple[str, str]]:
    run = answer.run
    record = answer.record
    names = budget_headers(
        mode=gateway.settings.run_budget.mode if record is None else record["mode"],
        run_id=run.id if run is not None else None if record is None else record["run_id"],
        decision=answer.decision,
        error=answer.error,
        remaining_usd=None if run is None else await least_remaining_usd(run),
        prices=gateway.prices if record is None else record["price"]["table"],
        refused=answer.status >= 400,
    )
    told = {} if answer.action is None else {"X-Budget-Decision": answer.action}
    if record is not None:
        told["X-Budget-Decision-Id"] = record["decision_id"]
    return [*told.items(), *((name, value) for name, value in names if name not in told)] if told else names
