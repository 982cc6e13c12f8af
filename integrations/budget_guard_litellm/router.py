"""LiteLLM's router, each attempt of which is held before it is sent."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from litellm.router import Router  # pyright: ignore[reportMissingTypeStubs]  # it has few types

from budget_guard import UnboundedCallError
from budget_guard.adapter import Attempts
from budget_guard_litellm.errors import stops
from budget_guard_litellm.sdk_attempt import SdkAttempt

_BROKEN = "_budget_guard_stream"


class _RouterAttempt:
    """One attempt of a router: the model that it is sent to is chosen in the middle of it."""

    __slots__ = ("call_type", "counting", "held", "messages")

    def __init__(self, call_type: str, messages: Any) -> None:
        self.call_type = call_type
        self.messages = messages
        self.held: SdkAttempt | None = None
        self.counting: Any = None


_routed: ContextVar[_RouterAttempt | None] = ContextVar("budget_guard_litellm_routed", default=None)
"""The attempt that is being made."""


class _Methods:
    """The methods of one router that hold its attempts, around its own.

    They are set on the router itself, which stays LiteLLM's own.
    """

    def __init__(self, router: Any, attempts: Attempts) -> None:
        self._attempts = attempts
        self._own: dict[str, Any] = {name: getattr(router, name) for name in _HELD_IN}
        for name in _HELD_IN:
            setattr(router, name, getattr(self, name.lstrip("_")))

    def completion(self, model: str, messages: Any, **kwargs: Any) -> Any:
        broken = kwargs.pop(_BROKEN, None)
        if broken is not None:
            broken.held.attempt.give_up()
        routed = _RouterAttempt("completion", messages)
        token = _routed.set(routed)
        try:
            answer = self._own["_completion"](model=model, messages=messages, **kwargs)
        except BaseException as error:
            if routed.held is not None:
                routed.held.fail(error)
            raise
        finally:
            _end(routed)
            _routed.reset(token)
        return answer if routed.held is None else routed.held.answered(answer)

    async def acompletion(self, model: str, messages: Any, **kwargs: Any) -> Any:
        broken = kwargs.pop(_BROKEN, None)
        if broken is not None:
            await broken.held.attempt.agive_up()
        routed = _RouterAttempt("acompletion", messages)
        token = _routed.set(routed)
        try:
            answer = await self._own["_acompletion"](model=model, messages=messages, **kwargs)
        except BaseException as error:
            if routed.held is not None:
                await routed.held.afail(error)
            raise
        finally:
            _end(routed)
            _routed.reset(token)
        return answer if routed.held is None else await routed.held.aanswered(answer)

    def get_available_deployment(self, *args: Any, **kwargs: Any) -> Any:
        routed = _begun(args, kwargs)
        deployment = self._own["get_available_deployment"](*args, **kwargs)
        if routed.held is not None:
            return deployment
        held, chosen = self._chosen(routed, deployment, kwargs)
        held.hold()
        return _decided(routed, held, chosen, deployment, kwargs)

    async def async_get_available_deployment(self, *args: Any, **kwargs: Any) -> Any:
        routed = _begun(args, kwargs)
        deployment = await self._own["async_get_available_deployment"](*args, **kwargs)
        if routed.held is not None:  # it was chosen by the method that blocks, as for some strategies
            return deployment
        held, chosen = self._chosen(routed, deployment, kwargs)
        await held.ahold()
        return _decided(routed, held, chosen, deployment, kwargs)

    def completion_streaming_iterator(self, *args: Any, **kwargs: Any) -> Any:
        return self._own["_completion_streaming_iterator"](*args, **_marked(kwargs))

    async def acompletion_streaming_iterator(self, *args: Any, **kwargs: Any) -> Any:
        return await self._own["_acompletion_streaming_iterator"](*args, **_marked(kwargs))

    def _chosen(
        self, routed: _RouterAttempt, deployment: Any, kwargs: dict[str, Any]
    ) -> tuple[SdkAttempt, dict[str, Any]]:
        """The attempt on a *deployment*, and what LiteLLM would be called with."""
        asked: dict[str, Any] = kwargs.get("request_kwargs") or {}
        arguments: dict[str, Any] = {**deployment["litellm_params"], **asked, "messages": routed.messages}
        arguments["model"] = deployment["litellm_params"]["model"]
        arguments.setdefault("model_info", deployment.get("model_info"))
        return SdkAttempt(self._attempts, routed.call_type, arguments), arguments


_HELD_IN = (
    *("_completion", "_acompletion", "get_available_deployment", "async_get_available_deployment"),
    *("_completion_streaming_iterator", "_acompletion_streaming_iterator"),
)
"""The methods of LiteLLM's router that every attempt passes through."""


def guarded_router(attempts: Attempts, *args: Any, **kwargs: Any) -> Router:
    """LiteLLM's router, whose chat completions spend from one budget, sync and async, streamed or not.

    Each retry, and each deployment that is fallen back on, is held by itself. A call that is not held, such as one for
    an image, is refused.

    Args:
        attempts: The budgets that it spends from.
        *args: As of `litellm.Router`.
        **kwargs: As of `litellm.Router`.

    Raises:
        NotImplementedError: If this version's router cannot be held: from 1.110 on its inside is out of reach.
    """
    if not all(hasattr(Router, name) for name in _HELD_IN):
        raise NotImplementedError(
            "the router of this version of LiteLLM cannot be held: each of its attempts is out of reach. Use "
            "BudgetGuard.completion with num_retries= and fallbacks=, or litellm below 1.110"
        )
    router: Router = Router(*args, **kwargs)
    _Methods(router, attempts)
    return router


class _Broken:
    """Goes with the arguments of a stream to what goes on with it, if it breaks."""

    def __init__(self, held: SdkAttempt) -> None:
        self.held = held

    def __copy__(self) -> _Broken:
        return self

    def __deepcopy__(self, _: Any) -> _Broken:
        return self


def _begun(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _RouterAttempt:
    """The attempt that a deployment is chosen for.

    Raises:
        UnboundedCallError: If it is for a call that is not held.
    """
    routed = _routed.get()
    if routed is None or routed.held is not None:
        model = kwargs.get("model") or (args[0] if args else "")
        raise stops.recast(
            UnboundedCallError(
                model=str(model),
                reason="of a guarded router chat completions alone are held to a budget",
                remedy="Use completion or acompletion, or a router of LiteLLM's own for the rest.",
            )
        )
    return routed


def _decided(
    routed: _RouterAttempt, held: SdkAttempt, chosen: dict[str, Any], deployment: Any, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The *deployment* with what was decided, some of which goes into the arguments of the request."""
    routed.held = held
    asked = kwargs.get("request_kwargs")
    params = {**deployment["litellm_params"], "model": chosen["model"]}
    for name, value in chosen.items():
        if name in ("model", "messages", "model_info"):
            continue
        if isinstance(asked, dict) and (name in asked or name not in params):
            asked[name] = value
        else:
            params[name] = value
    routed.counting = held.attempt.counting()
    routed.counting.__enter__()
    return {**deployment, "litellm_params": params}


def _end(routed: _RouterAttempt) -> None:
    if routed.counting is not None:
        routed.counting.__exit__(None, None, None)


def _marked(kwargs: dict[str, Any]) -> dict[str, Any]:
    """*kwargs* of a stream's iterator, with the attempt that it is, for another one that goes on where it breaks."""
    routed = _routed.get()
    if routed is None or routed.held is None:
        return kwargs
    return {**kwargs, "initial_kwargs": {**kwargs["initial_kwargs"], _BROKEN: _Broken(routed.held)}}
