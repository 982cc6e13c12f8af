"""What the headers of a request say about its price: at AWS and Google a tier can stand there in place of the body."""

from __future__ import annotations

from collections.abc import Mapping

from budget_guard.wire.request import STANDARD_TIERS, Request

_LATENCY = "x-amzn-bedrock-performanceconfig-latency"
_GUARDRAIL = "x-amzn-bedrock-guardrailidentifier"
_TIERS = ("x-amzn-bedrock-service-tier", "x-vertex-ai-llm-shared-request-type")
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html,
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo."""
PRICE_HEADERS = frozenset((_LATENCY, _GUARDRAIL, *_TIERS))
"""The headers that say something, in lower case."""


def with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """*request* as its headers have it, beside its body.

    Args:
        request: What its body asks for.
        headers: Those of `PRICE_HEADERS` that it has, by their names in lower case.
    """
    tiers = [tier for name in _TIERS if (tier := headers.get(name, "").strip().lower())]
    if headers.get(_LATENCY, "").strip().lower() == "optimized":
        tiers.append("optimized")
    for tier in tiers:
        before = request.tier or "default"
        if tier in STANDARD_TIERS and before in STANDARD_TIERS:
            continue
        if before not in STANDARD_TIERS and before != tier:
            request = request._replace(unclear=(*request.unclear, "a price tier"))
        else:
            request = request._replace(tier=tier)
    if _GUARDRAIL in headers:
        opaque = (*request.prompt.opaque, "what a guardrail costs")
        request = request.with_prompt(request.prompt._replace(opaque=opaque, conversation=0))
    return request
