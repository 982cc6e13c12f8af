"""Settling calls that the garbage collection ends: on another thread, for this one may be within a ledger already.

A coroutine that nobody awaits any more is closed wherever Python collects it: in the middle of any allocation, also
within a lock of ours. Whatever settles its call there would wait for that lock for ever.
"""

from __future__ import annotations

import _thread
import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import get_ident

_WAIT_S = 1.0
"""How long the collection waits for it: until it is done, as a rule, but where this thread holds the lock."""
_collector: int | None = None
"""The thread that is collecting garbage just now. There is never more than one."""


def _note(phase: str, _: Mapping[str, int]) -> None:
    global _collector
    _collector = get_ident() if phase == "start" else None


gc.callbacks.append(_note)


def is_collecting() -> bool:
    """Whether this thread is collecting garbage: a lock may be held that it must not wait for."""
    return _collector is not None and _collector == get_ident()


def settle_elsewhere(settle: Callable[[], object]) -> None:
    """Call *settle* on a thread of its own, and wait for it a while. What it raises is lost."""
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            with suppress(Exception):
                settle()
        finally:
            done.release()

    with suppress(RuntimeError):  # the interpreter ends
        # `threading.Thread` takes locks of its own, within which the garbage may be collected as well
        _thread.start_new_thread(work, ())
        done.acquire(timeout=_WAIT_S)
