"""budget_guard for LangChain and LangGraph. Import from `budget_guard.integrations.langchain`."""
