"""A provider for each test, and a check that it leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from budget_guard.adapter.attempts import counting_nothing
from budget_guard.testing import LocalProvider

if TYPE_CHECKING:
    from tests.integrations.langchain.agents import Lab


_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass what LangChain itself warns of."""
    of_its_own = (
        # It asks no other handler once one has refused a call, and leaves their coroutines to the collector.
        pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited"),
        # Where that happens while a named tuple is made, which is code without builtins, Python fails to warn of it.
        pytest.mark.filterwarnings(
            "ignore:Exception ignored in. <coroutine object ahandle_event:pytest.PytestUnraisableExceptionWarning"
        ),
        pytest.mark.filterwarnings("ignore:.* is (in beta|experimental)"),
    )
    for item in items:
        if _HERE in item.path.parents:
            for mark in of_its_own:
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Find no handler installed any more."""
    pytest.importorskip("langchain_core")
    from budget_guard.adapter import counting_nothing
    from budget_guard_langchain.scope import extra_sessions, installed

    with counting_nothing():  # no call that a test leaves open is around those of the next
        yield
    assert installed.get() is None
    assert extra_sessions.get() == ()


@pytest.fixture(scope="session")
def _loaded() -> None:
    """Everything is imported, and the collector need not look at it again and again."""
    import tests.integrations.langchain.agents

    assert tests.integrations.langchain.agents
    gc.collect()
    gc.freeze()


@pytest.fixture
def lab(_loaded: None) -> Iterator[Lab]:
    """A provider, and short ways to make models that ask it."""
    from tests.integrations.langchain.agents import Lab

    with LocalProvider() as provider:
        lab = Lab(provider)
        yield lab
        lab.close()
    gc.collect()  # what a test leaves behind is found here, and not in another test


@pytest.fixture(autouse=True)
def nothing_is_counted_afterwards() -> Iterator[None]:
    """A call that a test starts by hand and never ends is under way for none of the tests that follow."""
    with counting_nothing():
        yield
