"""What every peer is put through, once in each process: ``python scenarios.py PEER SCENARIO BASE_URL``.

It runs in the peer's own environment, so it needs nothing but the standard library and what the peer calls models with.
It prints one line of JSON: how many answers came back, what was raised, what the peer says was spent. What was
really billed, only the provider knows (`run.py`).
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

HERE = Path(__file__).parent
CAP_USD = 1.0
MODEL = "gpt-4o"
WORD = " the"
"""One token of gpt-4o's, and four bytes: what the provider counts as a token as well."""
FRAMING = 16
"""Tokens of a request beside its words, at most: the roles, the number of the question."""


@dataclass(frozen=True)
class Call:
    """One call of a model: so many tokens in, and an answer of so many."""

    number: int
    input_tokens: int = 4_000
    output_tokens: int = 3_000
    cap: int | None = None
    """The output cap that the caller sets."""
    model: str = MODEL

    @property
    def prompt(self) -> str:
        """The prompt. No two are alike: a repetition is a loop to some peers."""
        return f"Question {self.number}:" + WORD * max(1, self.input_tokens - FRAMING)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages of the request."""
        return [{"role": "user", "content": self.prompt}]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for an OpenAI client."""
        cap = {} if self.cap is None else {"max_tokens": self.cap}
        return {"model": self.model, "messages": self.messages, **cap}


class Scenario(NamedTuple):
    """A load, and how it is made."""

    way: str
    """"threads", "tasks", "at once" (either), "row" (it ends at the first stop), "ignored" (it goes on after one) or
    "stream"."""
    calls: int
    call: Call
    delay_s: float = 0.0
    """How long an answer takes. It is long, where calls are made at once, so that all are under way together."""
    cached_tokens: int = 0


DEAR = Call(0, input_tokens=24_000, output_tokens=4_000, cap=4_000)
"""A call of $0.10 whose cap is exactly what is written, so that a worst case is no dearer than the call."""
DEARER = Call(0, input_tokens=44_000, output_tokens=4_000, cap=4_000)
"""One of $0.15, of which no number makes a dollar: the call that would cross the cap is seen."""
FREE = Call(0)
CAPPED = Call(0, cap=4_000)
SCENARIOS = {
    "threads": Scenario("threads", 100, DEAR, delay_s=1.5),
    "tasks": Scenario("tasks", 100, DEAR, delay_s=1.5),
    "row": Scenario("row", 100, DEARER),
    "ignored": Scenario("ignored", 100, DEARER),
    "storm": Scenario("at once", 40, FREE, delay_s=1.0),
    "storm-capped": Scenario("at once", 40, CAPPED, delay_s=1.0),
    "row-free": Scenario("row", 40, FREE),
    "row-capped": Scenario("row", 40, CAPPED),
    "unknown": Scenario("row", 1, Call(0, 1_000, 1_000, cap=1_000, model="acme-9")),
    "streamed": Scenario("stream", 1, Call(0, cap=4_000)),
    "cached": Scenario("row", 1, Call(0, output_tokens=1_000, cap=1_000), cached_tokens=3_000),
}
OWN_WORK = "own-work"


class Place:
    """Where the models are. It closes the clients that it made."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._clients: list[Any] = []
        self._async_clients: list[Any] = []

    def openai(self) -> Any:
        """An OpenAI client."""
        import openai

        self._clients.append(openai.OpenAI(base_url=self.base_url, api_key="none", max_retries=0))
        return self._clients[-1]

    def async_openai(self) -> Any:
        """An async OpenAI client."""
        import openai

        self._async_clients.append(openai.AsyncOpenAI(base_url=self.base_url, api_key="none", max_retries=0))
        return self._async_clients[-1]

    def close(self) -> None:
        """Close the sync ones."""
        for client in self._clients:
            client.close()

    async def aclose(self) -> None:
        """Close the async ones, in the event loop that they were used in."""
        for client in self._async_clients:
            await client.close()


class Instant(Place):
    """A place that answers at once, without a socket: only the client's and the guard's work is measured there."""

    def __init__(self) -> None:
        super().__init__("https://api.openai.com/v1")

    def openai(self) -> Any:
        """An OpenAI client over a transport that answers at once."""
        import httpx2
        import openai

        transport = httpx2.MockTransport(self._answer)
        return openai.OpenAI(api_key="none", max_retries=0, http_client=httpx2.Client(transport=transport))

    def async_openai(self) -> Any:
        """The same, async."""
        import httpx2
        import openai

        transport = httpx2.MockTransport(self._answer)
        return openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=httpx2.AsyncClient(transport=transport))

    def _answer(self, request: Any) -> Any:
        import httpx2

        return httpx2.Response(200, headers={"content-type": "application/json"}, content=_ANSWER)


_ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It scatters light."}}
        ],
        "usage": {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50},
    }
).encode()


@dataclass(frozen=True)
class Guard:
    """A peer with a limit of so many dollars: how it makes calls, and what it says of them.

    Each function returns the text of the answer, or raises what the peer raises. None stands for what a peer does
    not have.
    """

    ask: Callable[[Call], str]
    aask: Callable[[Call], Awaitable[str]] | None = None
    stream: Callable[[Call], str] | None = None
    spent: Callable[[], float] | None = None
    plain: Callable[[Call], object] | None = None
    """The same call without the peer."""
    holds_in: Literal["tasks", "threads"] = "tasks"
    """How calls are made at once where it may choose: the way in which it holds."""


class Peer(NamedTuple):
    """A peer's module."""

    opened: Callable[[float, Place], AbstractContextManager[Guard]]
    stops: tuple[type[BaseException], ...]
    """What it raises in place of an answer; anything else is a failure of this benchmark."""


