"""The way from ``hooks=`` to the models: a runner in front of the SDK's own.

`Runner.run` calls the default runner. Ours looks for a guard, marks the run as guarded, wraps its model provider, and
hands over to the runner that was there before. A run without a guard goes straight through.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, cast

from agents import RunConfig, RunHooks, RunResult, RunResultStreaming
from agents.models.interface import Model, ModelProvider
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from budget_guard_openai_agents.composite import CompositeRunHooks
from budget_guard_openai_agents.guarded_run import GuardedRun, RunGuard, activate, current_run
from budget_guard_openai_agents.model import GuardedProvider, guard_model


def install() -> None:
    """Put our runner in front of the default one, once."""
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
            return await self._inner.run(starting_agent, input, **kwargs)
        with activate(prepared.run):
            try:
                return await self._inner.run(starting_agent, input, **prepared.kwargs)
            finally:
                await prepared.end()

    def run_sync(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResult:
        prepared = _prepare(kwargs)
        if prepared is None:
            return self._inner.run_sync(starting_agent, input, **kwargs)
        with activate(prepared.run):
            try:
                return self._inner.run_sync(starting_agent, input, **prepared.kwargs)
            finally:
                # The loop that the provider's connections lived on is the SDK's: it is not running any more.
                prepared.run.end()

    def run_streamed(self, starting_agent: Any, input: Any, **kwargs: Any) -> RunResultStreaming:
        prepared = _prepare(kwargs)
        if prepared is None:
            return self._inner.run_streamed(starting_agent, input, **kwargs)
        with activate(prepared.run):  # the run's task is started here, and keeps this context
            result = self._inner.run_streamed(starting_agent, input, **prepared.kwargs)
        task = result.run_loop_task
        if task is not None:
            task.add_done_callback(lambda _: prepared.end_streamed())
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    run: GuardedRun
    kwargs: dict[str, Any]
    owned: ModelProvider | None
    """The provider, where the SDK would have made one and closed it at the end."""

    async def end(self) -> None:
        self.run.end()
        if self.owned is not None:
            await asyncio.shield(self.owned.aclose())

    def end_streamed(self) -> None:
        self.run.end()
        if self.owned is not None:
            task = asyncio.ensure_future(self.owned.aclose())
            _closing.add(task)
            task.add_done_callback(_closing.discard)


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
    owned = fields is not None and "model_provider" not in fields
    return _Prepared(run, {**kwargs, "hooks": hooks, "run_config": config}, config.model_provider if owned else None)


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
