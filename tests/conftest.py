from __future__ import annotations

import pytest

from tests.builders import Way


@pytest.fixture(params=["blocking", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the two drivers: what a test proves of one it proves of the other."""
    return Way(awaits=request.param == "async")
