"""Every face of a ledger has the verbs of the contract, and hands their arguments on as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

import pytest

from budget_guard.ledger import AsyncLedger, Ledger, MemoryLedger
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.redis.ledger import AsyncRedisLedger, RedisLedger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.verbs import AwaitableVerbs, BlockingVerbs, InlineVerbs, LedgerWrapper

P = ParamSpec("P")
R = TypeVar("R")
VERBS = get_args(Verb)
every_verb = pytest.mark.parametrize("verb", VERBS)


class Noted(BlockingVerbs):
    """Performs nothing, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.aio: AsyncLedger = AwaitedNoted(self)

    def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> Any:
        assert not named
        self.asked.append((verb.__name__, arguments))


class AwaitedNoted(AwaitableVerbs):
    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    async def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> Any:
        return self._noted._perform(verb, *arguments, **named)


def arguments_of(verb: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """An argument for each parameter of *verb* that has no default, and all that a ledger gets for them."""
    parameters = list(inspect.signature(getattr(Ledger, verb)).parameters.values())[1:]
    given = tuple(each.name for each in parameters if each.default is each.empty)
    return given, (*given, *(each.default for each in parameters[len(given) :]))


def test_the_contract_has_these_verbs_and_no_others() -> None:
    for contract in (Ledger, AsyncLedger):
        assert set(VERBS) == {name for name in vars(contract) if not name.startswith("_")} - {"aio"}


@every_verb
@pytest.mark.parametrize(
    "face",
    [
        BlockingVerbs,
        AwaitableVerbs,
        InlineVerbs,
        LedgerWrapper,
        MemoryLedger,
        SqliteLedger,
        RedisLedger,
        AsyncRedisLedger,
    ],
)
def test_every_face_takes_the_arguments_of_the_contract(face: type, verb: str) -> None:
    assert inspect.signature(getattr(face, verb)) == inspect.signature(getattr(Ledger, verb))


@every_verb
async def test_arguments_are_handed_on_in_order_with_their_defaults(verb: str) -> None:
    noted = Noted()
    given, expected = arguments_of(verb)
    getattr(noted, verb)(*given)
    getattr(noted, verb)(**{name: name for name in given})
    await getattr(noted.aio, verb)(*given)
    assert noted.asked == [(verb, expected)] * 3


@every_verb
async def test_a_wrapper_passes_on_what_it_does_not_perform_itself(verb: Verb) -> None:
    noted = Noted()
    wrapper = LedgerWrapper(noted)
    given, expected = arguments_of(verb)
    getattr(wrapper, verb)(*given)
    await getattr(wrapper.aio, verb)(*given)
    assert noted.asked == [(verb, expected)] * 2

    def itself(*arguments: Any) -> Flow[Any]:
        yield "forward", ("id",)
        return arguments

    wrapper.flows = {verb: itself}
    assert getattr(wrapper, verb)(*given) == await getattr(wrapper.aio, verb)(*given) == expected
    assert noted.asked[2:] == [("forward", ("id",))] * 2
