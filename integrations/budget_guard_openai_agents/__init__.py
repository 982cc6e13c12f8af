"""budget_guard for the OpenAI Agents SDK. Import from `budget_guard.integrations.openai_agents`."""
