"""A chat model of any class, copied for one call so that the call is made the way it is decided on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel

from budget_guard import DowngradePolicy
from budget_guard_langchain.output_cap import can_cap, cap_set
from budget_guard_langchain.steering import SteeredModel, Steering

_HOW = "budget_guard_how"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How the calls of a steered copy are steered."""

    downgrade: DowngradePolicy | None = None
    stands_for: tuple[str, bool] | None = None
    """The dearer model in whose place it is called, and whether that is the same provider's."""
    final: bool = False
    """Whether it makes the final answer that ``Budget.finalization_reserve`` is kept for."""


class _Copy(SteeredModel):
    """What a copy adds to its model's class."""

    def _steer(self, kwargs: dict[str, Any]) -> Steering:
        model, how = vars(self)[_HOW]
        return Steering(
            can_cap=can_cap(model),
            cap_set=cap_set(model, kwargs),
            downgrade=how.downgrade,
            stands_for=how.stands_for,
            final=how.final,
        )

    def _inner(self, steering: Steering | None, kwargs: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        return vars(self)[_HOW][0], kwargs


def steered(model: BaseChatModel, how: How) -> BaseChatModel:
    """A copy of *model* whose calls are steered. It is of the model's own class for all who ask for that.

    Other middleware looks at the class, to find out what a provider can do. What is steered already stays as it is,
    and so does what is no chat model: one with fallbacks, or one that is bound to something.
    """
    if not isinstance(model, BaseChatModel) or isinstance(model, SteeredModel):
        return model
    copy = model.model_copy()
    vars(copy)[_HOW] = (model, how)
    object.__setattr__(copy, "__class__", _class_of_copies(type(model)))
    return copy


@functools.cache
def _class_of_copies(cls: type[BaseChatModel]) -> type[BaseChatModel]:
    as_before = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    metaclass: Any = type(cls)
    copies: type[BaseChatModel] = metaclass(cls.__name__, (_Copy, cls), as_before)
    for of_its_own in ("_stream_chat_model_events", "_astream_chat_model_events"):
        setattr(copies, of_its_own, None)  # it would be given our argument; LangChain makes the stream of `_stream`
    return copies
