"""The suite: what it is told of a service, its checks, and what becomes of each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from budget_guard.testing.protocol.asking import Nonconformity, Said, ask
from budget_guard.testing.provider import LocalProvider
from budget_guard.testing.rates import Rates
from budget_guard.testing.reply import Reply
from budget_guard.testing.request import ProviderRequest

Profile: TypeAlias = Literal["proxy", "records", "service"]
"""A part of the protocol: calls that are passed on, look-up of what was decided on them, and decisions for those who
send by themselves."""

PRICES: Mapping[str, tuple[str, str]] = {"dime": ("0", "6250"), "cheap": ("0", "625")}
"""Dollars per million tokens, read and written, of the models that the suite calls. 16 tokens of ``dime`` are $0.10."""
CALL = Decimal("0.10")
"""What one call of the suite takes, in dollars."""
RUN = Decimal("1.00")
"""What a run must be allowed, in dollars."""
CAP = 16
"""The output cap of its calls."""
FITS = int(RUN / CALL)
"""How many of its calls a run can pay for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service under test, started as `budget_guard.testing.protocol` says."""

    url: str
    """Where it listens."""
    key: str = "conformance-a"
    other_key: str = "conformance-b"
    """A key of another principal."""
    tight_key: str | None = None
    """A key of a third principal, under a ceiling of $0.15 beside the run's; None to leave out what needs it."""
    second_url: str | None = None
    """Another process of the same service, on the same ledger; None to leave out what needs it."""
    secrets: Sequence[str] = ()
    """Names that nobody may be told: those of principals, beside the keys."""
    profiles: frozenset[Profile] = frozenset({"proxy", "records", "service"})
    """What it does of the protocol."""
    exceeded_status: int = 402
    """Its status where a limit is reached."""


class Suite:
    """What checks ask a service with.

    Args:
        target: The service.
        provider: The provider behind it; None where it passes no calls on.
    """

    def __init__(self, target: Target, provider: LocalProvider | None) -> None:
        self.target = target
        self._provider = provider

    @property
    def provider(self) -> LocalProvider:
        """The provider behind the service."""
        if self._provider is None:
            raise ValueError('profiles has "proxy", and there is no provider: give the one that the service asks')
        return self._provider

    @staticmethod
    def new_run() -> str:
        """The id of a run that nobody has used."""
        return f"conformance-{uuid.uuid4().hex[:16]}"

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", url: str | None = None, **headers: str
    ) -> Said:
        """Ask the service.

        Args:
            method: The method.
            path: The path.
            body: The body, as JSON.
            key: Whose request it is; None for nobody's.
            url: Which process is asked; the first by default.
            **headers: Headers, with ``_`` for the hyphens in their names.
        """
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {key or self.target.key}"
        shown = f"{method} {path}" + "".join(
            f" [{name}: {value}]" for name, value in sent.items() if name != "authorization"
        )
        return ask(
            url or self.target.url, method, path, body, sent, words=f"{shown} {body if body is not None else ''}"
        )

    def call(self, run: str | None, text: str = "hi", *, key: str = "", headers: Any = None, **fields: Any) -> Said:
        """Ask for a call to be passed on, which takes `CALL`."""
        named = dict(headers or {})
        if run is not None:
            named["x_run_id"] = run
        return self.ask("POST", "/v1/chat/completions", call_body(text, **fields), key=key, **named)

    def decide(
        self, run: str | None, *, key: str = "", url: str | None = None, headers: Any = None, **fields: Any
    ) -> Said:
        """Ask for a decision on a call, which takes `CALL`."""
        body: dict[str, Any] = {"model": "dime", "input_tokens": 5, "max_output_tokens": CAP}
        if run is not None:
            body["run_id"] = run
        body |= fields
        named: Mapping[str, str] = headers or {}
        return self.ask("POST", "/budget/decisions", body, key=key, url=url, **named)

    def settle(self, id: str, verb: str, body: Any = None, *, key: str = "", url: str | None = None) -> Said:
        """Say what became of a reservation."""
        return self.ask("POST", f"/budget/reservations/{id}/{verb}", body, key=key, url=url)

    def record(self, id: str, *, key: str = "") -> Said:
        """Look a decision up."""
        return self.ask("GET", f"/budget/decisions/{id}", key=key)


