"""What adapters need that wrap an object of a framework's: checks of what they are given, and classes in its place."""

from __future__ import annotations

from typing import TypeVar

C = TypeVar("C")


def check_instance(field: str, value: object, kind: type, what: str, owner: str) -> None:
    """See to it that *value* can be wrapped.

    Args:
        field: The argument that it was given as.
        value: What was given.
        kind: The class of what can be wrapped.
        what: That in words: "LLM of LlamaIndex".
        owner: How a user writes it: ``guard_llm(llm, Budget("$5.00"))``.

    Raises:
        TypeError: If it is a class, or something else.
    """
    if isinstance(value, type):
        raise TypeError(f"{field}={value.__name__} is a class: give an instance, {value.__name__}(...)")
    if not isinstance(value, kind):
        raise TypeError(f"{field}={value!r} is no {what}: write {owner}")


def named_like(cls: type[C], guarded: type) -> type[C]:
    """*guarded*, a subclass of *cls*, under its name: frameworks look at names, and write them into what they keep."""
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(guarded, name, getattr(cls, name))
    return guarded
