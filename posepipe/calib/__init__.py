"""The rig: calibration files, projection and triangulation."""

from .formats import load_rig, save_rig
from .limbs import LimbLengths, limbs_of
from .project import Projection, project, undistort
from .rig import Camera, ImageTransform, Rig
from .sides import Facing, facing_of, mirror_of, triangulate_sides
from .triangulate import Triangulated, triangulate

__all__ = [
    "Camera",
    "Facing",
    "ImageTransform",
    "LimbLengths",
    "Projection",
    "Rig",
    "Triangulated",
    "facing_of",
    "limbs_of",
    "load_rig",
    "mirror_of",
    "project",
    "save_rig",
    "triangulate",
    "triangulate_sides",
    "undistort",
]
