"""Store and forward: spend that a ledger could not be told of is kept, and booked when it can be reached again."""

from budget_guard.ledger.outbox.ledger import OutboxLedger, areplay, replay
from budget_guard.ledger.outbox.store import Outbox

__all__ = ["Outbox", "OutboxLedger", "areplay", "replay"]
