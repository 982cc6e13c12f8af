"""A model provider on this machine, so that a budget can be proved without an API key or a network.

::

    from budget_guard.testing import LocalProvider, Reply

    with LocalProvider(Reply(text="hello", input_tokens=1_000, output_tokens=200)) as provider:
        client = OpenAI(base_url=provider.base_url, api_key="none", max_retries=0)
        client.responses.create(model="gpt-4o", input="hi")
    assert provider.bill_usd == Decimal("0.0045")

It speaks the real wire formats, JSON and streams, and keeps its own ledger of what it served: the bill to compare a
guard with. A path may have anything before these ends, such as ``/v1`` or a gateway's prefix.

==================================================================  ================================================
OpenAI Chat Completions, Completions, Responses, Embeddings         ``/chat/completions``, ``/completions``,
                                                                    ``/responses``, ``/embeddings``
Azure OpenAI                                                        ``/openai/deployments/{name}/chat/completions``,
                                                                    ``.../completions``, ``.../embeddings``
Anthropic Messages                                                  ``/messages``
Anthropic on Vertex                                                 ``/models/{model}:rawPredict``,
                                                                    ``:streamRawPredict``
Anthropic on Bedrock                                                ``/model/{id}/invoke``,
                                                                    ``/model/{id}/invoke-with-response-stream``
Google Gemini, also on Vertex                                       ``/models/{model}:generateContent``,
                                                                    ``:streamGenerateContent``
Bedrock Converse                                                    ``/model/{id}/converse``, ``/converse-stream``
Cohere                                                              ``/v2/chat``
==================================================================  ================================================

A cap on output tokens is obeyed, and refused where the real one refuses it: below 16 on Responses, at the thinking
budget or below on Messages, below 1 anywhere. It bills

- a completed call in full, whether or not the client was told its usage;
- a call that was refused (`Reply.status`) with nothing;
- a stream that was dropped by the provider, broken off with an error, or aborted by the client, with its whole input
  and the output that was generated up to then;
- any other call that was dropped or aborted in full: the provider did the work;
- anything else that the script wants: `Reply.bill` and `Reply.generated`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING

from budget_guard.testing.rates import DEFAULT_RATES, Rates
from budget_guard.testing.reply import Reply
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.script import Script
from budget_guard.testing.served import ServedCall
from budget_guard.testing.serving import Service
from budget_guard.testing.wire import Wire
from budget_guard.testing.wire_anthropic_bedrock import AnthropicBedrockWire
from budget_guard.testing.wire_anthropic_messages import AnthropicMessagesWire
from budget_guard.testing.wire_anthropic_vertex import AnthropicVertexWire
from budget_guard.testing.wire_bedrock_converse import BedrockConverseWire
from budget_guard.testing.wire_cohere_chat import CohereChatWire
from budget_guard.testing.wire_google_generate import GoogleGenerateWire
from budget_guard.testing.wire_openai_chat import OpenAIChatWire
from budget_guard.testing.wire_openai_completions import OpenAICompletionsWire
from budget_guard.testing.wire_openai_embeddings import OpenAIEmbeddingsWire
from budget_guard.testing.wire_openai_responses import OpenAIResponsesWire
from budget_guard.units.money import to_usd

if TYPE_CHECKING:
    from budget_guard.testing.server import HttpServer

_WIRES: tuple[Wire, ...] = (
    OpenAIChatWire(),
    OpenAICompletionsWire(),
    OpenAIResponsesWire(),
    OpenAIEmbeddingsWire(),
    AnthropicMessagesWire(),
    AnthropicVertexWire(),
    AnthropicBedrockWire(),
    GoogleGenerateWire(),
    BedrockConverseWire(),
    CohereChatWire(),
)
"""The first whose route matches serves a path."""


class LocalProvider:
    """A server on the loopback interface that speaks as model providers do, and the ledger of what it served.

    Use it in a ``with`` block, in sync and async code alike, or call `start` and `stop`. It runs in a thread
    of its own; several may run at once. Everything here may be called from any thread.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        prices: Mapping[str, Rates] | None = None,
        refuse_unknown_models: bool = False,
        port: int = 0,
    ) -> None:
        """
        Args:
            script: What it answers; None for "ok" to everything. See `Script`.
            prices: Rates by model, beside `DEFAULT_RATES` and instead of them. A dated snapshot such as
                "gpt-4o-2024-08-06" or "claude-haiku-4-5-20251001" has the rates of its model. Any other model is
                served unpriced.
            refuse_unknown_models: Answer 404 for a model without rates, as a provider does that lacks it.
            port: Where it listens; a free port by default.
        """
        self._service = Service(
            _WIRES,
            Reply() if script is None else script,
            {**DEFAULT_RATES, **(prices or {})},
            refuse_unknown_models=refuse_unknown_models,
        )
        self._signal, self._log = self._service.signal, self._service.log
        self._port = port
        self._server: HttpServer | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: If the port is taken.
            ImportError: If the extra ``testing`` is not installed.
            RuntimeError: If it runs already.
        """
        try:
            from budget_guard.testing.server import HttpServer
        except ImportError as error:
            raise ImportError('LocalProvider needs: pip install "budget-guard-py[testing]"') from error
        if self._server is not None:
            raise RuntimeError("the provider runs already")
        self._server = HttpServer(self._service.receive, self._signal, self._port)

    def stop(self) -> None:
        """Cut every connection and end the thread. Calls under way count as dropped; the ledger stays."""
        server, self._server = self._server, None
        if server is not None:
            for call in self._log.open_calls():
                self._service.settle(call, "dropped")
            server.stop()

    def __enter__(self) -> LocalProvider:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it.

        Raises:
            RuntimeError: If the script failed, which the client saw only as status 500.
        """
        self.stop()
        cause = self._service.script_error
        if cause is not None and kind is None:
            raise RuntimeError(f"the provider's script failed: {cause!r}") from cause

    @property
    def base_url(self) -> str:
        """What to give to an OpenAI client, for example "http://127.0.0.1:50123/v1".

        Raises:
            RuntimeError: If the provider does not run.
        """
        return f"{self.root_url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What to give to an Anthropic client, which adds the "/v1" itself: `root_url`.

        Raises:
            RuntimeError: If the provider does not run.
        """
        return self.root_url

    @property
    def root_url(self) -> str:
        """The address without any path, for all other clients: for example "http://127.0.0.1:50123".

        Raises:
            RuntimeError: If the provider does not run.
        """
        if self._server is None:
            raise RuntimeError("the provider does not run: use `with LocalProvider(...) as provider:`")
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def calls(self) -> list[ServedCall]:
        """Calls that are over, in order of arrival. One that the client has read to its end is among them."""
        return self._log.served_calls()

    @property
    def open_calls(self) -> list[ProviderRequest]:
        """Calls under way, in order of arrival."""
        return [call.request for call in self._log.open_calls()]

    @property
    def peak_concurrency(self) -> int:
        """The most calls that were under way at once."""
        return self._log.peak

    @property
    def bill_nano(self) -> int:
        """What all `calls` cost together, in nano-dollars.

        Raises:
            ValueError: If the cost of one is not known: an unknown price is never $0.
        """
        total = 0
        for call in self.calls:
            if call.cost_nano is None:
                raise ValueError(
                    f"call {call.index} has no known cost: give rates for all that it uses, "
                    f'prices={{"{call.served_model}": Rates(...)}}'
                )
            total += call.cost_nano
        return total

    @property
    def bill_usd(self) -> Decimal:
        """`bill_nano` in dollars, exact."""
        return to_usd(self.bill_nano)

    def pause(self) -> None:
        """Make every request wait before it is answered, until `resume`."""
        self._set_paused(True)

    def resume(self) -> None:
        """Answer the requests that wait, and those to come."""
        self._set_paused(False)

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Paused within the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def release_chunk(self, count: int = 1) -> None:
        """Let *count* chunks more of each call under way pass its gate (see `Reply.gate_chunks`).

        Raises:
            RuntimeError: If no call is under way.
        """
        self._service.release_chunks(count)

    def wait_for_calls(self, count: int, timeout: float = 10) -> None:
        """Block until *count* requests have arrived, answered or not, since the start or the last `reset`.

        Raises:
            TimeoutError: If they have not after *timeout* seconds.
        """
        if not self._signal.wait(self._arrived(count), timeout):
            raise TimeoutError(self._too_few(count, timeout))

    async def await_calls(self, count: int, timeout: float = 10) -> None:
        """`wait_for_calls` for async code."""
        if not await self._signal.wait_async(self._arrived(count), timeout):
            raise TimeoutError(self._too_few(count, timeout))

    def wait_until_idle(self, timeout: float = 10) -> None:
        """Block until no call is under way, so that one that a client gave up is in the ledger, too.

        Raises:
            TimeoutError: If one still is after *timeout* seconds.
        """
        if not self._signal.wait(self._is_idle, timeout):
            raise TimeoutError(self._still_busy(timeout))

    async def await_idle(self, timeout: float = 10) -> None:
        """`wait_until_idle` for async code."""
        if not await self._signal.wait_async(self._is_idle, timeout):
            raise TimeoutError(self._still_busy(timeout))

    def reset(self, script: Script | None = None) -> None:
        """Empty the ledger, begin the script anew and resume. Calls under way are forgotten.

        Args:
            script: What it answers from now on; None for the script that it has.
        """
        self._service.reset(script)

    def _set_paused(self, paused: bool) -> None:
        with self._signal.changing():
            self._service.paused = paused

    def _arrived(self, count: int) -> Callable[[], bool]:
        return lambda: self._log.arrived >= count

    def _is_idle(self) -> bool:
        return not self._log.open_calls()

    def _too_few(self, count: int, timeout: float) -> str:
        return f"{self._log.arrived} of {count} calls arrived within {timeout:g} s"

    def _still_busy(self, timeout: float) -> str:
        return f"{len(self.open_calls)} calls were still under way after {timeout:g} s"
