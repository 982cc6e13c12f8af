"""The contract of every ledger, as tests to inherit.

The author of a ledger subclasses `LedgerContract` in a pytest file, and every rule runs against it::

    class TestMyLedger(LedgerContract):
        def make_ledger(self, clock: Clock) -> Ledger:
            return MyLedger("my://database", clock=clock)

        def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
            clock.advance(MyLedger.REMEMBERED_S)
            ledger.sweep()

Needs ``pip install pytest``. Put ``pytest.register_assert_rewrite("budget_guard.testing.ledger_contract")`` into a
``conftest.py`` to see the values of a failed comparison.
"""

from budget_guard.testing.ledger_contract.agreeing import AgreeingRules
from budget_guard.testing.ledger_contract.amounts import AmountRules
from budget_guard.testing.ledger_contract.ceilings import CeilingRules
from budget_guard.testing.ledger_contract.expiry import ExpiryRules
from budget_guard.testing.ledger_contract.fixtures import BOTH, OTHER, RUN, USER, Ids, cost, figures, race, spend
from budget_guard.testing.ledger_contract.forgetting import ForgettingRules
from budget_guard.testing.ledger_contract.history import HistoryRules
from budget_guard.testing.ledger_contract.holding import HoldingRules
from budget_guard.testing.ledger_contract.identity import IdentityRules
from budget_guard.testing.ledger_contract.races import RaceRules
from budget_guard.testing.ledger_contract.settling import SettlingRules
from budget_guard.testing.ledger_contract.spending import SpendingRules
from budget_guard.testing.ledger_contract.waiting import WaitingRules
from budget_guard.testing.ledger_contract.windows import WindowRules

__all__ = ["BOTH", "OTHER", "RUN", "USER", "Ids", "LedgerContract", "cost", "figures", "race", "spend"]


class LedgerContract(
    HoldingRules,
    AmountRules,
    IdentityRules,
    SettlingRules,
    ExpiryRules,
    ForgettingRules,
    SpendingRules,
    CeilingRules,
    WindowRules,
    HistoryRules,
    WaitingRules,
    AgreeingRules,
    RaceRules,
):
    """The rules of `budget_guard.ledger.base`, one test each."""
