"""The rig: calibration files, projection and triangulation."""

from .formats import load_rig, save_rig
from .project import Projection, project, undistort
from .rig import Camera, ImageTransform, Rig
from .triangulate import Triangulated, triangulate

__all__ = ["Camera", "ImageTransform", "Projection", "Rig", "Triangulated", "load_rig", "project", "save_rig", "triangulate", "undistort"]
