"""Store and forward: what was spent while a ledger could not be reached is kept, and booked when it can."""

from budget_guard.ledger.outbox.ledger import OutboxLedger, areplay, replay
from budget_guard.ledger.outbox.store import Outbox

__all__ = ["Outbox", "OutboxLedger", "areplay", "replay"]