def call_body(text: str = "hi", **fields: Any) -> dict[str, Any]:
    """The body of a call that takes `CALL`."""
    body = {"model": "dime", "messages": [{"role": "user", "content": text}], "max_tokens": CAP, **fields}
    return {name: value for name, value in body.items() if value is not None}


class Check(NamedTuple):
    """One demand of the protocol."""

    name: str
    words: str
    """What it demands."""
    profiles: frozenset[Profile]
    """The parts of the protocol that it is about."""
    needs: frozenset[str]
    """The fields of `Target` that it needs beside the always given ones."""
    perform: Callable[[Suite], None]

    def is_for(self, target: Target) -> bool:
        """Whether *target* gives what it needs."""
        return self.profiles <= target.profiles and all(getattr(target, name) is not None for name in self.needs)


class Outcome(NamedTuple):
    """What became of one check."""

    check: Check
    failure: Nonconformity | None

    @property
    def passed(self) -> bool:
        """Whether the service does as the check demands."""
        return self.failure is None

    def __str__(self) -> str:
        told = "ok  " if self.failure is None else "FAIL"
        return f"{told} {self.check.name}: {self.check.words}" + ("" if self.passed else f"\n  {self.failure}")


CHECKS: list[Check] = []
"""All checks, in the order in which they are performed."""


def check(
    *profiles: Profile, needs: Sequence[str] = ()
) -> Callable[[Callable[[Suite], None]], Callable[[Suite], None]]:
    """Add a function to the checks: its name is the check's, and its docstring says what is demanded.

    Args:
        *profiles: The parts of the protocol that it is about.
        needs: Fields of `Target` that it needs beside the always given ones.
    """

    def add(perform: Callable[[Suite], None]) -> Callable[[Suite], None]:
        words = " ".join((perform.__doc__ or "").split())
        CHECKS.append(Check(perform.__name__, words, frozenset(profiles), frozenset(needs), perform))
        return perform

    return add


def perform(each: Check, target: Target, provider: LocalProvider | None) -> Outcome:
    """Perform one check."""
    try:
        each.perform(Suite(target, provider))
    except Nonconformity as failure:
        return Outcome(each, failure)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of what came
        told = f"{type(error).__name__}: {error}"
        return Outcome(each, Nonconformity(asked=each.words, expected="an answer of the right form", came=told))
    return Outcome(each, None)


def checks_for(target: Target) -> list[Check]:
    """The checks that *target* gives all that they need for."""
    return [each for each in CHECKS if each.is_for(target)]


def run(target: Target, provider: LocalProvider | None = None) -> list[Outcome]:
    """Perform all checks.

    Args:
        target: The service.
        provider: The provider behind it, made by `new_provider`; None where it passes no calls on.
    """
    return [perform(each, target, provider) for each in checks_for(target)]


def new_provider(port: int = 0) -> LocalProvider:
    """The provider that the suite needs behind a service that passes calls on, to be used in a ``with`` block.

    Args:
        port: Where it listens; a free port by default.
    """
    rates = {model: Rates(input=read, output=written) for model, (read, written) in PRICES.items()}
    return LocalProvider(_answer, prices=rates, port=port)


def _answer(request: ProviderRequest) -> Reply:
    """What the text of a request asks for: ``status 429``, else a short answer."""
    text = str(request.messages[-1].get("content", "")) if request.messages else ""
    if text.startswith("status "):
        return Reply(status=int(text.removeprefix("status ")), text="not now")
    return Reply(text="word " * CAP, input_tokens=5, output_tokens=CAP, chunks=4)
