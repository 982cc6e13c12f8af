"""budget_guard for Google ADK. Import from `budget_guard.integrations.google_adk`."""

from budget_guard.adapter import require

require("google-adk", "2.10")