def module(name: str) -> Any:
    """The module of `peers/<name>.py`, by its file: a package of the same name is what it imports."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", HERE / "peers" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no peers/{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def load(name: str) -> Peer:
    """The peer of `peers/<name>.py`."""
    loaded = module(name)
    return Peer(loaded.opened, loaded.STOPS)


class Results:
    """Answers and stops, counted by whichever thread has them."""

    def __init__(self, stops: tuple[type[BaseException], ...]) -> None:
        self._stops = stops
        self._lock = threading.Lock()
        self.returned = self.whole = 0
        self.raised: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def answered(self, call: Call, text: str) -> None:
        """Count one answer."""
        with self._lock:
            self.returned += 1
            self.whole += len(text) >= call.output_tokens * len(WORD)

    def failed(self, error: BaseException) -> None:
        """Count what was raised in place of an answer."""
        name = type(error).__name__
        with self._lock:
            if isinstance(error, self._stops):
                self.raised[name] += 1
            else:
                self.failures[f"{name}: {error}"[:200]] += 1


def numbered(scenario: Scenario) -> Iterator[Call]:
    """The calls of a scenario."""
    call = scenario.call
    for number in range(scenario.calls):
        yield Call(number, call.input_tokens, call.output_tokens, call.cap, call.model)


def by_threads(guard: Guard, scenario: Scenario, results: Results) -> None:
    """All at once, each in a thread of its own."""
    together = threading.Barrier(scenario.calls)

    def one(call: Call) -> None:
        together.wait()
        try:
            results.answered(call, guard.ask(call))
        except Exception as error:
            results.failed(error)

    threads = [threading.Thread(target=one, args=(call,)) for call in numbered(scenario)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def by_tasks(ask: Callable[[Call], Awaitable[str]], scenario: Scenario, results: Results, place: Place) -> None:
    """All at once, by asyncio.gather."""

    async def one(call: Call) -> None:
        try:
            results.answered(call, await ask(call))
        except Exception as error:
            results.failed(error)

    await asyncio.gather(*map(one, numbered(scenario)))
    await place.aclose()


def in_a_row(ask: Callable[[Call], str], scenario: Scenario, results: Results) -> None:
    """One after the other; a program ends at a stop, unless it is one that ignores them."""
    for call in numbered(scenario):
        try:
            results.answered(call, ask(call))
        except Exception as error:
            results.failed(error)
            if scenario.way != "ignored":
                return


def made(peer: Peer, scenario: Scenario, place: Place) -> dict[str, Any]:
    """Make the calls of *scenario* through *peer*."""
    results = Results(peer.stops)
    spent: float | None = None
    with peer.opened(CAP_USD, place) as guard:
        start = time.monotonic()
        way = guard.holds_in if scenario.way == "at once" else scenario.way
        if way == "threads":
            by_threads(guard, scenario, results)
        elif way == "tasks":
            if guard.aask is None:
                return {"unsupported": True}
            asyncio.run(by_tasks(guard.aask, scenario, results, place))
        elif way == "stream":
            if guard.stream is None:
                return {"unsupported": True}
            in_a_row(guard.stream, scenario, results)
        else:
            in_a_row(guard.ask, scenario, results)
        seconds = time.monotonic() - start
        if guard.spent is not None:
            spent = float(guard.spent())
    place.close()
    return {
        "returned": results.returned,
        "whole": results.whole,
        "raised": dict(results.raised),
        "failures": dict(results.failures),
        "spent": spent,
        "seconds": seconds,
    }


def own_work(peer: Peer, batches: int = 201, calls: int = 5) -> dict[str, Any]:
    """Microseconds of CPU time of a call, plain and through the peer, in turn: the least of many batches each."""

    def micros(ask: Callable[[Call], object]) -> float:
        asked = [Call(next(numbers), input_tokens=30, output_tokens=20, cap=100) for _ in range(calls)]
        start = time.process_time_ns()
        for call in asked:
            ask(call)
        return (time.process_time_ns() - start) / 1_000 / calls

    numbers = iter(range(10**9))
    with peer.opened(1e6, Instant()) as guard:
        if guard.plain is None:
            return {"unsupported": True}
        for _ in range(3):
            micros(guard.plain), micros(guard.ask)
        gc.collect()
        gc.freeze()
        pairs = [(micros(guard.plain), micros(guard.ask)) for _ in range(batches)]
    plain, guarded = map(min, zip(*pairs, strict=True))
    return {"plain_us": plain, "added_us": guarded - plain}


def main() -> None:
    name, scenario, base_url = sys.argv[1:]
    warnings.simplefilter("ignore")
    peer = load(name)
    result = own_work(peer) if scenario == OWN_WORK else made(peer, SCENARIOS[scenario], Place(base_url))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    from scenarios import main as of_module  # the module that the peers import from, and not a second one of its name

    of_module()
