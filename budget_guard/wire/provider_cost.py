"""A provider's own figure for what a call cost. Where there is one, it is the best there is."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation

from budget_guard.units.amounts import MOST
from budget_guard.units.money import NANO_PER_USD
from budget_guard.wire.values import Json, fields

_EXACT = Context(prec=60)
_TICKS_PER_NANO = 10
"""xAI's tick is a ten-billionth of a dollar: https://docs.x.ai/developers/cost-tracking."""


def provider_cost(usage: Json, *, provider: str | None, model: str | None, answer_id: str | None) -> int | None:
    """The cost that *usage* states, in nano-dollars; None where it states none that can be relied on.

    A field named ``cost`` may mean anything on a server that nobody knows, so it counts only where OpenRouter or
    Perplexity answers. A cost of zero counts only of a model that is free.

    Args:
        usage: The usage object of an answer.
        provider: Who answered, by the host; None where that is not known.
        model: The model asked for, or the one that served.
        answer_id: The id of the answer.
    """
    if "cost" not in usage and "cost_in_usd_ticks" not in usage:
        return None
    ticks = usage.get("cost_in_usd_ticks")
    if type(ticks) is int and provider in (None, "x-ai") and 0 < ticks <= MOST:
        return -(-ticks // _TICKS_PER_NANO)
    cost = usage.get("cost")
    if (parts := fields(cost)) and provider in (None, "perplexity"):
        # https://docs.perplexity.ai/api-reference/chat-completions-post
        return _nano(parts.get("total_cost")) or None
    routed = provider == "openrouter" or (provider is None and (answer_id or "").startswith("gen-"))
    if not routed or cost is None:
        return None
    # https://openrouter.ai/docs/use-cases/usage-accounting: credits are dollars. With a key of one's own the provider
    # behind it bills the rest.
    own = _nano(cost)
    upstream = _nano(fields(usage.get("cost_details")).get("upstream_inference_cost"))
    if own is not None and usage.get("is_byok") is True:
        return None if upstream is None else own + upstream
    if own == 0:
        return 0 if (model or "").endswith(":free") else None
    return own


def _nano(dollars: object) -> int | None:
    if isinstance(dollars, bool) or not isinstance(dollars, (int, float, str)):
        return None
    try:
        amount = Decimal(str(dollars)[:60])
        if not amount.is_finite() or amount < 0 or amount.adjusted() > 9:
            return None
        return int(_EXACT.multiply(amount, Decimal(NANO_PER_USD)).to_integral_value(ROUND_CEILING))
    except InvalidOperation:
        return None
