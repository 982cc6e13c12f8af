"""``session.guard(OpenAI())``: OpenAI, Anthropic and HTTP clients whose every request is held."""

from budget_guard_clients.guard import guard

__all__ = ["guard"]
