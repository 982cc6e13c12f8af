"""A call of LiteLLM, read as the request that comes of it, in the language in which it was asked.

LiteLLM translates what it is asked into each provider's own language. What it is asked is the effective request all the
same: arguments, those of the deployment, and an extra body, the last one wins.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import litellm
from litellm.types.utils import all_litellm_params  # pyright: ignore[reportMissingTypeStubs]  # it has few types

from budget_guard import BudgetError, UnboundedCallError
from budget_guard.adapter import Attempt, Attempts, with_prefix_of
from budget_guard.pricing.model_names import provider_id
from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Dialect,
    Endpoint,
    endpoint_of_url,
)
from budget_guard.wire.hosts import provider_of_host
from budget_guard.wire.values import fields, text
from budget_guard_litellm.effective_request import (
    INJECTED_CACHE,
    cap_of,
    effective_request,
    left_out,
    numbers,
    other_caps,
    other_model,
    written_messages,
)

_ROUTES: tuple[tuple[Dialect, str, tuple[str, ...]], ...] = (
    (CHAT_COMPLETIONS, "/v1/chat/completions", ("acompletion", "completion")),
    (COMPLETIONS, "/v1/completions", ("atext_completion", "text_completion")),
    (EMBEDDINGS, "/v1/embeddings", ("aembedding", "embedding", "embeddings")),
    (RESPONSES, "/v1/responses", ("aresponses", "responses")),
    (MESSAGES, "/v1/messages", ("anthropic_messages", "aanthropic_messages")),
)
_ROUTE_OF: dict[str, tuple[Dialect, str]] = {
    name: (dialect, path) for dialect, path, names in _ROUTES for name in names
}
HELD = frozenset(_ROUTE_OF)
"""The types of calls that are held, as LiteLLM names them."""

_OWN = frozenset(all_litellm_params) | frozenset(
    f"{INJECTED_CACHE} azure initial_prompt_value additional_drop_params allowed_openai_params api_base api_key "
    "api_version aws_access_key_id aws_region_name "
    "aws_secret_access_key aws_session_token base_url cache client custom_llm_provider deployment_id drop_params "
    "enable_json_schema_validation extra_body extra_headers fallbacks guard headers litellm_call_id "
    "litellm_logging_obj litellm_metadata max_retries metadata mock_response model_info num_retries organization "
    "original_function proxy_server_request region_name retry_policy retry_strategy router_model_id secret_fields "
    "shared_session specific_deployment ssl_verify stream_timeout timeout user_api_key_dict vertex_credentials "
    "vertex_location vertex_project".split()
)
"""Arguments that are LiteLLM's own: all others are sent to the provider."""
_TOLD_BY_LITELLM = frozenset({"responses", "aresponses", "anthropic_messages", "aanthropic_messages"})
"""Types of calls whose ``metadata`` is sent to the provider: LiteLLM keeps its own in ``litellm_metadata``."""
_NO_PROVIDER = frozenset({"custom", "custom_openai", "litellm_proxy", "openai_like"})
"""What LiteLLM calls servers of which it knows nothing."""
_MOST_NAMED = 200


class AskedCall:
    """One call of LiteLLM on its way: what holds it, and what it was asked.

    Args:
        attempt: The request that comes of it.
        call_type: Its type, as LiteLLM names it.
        model: The model as LiteLLM names it.
        provider: The provider as LiteLLM names it; None where it knows none.
        body: What the request is read from.
        cap: An output cap that is to be sent by LiteLLM's own name as well; None where it is, or there is none.
    """

    __slots__ = ("_body", "_cap", "attempt", "call_type", "model", "provider")

    def __init__(
        self, attempt: Attempt, call_type: str, model: str, provider: str | None, body: bytes, cap: int | None
    ) -> None:
        self.attempt = attempt
        self.call_type = call_type
        self.model = model
        self.provider = provider
        self._body = body
        self._cap = cap

    @property
    def family(self) -> str:
        """The type of the call, whether it blocks or is awaited."""
        return family_of(self.call_type)

    def put_into(self, arguments: MutableMapping[str, Any]) -> None:
        """Put into the *arguments* of the call what the budgets decided, once it is held."""
        if self._cap is not None:
            arguments[cap_of(self.call_type)] = self._cap
        if self.attempt.body is not self._body:
            self._change(arguments, json.loads(self._body), json.loads(self.attempt.body))
        arguments["max_retries"] = 0  # each attempt is held by itself: a client's own retries would not be seen

    def _change(
        self, arguments: MutableMapping[str, Any], asked: Mapping[str, Any], decided: Mapping[str, Any]
    ) -> None:
        extra = arguments.get("extra_body")
        more: dict[str, Any] = dict(fields(extra))
        own_cap = cap_of(self.call_type)
        for name, value in decided.items():
            if value == asked.get(name):
                continue
            if name in ("max_completion_tokens", own_cap):  # a provider's own name of it would win over it
                for other in other_caps(self.call_type):
                    arguments.pop(other, None)
                    more.pop(other, None)
            if name == "model":
                arguments["model"] = with_prefix_of(self.model, str(value))
                arguments.pop("base_model", None)
                if arguments.get("deployment_id") is not None:
                    arguments["deployment_id"] = str(value)
                continue
            if name == "max_completion_tokens" and name not in asked:
                name = "max_tokens"  # which LiteLLM has every provider take
            if name in more:
                more[name] = value
            else:
                arguments[name] = value
        for name in asked.keys() - decided.keys():
            arguments.pop(name, None)
            more.pop(name, None)
        if extra is not None:
            arguments["extra_body"] = more


