"""The gateway: any language is held to a budget by a URL and a key. Import from `budget_guard.integrations.gateway`."""

from budget_guard.adapter import require

require("aiohttp", "3.10")
