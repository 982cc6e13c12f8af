"""A sink for OpenTelemetry: counters, a gauge of what is held, and the cost on the span of the call. API only.

The names of the cost attributes are those proposed for the semantic conventions of generative AI (semantic-conventions-
genai, pull request 443); they are not settled, and stand in one place below.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from budget_guard.events.model import CallBlocked, Event, ModelDowngraded, SoftLimitReached, Subscriber, UsageEvent
from budget_guard.events.origin import Origin
from budget_guard.events.sinks.metering import HeldNow, Names
from budget_guard.units.money import NANO_PER_USD

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError('OTelSink needs opentelemetry-api: pip install "budget-guard-py[otel]"') from error

COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"


class OTelSink:
    """Tells OpenTelemetry what calls cost.

    On the span that is current when a call is booked, if it is recording: what was booked within it, and each event as
    an event of the span. As metrics: ``budget_guard.cost`` (USD), ``budget_guard.tokens``, ``budget_guard.refused``,
    and ``budget_guard.reserved`` (USD), which goes up and down. No attribute of a metric is without bound: runs and
    users are on spans alone. Makes no spans of its own.

    Args:
        meter_provider: Where the metrics go; the global one by default.
        cost_attributes: Further attributes of spans to put the dollars under, as a platform reads them:
            ``("gen_ai.usage.cost",)`` for Langfuse.
    """

    def __init__(
        self, meter_provider: metrics.MeterProvider | None = None, *, cost_attributes: Sequence[str] = ()
    ) -> None:
        if isinstance(cost_attributes, str):
            raise TypeError(f"cost_attributes={cost_attributes!r} is a text: write ({cost_attributes!r},)")
        self._cost_attributes = (COST_AMOUNT, *cost_attributes)
        meter = metrics.get_meter("budget_guard", meter_provider=meter_provider)
        self._cost = meter.create_counter("budget_guard.cost", "USD", "Dollars booked.")
        self._tokens = meter.create_counter("budget_guard.tokens", "{token}", "Tokens booked.")
        self._refused = meter.create_counter("budget_guard.refused", "{call}", "Calls refused.")
        self._reserved = meter.create_up_down_counter("budget_guard.reserved", "USD", "Dollars held.")
        self._names = Names()
        self._held = HeldNow()
        self._lock = threading.Lock()
        self._on_span: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """Nano-dollars that are on a span already: several calls may be booked within one."""

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""

        def take(event: Event) -> None:
            self._meter(event)
            span = trace.get_current_span()
            if span.is_recording():
                self._note(span, event, origin)

        return take

    def _meter(self, event: Event) -> None:
        changed = self._held.note(event)
        if changed:
            self._reserved.add(changed / NANO_PER_USD)
        if isinstance(event, UsageEvent):
            name = self._names.bounded(event.name)
            if event.added > 0:  # a counter never goes down: an estimate that was too high stays in it
                labels = {"kind": event.kind, "name": name, "source": event.source}
                self._cost.add(event.added / NANO_PER_USD, labels)
            for kind, count in event.tokens_added().items():
                if count > 0:
                    self._tokens.add(count, {"name": name, "type": kind})
        elif isinstance(event, CallBlocked):
            self._refused.add(1, {"name": self._names.bounded(event.name)})

    def _note(self, span: trace.Span, event: Event, origin: Origin) -> None:
        if isinstance(event, UsageEvent):
            with self._lock:
                cost = self._on_span[span] = self._on_span.get(span, 0) + event.added
            for name in self._cost_attributes:
                span.set_attribute(name, cost / NANO_PER_USD)
            span.set_attribute(COST_CURRENCY, "USD")
            span.set_attribute(COST_SOURCE, "provider" if event.source == "provider" else "local")
            span.set_attribute("budget_guard.run_id", origin.run_id)
            span.add_event(
                "budget_guard.call.committed",
                {
                    "budget_guard.decision_id": event.decision_id,
                    "budget_guard.name": event.name,
                    "budget_guard.cost_usd": str(event.cost_usd),
                    "budget_guard.uncertain": event.uncertain,
                },
            )
        elif isinstance(event, CallBlocked):
            span.add_event(
                "budget_guard.call.blocked",
                {"budget_guard.decision_id": event.decision_id, "budget_guard.name": event.name},
            )
        elif isinstance(event, ModelDowngraded):
            span.add_event(
                "budget_guard.model.downgraded",
                {"budget_guard.model": event.model, "budget_guard.target": event.target},
            )
        elif isinstance(event, SoftLimitReached):
            span.add_event(
                "budget_guard.soft_limit.reached",
                {"budget_guard.dimension": event.dimension, "budget_guard.fraction": event.fraction},
            )
