"""Makes the kits beside this file importable for every room's tests; no test fails because the machine is slow.

Under CI the property tests take the same examples every time, so that a landing does not depend on luck; elsewhere they go on searching.
"""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("posepipe", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "posepipe")


@pytest.fixture(autouse=True)
def the_same_weights_in_any_order() -> None:
    """Networks that a test makes with torch's own random weights are the same ones whichever tests ran before it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
