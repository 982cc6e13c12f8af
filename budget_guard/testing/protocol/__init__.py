"""The conformance suite of the Agent Budget Protocol: is a service that is reached by a URL an implementation of it?

It asks the service from outside, in any language and of any make, and says of each check what it asked, what should
have come, and what came::

    python -m budget_guard.testing.protocol --url http://127.0.0.1:4000 --provider-port 4999 --key K1 --other-key K2

The service is to be started with

- a budget of $1.00 for each run, and no waiting for room;
- the prices `PRICES`, dollars per million tokens, of the models ``dime`` and ``cheap``;
- OpenAI's address set to the suite's own provider, ``http://127.0.0.1:4999``, unless it passes no calls on;
- two keys of different principals; and for what needs it a third one, under a ceiling of $0.15 (``--tight-key``), and a
  second process on the same ledger (``--second-url``). They must be new: what they have spent before counts.

In a test::

    with new_provider() as provider:
        outcomes = run(Target(url=..., key=..., other_key=...), provider)
    assert all(outcome.passed for outcome in outcomes)

The provider needs ``pip install "budget-guard-py[testing]"``.
"""

from budget_guard.testing.protocol import deciding as _deciding
from budget_guard.testing.protocol import proxied as _proxied
from budget_guard.testing.protocol.asking import Nonconformity
from budget_guard.testing.protocol.suite import (
    PRICES,
    Check,
    Outcome,
    Target,
    checks_for,
    new_provider,
    perform,
    run,
)

__all__ = ["PRICES", "Check", "Nonconformity", "Outcome", "Target", "checks_for", "new_provider", "perform", "run"]

del _deciding, _proxied
