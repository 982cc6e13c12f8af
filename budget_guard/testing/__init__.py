"""Prove that a guard holds, without an API key or a network.

`LocalProvider` is a model provider on this machine, with its own ledger to compare the guard's with; it needs
``pip install "budget-guard-py[testing]"`` once it is started. `FakeClock` is time that moves when it is told to.
"""

from __future__ import annotations

from budget_guard.testing.clock import FakeClock
from budget_guard.testing.provider import LocalProvider
from budget_guard.testing.rates import DEFAULT_RATES, Rates
from budget_guard.testing.reply import HostedCall, Reply, ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.script import Attempts, Script
from budget_guard.testing.served import ServedCall

__all__ = [
    "DEFAULT_RATES",
    "Attempts",
    "FakeClock",
    "HostedCall",
    "LocalProvider",
    "ProviderRequest",
    "Rates",
    "Reply",
    "Script",
    "ServedCall",
    "ToolCall",
]
