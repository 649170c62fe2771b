"""Makes the kits beside this file importable for every room's tests; no test fails because the machine is slow."""

from hypothesis import settings

settings.register_profile("posepipe", deadline=None)
settings.load_profile("posepipe")
