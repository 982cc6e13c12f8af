from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.builders import Way

settings.register_profile("same", derandomize=True, deadline=None)  # the machine may be busy
settings.register_profile("new", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
"""The same examples each time, so that a change is judged by what it changed; ``make fuzz`` draws new ones."""


@pytest.fixture(params=["blocking", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the two drivers: what a test proves of one it proves of the other."""
    return Way(awaits=request.param == "async")
