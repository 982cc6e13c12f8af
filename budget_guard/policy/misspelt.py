"""Unknown keywords that say which one was most likely meant: a limit under another name must not be a riddle."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import ParamSpec, TypeVar

from budget_guard.units.printable import printable

P = ParamSpec("P")
R = TypeVar("R")

BUDGET_WORDS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("max_usd", "max_dollars", "max_spend", "max_spend_usd", "max_cost", "max_price", "max_budget"),
            *("budget", "budget_usd", "cost", "cost_usd", "limit", "limit_usd", "usd", "dollars", "amount", "spend"),
        ),
        "max_cost_usd",
    ),
    **dict.fromkeys(("max_tokens", "tokens", "token_limit", "max_token"), "max_total_tokens"),
    **dict.fromkeys(("max_completion_tokens", "output_tokens"), "max_output_tokens"),
    **dict.fromkeys(("max_prompt_tokens", "input_tokens"), "max_input_tokens"),
    **dict.fromkeys(
        (
            *("max_calls", "calls", "requests", "max_llm_calls", "max_model_calls"),
            *("max_iterations", "max_steps", "max_turns"),
        ),
        "max_requests",
    ),
    **dict.fromkeys(("tool_calls", "max_tools", "max_tool_uses"), "max_tool_calls"),
    **dict.fromkeys(
        ("timeout", "timeout_s", "max_time", "max_time_s", "max_seconds", "max_duration", "duration", "deadline"),
        "max_duration_s",
    ),
    **dict.fromkeys(("fallback", "fallback_model", "downgrade_to", "cheaper_model"), "downgrade"),
    **dict.fromkeys(("warn_at", "warning", "alert_at", "soft"), "soft_limit"),
    **dict.fromkeys(("period", "per", "interval", "reset"), "window"),
}
"""What else the arguments of a budget are called elsewhere, and what they are called here."""


def meant(name: str, known: Mapping[str, object], words: Mapping[str, str]) -> str | None:
    """Which of the *known* names *name* most likely stands for; None if none comes near."""
    if name in words and words[name] in known:
        return words[name]
    close = get_close_matches(name, known, 1, 0.6)
    return close[0] if close else None


def unknown_keyword(owner: str, name: str, known: Iterable[str], remedy: str = "") -> TypeError:
    """The error for a keyword that *owner* does not take, with the one that was most likely meant.

    Args:
        owner: What was called.
        name: The keyword.
        known: Those that it takes.
        remedy: What else to do about it.
    """
    taken = list(dict.fromkeys(known))
    near = meant(name, dict.fromkeys(taken), {})
    field = BUDGET_WORDS.get(name, name if name in BUDGET_WORDS.values() else None)
    if field is not None and field not in taken:
        remedy = f"it is a part of the budget: Budget(..., {field}=...)"
    elif near is not None:
        remedy = f"did you mean {near}?{remedy and f' Else {remedy}'}"
    listed = ", ".join(taken)
    return TypeError(f"{owner}() takes no {printable(name)}=: {remedy or f'use one of {listed}'}")


def refuses_unknown_keywords(owner: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that a keyword that it does not take is refused as by `unknown_keyword`.

    Args:
        owner: What it is called by its users.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        known = [each.name for each in parameters if each.name != "self" and each.kind is not each.VAR_POSITIONAL]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    raise unknown_keyword(owner, name, known)
            return function(*args, **kwargs)

        return checked

    return decorate


def tells_what_was_meant(words: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate an ``__init__`` so that an unknown keyword is refused with the known one that was most likely meant.

    Args:
        words: Other words for its arguments.
    """

    def decorate(init: Callable[P, R]) -> Callable[P, R]:
        known = inspect.signature(init).parameters

        @functools.wraps(init)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    owner = type(args[0]).__name__
                    near = meant(name, known, words)
                    if near is None:
                        raise TypeError(f"{owner}() takes no {name}: use one of {', '.join(list(known)[1:])}")
                    raise TypeError(f"{owner}() takes no {name}: did you mean {near}?")
            return init(*args, **kwargs)

        return checked

    return decorate
