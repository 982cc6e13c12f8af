"""budget_guard with the extra that counts tokens as OpenAI's models do; the rest as in `budget_guard_py`."""

from scenarios import module

_plain = module("budget_guard_py")
STOPS, opened = _plain.STOPS, _plain.opened
