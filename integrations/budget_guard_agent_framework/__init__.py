"""budget_guard for Microsoft Agent Framework. Import from `budget_guard.integrations.agent_framework`."""

from budget_guard.adapter import require

require("agent-framework-core", "1.23")
