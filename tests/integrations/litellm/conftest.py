"""One proxy for many tests: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integrations.litellm.support import Guarded

collect_ignore_glob = [] if find_spec("litellm") and find_spec("uvicorn") else ["test_[!s]*.py", "test_sdk.py"]


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The proxy that most tests ask: one worker, a ledger in a file, three users."""
    from tests.integrations.litellm.support import guarded

    with guarded(tmp_path_factory.mktemp("proxy")) as running:
        yield running
