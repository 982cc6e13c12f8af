"""The model that takes the place of the one asked for, without touching any agent."""

from __future__ import annotations

import copy

from agents.models.interface import Model

from budget_guard import InvalidDowngradeError
from budget_guard_openai_agents.guarded_run import GuardedRun


def model_called(run: GuardedRun, model: Model, asked: str, target: str) -> Model:
    """The model that calls *target* in the place of *model*, over the same client.

    Raises:
        InvalidDowngradeError: If *model* is a custom one whose name cannot be changed.
    """
    if target == asked:
        return model
    provider = run.provider_of(model)
    if provider is not None:
        return provider.get_model(target)
    cheaper = copy.copy(model)
    try:
        if not isinstance(getattr(model, "model", None), str):
            raise AttributeError("it has no name")
        object.__setattr__(cheaper, "model", target)  # the copy is ours, also where its class is frozen
    except AttributeError as error:
        raise InvalidDowngradeError(
            model=asked,
            target=target,
            reason=f"{type(model).__name__} has no `model` name that could be changed",
            remedy="Give the agent the model by name, with RunConfig(model_provider=...).",
        ) from error
    return cheaper
