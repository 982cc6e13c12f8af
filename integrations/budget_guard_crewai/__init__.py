"""budget_guard for CrewAI. Import from `budget_guard.integrations.crewai`."""

from budget_guard.adapter import require

require("crewai", "1.15.25")
