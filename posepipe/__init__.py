"""posepipe: live, metric, multi-person 3D human pose from several synced cameras."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("posepipe")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
