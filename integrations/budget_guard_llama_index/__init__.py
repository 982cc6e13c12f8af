"""budget_guard for LlamaIndex. Import from `budget_guard.integrations.llama_index`."""

from budget_guard.adapter import require

require("llama-index-core", "0.14.22")
