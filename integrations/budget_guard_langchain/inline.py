"""``run_inline`` of handlers that must run before a call, and in its context."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


class RunsInline:
    """True, but where LangChain would then leave the handlers of others out.

    ``AsyncCallbackManager.on_llm_start``, of text models, tells the handlers that run inline *or* the others, never
    both: beside one that runs inline, tracers and ``astream_events`` never hear of the start. So a handler of ours
    counts as one of the others there, unless somebody else's runs inline anyway. It is called inline all the same: that
    is decided once more, further down, where each handler is called.
    """

    def __get__(self, handler: object, owner: type) -> bool:
        asking: Any = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # there is no other way to ask
        if asking.f_code.co_name == "<listcomp>":  # which is a frame of its own before Python 3.12
            asking = asking.f_back
        if asking.f_code.co_name != "on_llm_start" or handler is None:
            return True
        manager: Any = asking.f_locals.get("self")
        handlers: Sequence[Any] = getattr(manager, "handlers", ())
        if not getattr(manager, "is_async", False):
            return True
        return any(not _is_ours(other) and other.run_inline for other in handlers)


def _is_ours(handler: object) -> bool:
    defined = next((vars(cls)["run_inline"] for cls in type(handler).__mro__ if "run_inline" in vars(cls)), None)
    return isinstance(defined, RunsInline)
