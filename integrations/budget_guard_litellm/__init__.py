"""LiteLLM under a budget: a callback of its proxy, and calls of its SDK."""

from budget_guard.adapter import require

require("litellm", "1.100", below="1.111")
