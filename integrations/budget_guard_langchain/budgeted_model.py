"""A chat model that picks per call: the one asked for, or a cheaper one once the budget says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.tools import BaseTool
from pydantic import Field, PrivateAttr

from budget_guard import DowngradePolicy
from budget_guard.adapter.attempts import ADD_FIELDS, AddField, check_add_fields
from budget_guard.adapter.handle import OnCutOff, check_choice
from budget_guard.policy.misspelt import refuses_unknown_keywords
from budget_guard_langchain.output_cap import can_cap, cap_set
from budget_guard_langchain.steered_model import SteeredModel, name_of
from budget_guard_langchain.steering import Steering

if TYPE_CHECKING:
    from budget_guard_langchain.handler import BudgetCallbackHandler

_log = logging.getLogger("budget_guard")
_TOOLS = "budget_guard_tools"
_TAKEN_OVER = (
    *("cache", "callbacks", "custom_get_token_ids", "disable_streaming", "metadata", "output_version"),
    *("rate_limiter", "tags", "verbose"),
)
"""Settings that the result has of the primary model, because it stands in its place towards LangChain."""


@refuses_unknown_keywords("budgeted_model")
def budgeted_model(
    primary: BaseChatModel,
    cheaper: BaseChatModel,
    *,
    handler: BudgetCallbackHandler | None = None,
    downgrade_at: float = 0.8,
    add_fields: Sequence[AddField] = ADD_FIELDS,
    on_cut_off: OnCutOff = "raise",
) -> BudgetedChatModel:
    """A chat model that calls *primary*, and *cheaper* once a fraction of the budget is spent.

    ::

        model = budgeted_model(ChatOpenAI(model="gpt-4o"), ChatOpenAI(model="gpt-4o-mini"))
        model.invoke("Hi", config={"callbacks": [BudgetCallbackHandler(Budget("$1.00"))]})

    It is decided with each call's hold, so that calls in parallel never share a choice. `cheaper` is also called
    where the primary model no longer fits into what is left. Calls are sent with the output cap that the budget
    chooses. Tools and structured output are bound to both models; structured output is asked for as a tool call.
    The cache, rate limiter, tags and callbacks are the primary model's, for both. Without a budget's handler in the
    call, it is the primary model, and says once that nothing limits it.

    Args:
        primary: The model to call.
        cheaper: The model to switch to; it may be another provider's.
        handler: The budget of this model's calls; by default, the handlers that are active in the call.
        downgrade_at: The fraction of a limit at which to switch: above 0, at most 1.
        add_fields: What may be added to the requests: ``output_cap``, the cap that the budget chooses, and ``usage``,
            the asking for usage in streams. Leave out what an endpoint refuses.
        on_cut_off: What becomes of an answer that the budget's own output cap cuts off: ``raise`` a stop that has what
            came (``partial_output``), or ``keep`` it as the answer.

    Raises:
        TypeError: If one of them is no chat model, such as one that is bound to tools already.
        ValueError: If both are the same model, or *downgrade_at* or *add_fields* makes no sense.
    """
    check_choice("on_cut_off", on_cut_off, OnCutOff)
    for name, model in (("primary", primary), ("cheaper", cheaper)):
        if not isinstance(model, BaseChatModel):
            raise TypeError(
                f"{name}={type(model).__name__} is not a chat model: give the bare model, and bind tools to the result"
            )
    settings = {name: getattr(primary, name) for name in _TAKEN_OVER if name in primary.model_fields_set}
    if handler is not None:
        settings["callbacks"] = [*_as_list(settings.get("callbacks")), handler]
    return BudgetedChatModel(
        primary=primary,
        cheaper=cheaper,
        downgrade_at=downgrade_at,
        add_fields=check_add_fields(add_fields),
        keeps_cut=on_cut_off == "keep",
        **settings,
    )


class BudgetedChatModel(SteeredModel, BaseChatModel):
    """A chat model over two others, made by `budgeted_model`."""

    primary: BaseChatModel
    cheaper: BaseChatModel
    downgrade_at: float = Field(default=0.8)
    add_fields: frozenset[str] = frozenset(ADD_FIELDS)
    keeps_cut: bool = False

    _policy: DowngradePolicy = PrivateAttr()
    _takes: frozenset[str] = PrivateAttr()
    _warned: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        name, cheaper = name_of(self.primary), name_of(self.cheaper)
        if name == cheaper:
            raise ValueError(f"primary and cheaper are both {name!r}: give two models")
        self._policy = DowngradePolicy(to={name: cheaper}, at=self.downgrade_at)
        self._takes = frozenset({cheaper})
        if getattr(self, "profile", self) is None:  # newer than the oldest langchain-core that is supported
            self.profile = _profile_of_both(self.primary, self.cheaper)

    @property
    def _serialized(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        return self.primary._serialized  # callbacks learn the provider's address from it

    @property
    def _llm_type(self) -> str:
        return "budget-guard"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"primary": self.primary._identifying_params, "cheaper": self.cheaper._identifying_params}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind *tools* to both models, in the form of each; to the cheaper one when it is first called."""
        traced = {name: kwargs.pop(name) for name in ("ls_structured_output_format",) if name in kwargs}
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        bound = _Bound(tools, kwargs)
        bound.kwargs_of(self.primary)  # what cannot be bound says so now
        return self.bind(**{_TOOLS: bound}, **traced)

    def get_token_ids(self, text: str) -> list[int]:
        return self.primary.get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> int:
        return self.primary.get_num_tokens_from_messages(messages, *args, **kwargs)

    def _steer(self, kwargs: dict[str, Any]) -> Steering:
        primary, asked = self._inner(None, kwargs)
        cap = cap_set(primary, asked)
        cappable = "output_cap" in self.add_fields and can_cap(primary) and can_cap(self.cheaper)
        if not cappable and cap is not None:
            # Nothing lower can be sent, so what both are set to must be held.
            of_cheaper = cap_set(self.cheaper, asked)
            cap = None if of_cheaper is None else max(cap, of_cheaper)
        return Steering(
            can_cap=cappable,
            cap_set=cap,
            downgrade=self._policy,
            takes=self._takes,
            asks_for_usage="usage" in self.add_fields,
            keeps_cut=self.keeps_cut,
        )

    def _not_decided(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "budget_guard: %s of budgeted_model was called, and no budget's handler is active: nothing limits it. "
                "Give budgeted_model(..., handler=BudgetCallbackHandler(budget)), or the handler among the callbacks.",
                name_of(self.primary),
            )

    def _inner(self, steering: Steering | None, kwargs: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        model = self.primary if steering is None or steering.model is None else self.cheaper
        if _TOOLS not in kwargs:
            return model, kwargs
        own = {name: value for name, value in kwargs.items() if name != _TOOLS}
        return model, {**kwargs[_TOOLS].kwargs_of(model), **own}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # A cached answer may be of either model.
        return f"{super()._get_llm_string(stop=stop, **kwargs)}---{self.cheaper._get_llm_string(stop=stop)}"

    def _should_stream(self, **kwargs: Any) -> bool:
        return all(model._should_stream(**kwargs) for model in (self.primary, self.cheaper))

    def _should_use_protocol_streaming(self, **kwargs: Any) -> bool:
        asked: Any = super()
        if not getattr(asked, "_should_use_protocol_streaming", bool)(**kwargs):  # langchain-core has it from 1.4 on
            return False
        return all(
            any(getattr(type(model), name) is not getattr(BaseChatModel, name) for name in ("_stream", "_astream"))
            for model in (self.primary, self.cheaper)
        )


class _Bound:
    """Tools that are bound to a model when it is first called with them."""

    def __init__(self, tools: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._tools = tools
        self._kwargs = kwargs
        self._bound: list[tuple[BaseChatModel, dict[str, Any]]] = []

    def kwargs_of(self, model: BaseChatModel) -> dict[str, Any]:
        """The arguments of a call of *model* with the tools."""
        for known, kwargs in self._bound:
            if known is model:
                return kwargs
        bound = model.bind_tools(self._tools, **self._kwargs)
        if not isinstance(bound, RunnableBinding):
            raise TypeError(f"{type(model).__name__}.bind_tools gives a {type(bound).__name__}, not a RunnableBinding")
        kwargs = dict(bound.kwargs)
        self._bound.append((model, kwargs))
        return kwargs


def _profile_of_both(primary: BaseChatModel, cheaper: BaseChatModel) -> Any:
    first: dict[str, Any] = dict(primary.profile or {})
    second: dict[str, Any] = dict(cheaper.profile or {})
    both = {name: (value, second[name]) for name, value in first.items() if name in second}
    # yes and no are numbers, too: what one of them cannot do, the pair cannot
    return {name: min(pair) if isinstance(pair[0], int) else pair[0] for name, pair in both.items()}


def _as_list(callbacks: Any) -> list[Any]:
    return list(getattr(callbacks, "handlers", callbacks) or ())
