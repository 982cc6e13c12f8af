"""The way from ``hooks=`` to the models: a runner in front of the SDK's own.

`Runner.run` calls the default runner. Ours looks for a guard, marks the run as guarded, wraps its model provider, and
hands over to the runner that was there before. A run without a guard goes straight through.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any, cast

from agents import MaxTurnsExceeded, RunConfig, RunHooks, RunResult, RunResultStreaming
from agents.models.interface import Model, ModelProvider
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from budget_guard.session.run_records import Recording
from budget_guard_openai_agents.compaction import guard_compactions
from budget_guard_openai_agents.composite import CompositeRunHooks
from budget_guard_openai_agents.guarded_run import GuardedRun, RunGuard, activate, current_run, without_guard
from budget_guard_openai_agents.model import GuardedProvider, discover_models, guard_model

_log = logging.getLogger("budget_guard")


def install() -> None:
    """Put our runner in front of the default one, once, and find the models that are called by hand."""
    discover_models()
    current = get_default_agent_runner()
    if not isinstance(current, GuardingRunner):
        set_default_agent_runner(GuardingRunner(current))


class GuardingRunner(AgentRunner):
    """Delegates to *inner*. The SDK asks not to subclass its runner, so nothing of it is used but the type."""

    def __init__(self, inner: AgentRunner) -> None:
        self._inner = inner

    async def run(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        prepared = _prepare(kwargs)
        if prepared is None:
            with without_guard():
                return await self._inner.run(starting_agent, input, **kwargs)
        failure: BaseException | None = None
        with activate(prepared.run), prepared.recording:
            try:
                return await self._inner.run(starting_agent, input, **prepared.kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                await prepared.end(failure)

    def run_sync(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        prepared = _prepare(kwargs)
        if prepared is None:
            with without_guard():
                return self._inner.run_sync(starting_agent, input, **kwargs)
        failure: BaseException | None = None
        with activate(prepared.run), prepared.recording:
            try:
                return self._inner.run_sync(starting_agent, input, **prepared.kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                prepared.end_sync(failure)

    def run_streamed(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResultStreaming:
        prepared = _prepare(kwargs)
        if prepared is None:
            with without_guard():
                return self._inner.run_streamed(starting_agent, input, **kwargs)
        with activate(prepared.run), prepared.recording:  # the run's task is started here, and keeps this context
            result = self._inner.run_streamed(starting_agent, input, **prepared.kwargs)
        task = result.run_loop_task
        if task is not None:
            task.add_done_callback(lambda _: prepared.end_streamed(result, task))
            if prepared.owned is not None:
                _close_when_done(prepared.owned, result, task)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    run: GuardedRun
    kwargs: dict[str, Any]
    owned: GuardedProvider | None
    """The provider, where the SDK would have made one and closed it at the end."""
    recording: Recording
    """The record of the run, where one is kept."""

    async def end(self, failure: BaseException | None) -> None:
        self.run.end()
        self.recording.end(failure)
        if self.owned is not None:
            await _close(self.owned)

    def end_streamed(self, result: RunResultStreaming, task: asyncio.Task[Any]) -> None:
        """As `end`, once the *task* of a streamed run is over."""
        self.run.end()
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failure is None and result.max_turns is not None and result.current_turn > result.max_turns:
            failure = MaxTurnsExceeded(f"Max turns ({result.max_turns}) exceeded")  # raised where it is read
        self.recording.end(failure)

    def end_sync(self, failure: BaseException | None) -> None:
        """As `end`, on the loop that the SDK has run on and leaves open."""
        self.run.end()
        self.recording.end(failure)
        loop = None if self.owned is None else self.owned.loop
        if self.owned is not None and loop is not None and not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(_close(self.owned))


async def _close(provider: ModelProvider) -> None:
    """Close what the SDK would have made and closed: to the end, whoever cancels it, and a failure is only logged."""

    async def close() -> None:
        try:
            await provider.aclose()
        except Exception as error:
            _log.warning("budget_guard: the run's model provider could not be closed: %s", type(error).__name__)

    closing = asyncio.ensure_future(close())
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _close_when_done(provider: ModelProvider, result: RunResultStreaming, task: asyncio.Task[Any]) -> None:
    """Close *provider* when a streamed run is over; its result waits for that where the SDK has a way to say so."""
    ensure = getattr(result, "_ensure_model_provider_cleanup_on_completion", None)
    if callable(ensure):
        ensure(lambda: _close(provider))
        return

    def start(_: object) -> None:
        closing = asyncio.ensure_future(_close(provider))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)

    task.add_done_callback(start)


_closing: set[asyncio.Future[None]] = set()
"""Keeps tasks that close providers from being collected before they are done."""


def _prepare(kwargs: dict[str, Any]) -> _Prepared | None:
    """What to run with, if a guard applies: from the hooks, from the run config, or from an outer run."""
    hooks = cast("RunHooks[Any] | None", kwargs.get("hooks"))
    given = kwargs.get("run_config")
    fields = cast("dict[str, Any]", given or {}) if given is None or isinstance(given, dict) else None
    config = cast(RunConfig, given) if fields is None else RunConfig(**fields)
    guards = in_hooks = guards_in(hooks)
    outer = current_run()
    if isinstance(config.model_provider, GuardedProvider):
        guards = (*guards, *config.model_provider.guards)
    if not guards and outer is None:
        return None
    if outer is not None and not outer.ambient and kwargs.get("hooks") is outer.hooks and given is outer.config:
        return None  # it came through another of our runners, and has everything it needs
    run = GuardedRun(guards, outer)
    missing = [guard for guard in run.guards if guard not in in_hooks]
    if missing:
        hooks = CompositeRunHooks(*missing, *(() if hooks is None else (hooks,)))
    config = guarded_config(config, None)
    run.hooks, run.config = hooks, config
    guard_compactions(kwargs.get("session"))
    provider = config.model_provider
    made_here = fields is not None and "model_provider" not in fields
    owned = provider if made_here and isinstance(provider, GuardedProvider) else None
    recording = Recording(guard.records for guard in run.guards)
    return _Prepared(run, {**kwargs, "hooks": hooks, "run_config": config}, owned, recording)


def guards_in(hooks: RunHooks[Any] | None) -> tuple[RunGuard, ...]:
    """The guards in *hooks*, however deep, outermost first."""
    if isinstance(hooks, RunGuard):
        return (hooks,)
    if isinstance(hooks, CompositeRunHooks):
        return tuple(guard for hook in hooks.hooks for guard in guards_in(hook))
    return ()


def guarded_config(config: RunConfig, guard: RunGuard | None) -> RunConfig:
    """A copy of *config* whose models account for their calls."""
    if isinstance(config.model, Model):
        guard_model(config.model)
    if isinstance(config.model_provider, GuardedProvider) and (guard is None or guard in config.model_provider.guards):
        return config
    return dataclasses.replace(config, model_provider=GuardedProvider(config.model_provider, guard))
