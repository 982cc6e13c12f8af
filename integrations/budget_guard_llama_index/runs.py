"""What an agent's tools run is inside of that agent's run: so its LLMs are stopped by what stops there.

An LLM does not see which tools are called, nor in which run. LlamaIndex's spans tell: each run of a workflow has one,
and each call of a tool.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # its documented place
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.tools.types import BaseTool
from llama_index.core.workflow import Workflow
from pydantic import PrivateAttr

from budget_guard.adapter import SessionLatch, inside_of

_run: ContextVar[set[SessionLatch] | None] = ContextVar("budget_guard_llama_index_run", default=None)
"""Those whose LLMs were called in the run of an agent; None outside of one."""


def note_call(latches: Iterable[SessionLatch]) -> None:
    """An LLM that *latches* stop is called: by the agent in whose run this is."""
    run = _run.get()
    if run is not None:
        run.update(latches)


def watch_runs() -> None:
    """See to it that runs and tools are seen from now on. Nothing is changed for those without a guarded LLM."""
    dispatcher = get_dispatcher()
    if not any(handler is _RUNS for handler in dispatcher.span_handlers):
        dispatcher.add_span_handler(_RUNS)


class _Runs(BaseSpanHandler[BaseSpan]):
    _inside: dict[str, AbstractContextManager[None]] = PrivateAttr(default_factory=dict)
    """By their spans, the tools that run."""

    def span_enter(self, id_: str, bound_args: Any, instance: Any = None, *args: Any, **kwargs: Any) -> None:
        latches = _run.get()
        if isinstance(instance, Workflow) and id_.startswith(f"{type(instance).__name__}.run-"):
            _run.set(set())  # in the task of the run, whose steps inherit it
        elif latches and isinstance(instance, BaseTool):
            self._inside[id_] = inside_of(tuple(latches))
            self._inside[id_].__enter__()

    def span_exit(self, id_: str, *args: Any, **kwargs: Any) -> None:
        inside = self._inside.pop(id_, None)
        if inside is not None:
            inside.__exit__(None, None, None)

    def span_drop(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self.span_exit(id_)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """Spans are not kept."""

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
        """Spans are not kept."""

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
        """Spans are not kept."""


_RUNS = _Runs()
