"""A sink for Prometheus: what calls cost and used as counters, what is held as a gauge. No label is without bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budget_guard.events.model import CallBlocked, Event, SoftLimitReached, Subscriber, UsageEvent
from budget_guard.events.origin import Origin
from budget_guard.events.sinks.metering import HeldNow, Names
from budget_guard.units.money import NANO_PER_USD

try:
    from prometheus_client import REGISTRY, Counter, Gauge
except ImportError as error:
    raise ImportError(
        'PrometheusSink needs the package prometheus-client: pip install "budget-guard-py[prometheus]"'
    ) from error

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusSink:
    """Counts for Prometheus: `prometheus_client` shows the numbers as it shows all others of the process.

    ``budget_guard_cost_usd_total``, ``budget_guard_tokens_total`` and ``budget_guard_calls_total`` by kind, name (the
    model or the tool) and more; ``budget_guard_refused_calls_total``; ``budget_guard_soft_limits_total`` by dimension;
    ``budget_guard_held_usd`` for the calls in flight. Runs and users are no labels: there is no end of them.

    Args:
        registry: Where the numbers are kept; that of the process by default. One sink per registry.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        where = REGISTRY if registry is None else registry
        self._names = Names()
        self._held = HeldNow()
        self._cost = Counter("budget_guard_cost_usd", "Dollars booked.", ("kind", "name", "source"), registry=where)
        self._tokens = Counter("budget_guard_tokens", "Tokens booked.", ("name", "type"), registry=where)
        self._calls = Counter("budget_guard_calls", "Calls booked.", ("kind", "name"), registry=where)
        self._refused = Counter("budget_guard_refused_calls", "Calls refused.", ("name",), registry=where)
        self._soft = Counter(
            "budget_guard_soft_limits", "Limits that are nearly used up.", ("scope", "dimension"), registry=where
        )
        gauge = Gauge("budget_guard_held_usd", "Dollars held for calls in flight.", registry=where)
        gauge.set_function(lambda: self._held.total / NANO_PER_USD)

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""
        return self._take

    def _take(self, event: Event) -> None:
        self._held.note(event)
        if isinstance(event, UsageEvent):
            name = self._names.bounded(event.name)
            if event.added > 0:  # a counter never goes down: an estimate that was too high stays in it
                self._cost.labels(event.kind, name, event.source).inc(event.added / NANO_PER_USD)
            if not event.is_correction:
                self._calls.labels(event.kind, name).inc()
            for kind, count in event.tokens_added().items():
                if count > 0:
                    self._tokens.labels(name, kind).inc(count)
        elif isinstance(event, CallBlocked):
            self._refused.labels(self._names.bounded(event.name)).inc()
        elif isinstance(event, SoftLimitReached):
            self._soft.labels(event.scope.partition(":")[0], event.dimension).inc()
