"""Garbage: objects that refer to each other in a circle, and what these refer to, which only the collector frees."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_to_the_collector(*also: type) -> Iterator[set[str]]:
    """The names of the classes, ours and those *also* given, of which something is left to it within the block."""
    names: set[str] = set()
    gc.collect()
    gc.disable()
    try:
        yield names
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        for each in gc.garbage:
            if type(each).__module__.startswith("budget_guard") or isinstance(each, also):
                names.add(type(each).__name__)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
