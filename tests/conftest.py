"""Makes the kits beside this file importable for every room's tests; no test fails because the machine is slow.

Under CI the property tests take the same examples every time, so that a landing does not depend on luck; elsewhere they go on searching.
"""

import os

from hypothesis import settings

settings.register_profile("posepipe", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "posepipe")
