"""Scripts of the local provider: how it chooses the reply to a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from budget_guard.testing.reply import Reply
from budget_guard.testing.request import ProviderRequest

Script: TypeAlias = "Reply | Sequence[Script] | Mapping[str, Script] | Callable[[ProviderRequest], Script]"
"""How the provider chooses its reply.

A `Reply` answers every call, so ``Reply(tool_calls=[...])`` is an agent that never stops by itself. A
sequence answers one call after the other, in order of arrival, and its last element answers all that follow.
A mapping has a script for each model, and ``"*"`` for all others (else they get status 404); within it,
sequences count the calls of their model. A function looks at the request and returns any of these; it runs in
the provider's thread and must not block. `Attempts` is such a function.
"""


class Attempts:
    """A script for the attempts of one call: ``Attempts(Reply(status=500), Reply(status=429), Reply())``.

    Every call begins with the first, its first retry gets the second, and so on; the last answers all that follow.
    Calls at once are told apart, where a plain sequence answers them in order of arrival. See
    `ProviderRequest.attempt`.
    """

    def __init__(self, *scripts: Script) -> None:
        """
        Args:
            scripts: What answers each attempt.

        Raises:
            ValueError: If there are none.
        """
        if not scripts:
            raise ValueError("Attempts() has no reply: give at least one")
        self._scripts = scripts

    def __call__(self, request: ProviderRequest) -> Script:
        return self._scripts[min(request.attempt, len(self._scripts) - 1)]


def choose(script: Script, request: ProviderRequest) -> Reply | None:
    """The reply to *request*, None if *script* has none for its model.

    Raises:
        ValueError: If a sequence is empty.
    """
    position = request.index
    while not isinstance(script, Reply):
        if callable(script):
            script = script(request)
        elif isinstance(script, Mapping):
            position = request.model_index
            found = script.get(request.model, script.get("*"))
            if found is None:
                return None
            script = found
        elif script:
            script = script[min(position, len(script) - 1)]
        else:
            raise ValueError("the script is an empty sequence: give at least one Reply")
    return script
