"""budget_guard for pydantic-ai. Import from `budget_guard.integrations.pydantic_ai`."""

from budget_guard.adapter import require

require("pydantic-ai-slim", "2.66")
