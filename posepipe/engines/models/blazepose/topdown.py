"""Top-down inference as it is for every network (`posepipe.engines.network`), under the name that it had when BlazePose was the only one."""

from __future__ import annotations

from ...network import PersonDetector, TopDown

__all__ = ["CROP_PX", "PersonDetector", "TopDown"]

CROP_PX = 256