def family_of(call_type: object) -> str:
    """The type of a call, whether it blocks or is awaited.

    Args:
        call_type: A text, or a member of LiteLLM's enumeration.
    """
    name = str(getattr(call_type, "value", call_type))
    return name[1:] if name[1:] in HELD else name


def asked_call(attempts: Attempts, call_type: object, arguments: Mapping[str, Any]) -> AskedCall:
    """The call that LiteLLM is asked to make. Nothing is held yet.

    Args:
        attempts: The budgets that it spends from.
        call_type: Its type, as LiteLLM names it.
        arguments: What it is called with, those of the deployment among them.

    Raises:
        BudgetError: If it cannot be read, or nothing bounds what it costs.
    """
    kind = str(getattr(call_type, "value", call_type))
    model = str(arguments.get("model") or "")
    if kind not in _ROUTE_OF:
        raise not_held(kind, model)
    dialect, path = _ROUTE_OF[kind]
    deployment = other_model(arguments, kind, model)
    name, provider = _named(model, arguments) if deployment is None else (deployment, "azure")
    without = left_out(arguments, kind, name, provider)
    if deployment is not None:
        behind = attempts.models.get(deployment, deployment)
    else:
        behind = attempts.models.get(model) or _behind(attempts, kind, arguments) or _base(arguments) or name
    sent = _sent(arguments, behind, without)
    messages = written_messages(arguments, kind)
    if messages is not None:
        sent["messages"] = messages
    own_cap = cap_of(kind)
    cap = None
    if own_cap not in sent and own_cap not in without and "max_completion_tokens" not in sent:
        cap = max(numbers(sent, other_caps(kind)), default=None)
        if cap is not None:
            sent[own_cap] = cap
    try:
        dumped = json.dumps(sent, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnboundedCallError(
            model=name, reason="what it is called with is no JSON", remedy="Give plain values."
        ) from error
    where = _where(arguments, provider, path)
    body = dumped.encode("utf-8", "surrogatepass")
    attempt = attempts.begin_at(where, dialect, path, False, body)
    attempt.request = effective_request(attempt.request, arguments, sent, kind)
    if own_cap in without:
        attempt.add_fields -= {"output_cap"}
    location = arguments.get("vertex_location")
    if provider is not None and provider.startswith("vertex") and isinstance(location, str) and location != "global":
        attempt.request = attempt.request._replace(region=location)
    return AskedCall(attempt, kind, model, provider, body, cap)


def not_held(kind: str, model: str = "") -> BudgetError:
    """The refusal of a call of a type that no budget holds."""
    return UnboundedCallError(
        model=model[:_MOST_NAMED] or kind,
        reason=f"calls of the type {kind} are not held to a budget",
        remedy="Ask for chat completions, completions, embeddings, responses or messages.",
    )


def _named(model: str, arguments: Mapping[str, Any]) -> tuple[str, str | None]:
    """The model without its provider, and the provider as LiteLLM names it; as it is where LiteLLM knows neither."""
    chosen: Any = arguments.get("custom_llm_provider")
    address: Any = arguments.get("api_base") or arguments.get("base_url")
    try:
        name, provider, _, _ = litellm.get_llm_provider(model=model, custom_llm_provider=chosen, api_base=address)
    except Exception:  # LiteLLM says itself what is wrong with it
        return model, None
    return name, provider


def _behind(attempts: Attempts, kind: str, arguments: Mapping[str, Any]) -> str | None:
    """The model behind the public name under which a router was asked."""
    if not attempts.models:
        return None
    told = "litellm_metadata" if kind in _TOLD_BY_LITELLM else "metadata"  # the other one is the caller's own
    group = fields(arguments.get(told)).get("model_group")
    return attempts.models.get(group) if isinstance(group, str) else None


def _base(arguments: Mapping[str, Any]) -> str | None:
    """The model behind a deployment, where its entry in the configuration says."""
    found = text(fields(arguments.get("model_info")).get("base_model"))
    if found is None and "base_model" not in fields(fields(arguments.get("proxy_server_request")).get("body")):
        found = text(arguments.get("base_model"))
    return None if found is None else found.rpartition("/")[2]


def _sent(arguments: Mapping[str, Any], model: str, without: Collection[str]) -> dict[str, Any]:
    """The fields that are sent, the extra body last, but for those that LiteLLM leaves out."""
    found = {
        name: value
        for name, value in arguments.items()
        if value is not None and name not in _OWN and name not in without
    }
    found |= fields(arguments.get("extra_body"))
    found["model"] = model
    return found


def _where(arguments: Mapping[str, Any], provider: str | None, path: str) -> Endpoint:
    address: Any = arguments.get("api_base") or arguments.get("base_url") or ""
    where = endpoint_of_url(str(address))._replace(path=path, query=())
    if provider is None or provider in _NO_PROVIDER:
        return where._replace(provider=provider_of_host(where.host))
    named = provider.removesuffix("-openai").removeprefix("text-completion-")
    return where._replace(provider=provider_id(named))


def _plain(value: object) -> object:
    """A value that is no JSON, as what comes of it on the wire: a model's fields, or its schema."""
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)
        return schema() if callable(schema) else value.__name__
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if callable(dump) else str(value)
