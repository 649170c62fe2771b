"""Recordings of a person who walks in a circle and waves, written as BVH and as ASF with AMC by code that shares nothing with the readers."""

import math

import numpy as np


def rot(axis, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


# name, parent, offset in metres (x left, y up, z ahead)
BONES = [
    ("Hips", None, (0, 0, 0)),
    ("LeftUpLeg", "Hips", (0.1, -0.02, 0)),
    ("LeftLeg", "LeftUpLeg", (0.02, -0.42, 0.01)),
    ("LeftFoot", "LeftLeg", (0.01, -0.41, -0.02)),
    ("LeftToeBase", "LeftFoot", (0, -0.05, 0.15)),
    ("RightUpLeg", "Hips", (-0.1, -0.02, 0)),
    ("RightLeg", "RightUpLeg", (-0.02, -0.42, 0.01)),
    ("RightFoot", "RightLeg", (-0.01, -0.41, -0.02)),
    ("RightToeBase", "RightFoot", (0, -0.05, 0.15)),
    ("Spine", "Hips", (0, 0.1, -0.01)),
    ("Spine1", "Spine", (0, 0.15, 0)),
    ("Neck", "Spine1", (0, 0.24, 0.01)),
    ("Head", "Neck", (0, 0.1, 0.02)),
    ("LeftShoulder", "Spine1", (0.02, 0.2, 0)),
    ("LeftArm", "LeftShoulder", (0.14, 0.0, 0)),
    ("LeftForeArm", "LeftArm", (0.28, 0, 0)),
    ("LeftHand", "LeftForeArm", (0.25, 0, 0)),
    ("RightShoulder", "Spine1", (-0.02, 0.2, 0)),
    ("RightArm", "RightShoulder", (-0.14, 0.0, 0)),
    ("RightForeArm", "RightArm", (-0.28, 0, 0)),
    ("RightHand", "RightForeArm", (-0.25, 0, 0)),
]


def angles(t):
    """Euler angles (z, x, y) in degrees of the joints that move, t in seconds."""
    s = math.sin(2 * math.pi * t)
    return {
        "Hips": (0, 0, 40 * t),
        "LeftUpLeg": (0, -25 * s, 0),
        "LeftLeg": (0, 20 + 15 * s, 0),
        "RightUpLeg": (0, 25 * s, 0),
        "RightLeg": (0, 20 - 15 * s, 0),
        "LeftArm": (-75, 0, 10 * s),
        "LeftForeArm": (0, 0, -30 + 10 * s),
        "RightArm": (70, 20 * s, 0),
        "RightForeArm": (0, 0, 40),
        "Head": (0, 5 * s, 20 * s),
    }


def root(t):
    return np.array([math.sin(0.7 * t), 0.9, math.cos(0.7 * t)])


def truth(t):
    """Joints by name, metres, y up."""
    turn, at = {}, {}
    for name, parent, offset in BONES:
        z, x, y = angles(t).get(name, (0, 0, 0))
        local = rot("z", z) @ rot("x", x) @ rot("y", y)
        turn[name] = local if parent is None else turn[parent] @ local
        at[name] = root(t) if parent is None else at[parent] + turn[parent] @ np.array(offset)
    return at


def bvh(*, frames=90, hz=60, unit_m=0.01, prefix="", swap=None):
    """Text of a BVH file. swap: a rotation [3,3] of the whole world, e.g. to z up."""
    world = np.eye(3) if swap is None else swap
    back = {name: world @ np.array(offset) / unit_m for name, _, offset in BONES}

    def joint(name, indent):
        children = [n for n, parent, _ in BONES if parent == name]
        kind = "ROOT" if name == "Hips" else "JOINT"
        channels = "6 Xposition Yposition Zposition" if name == "Hips" else "3"
        lines = [f"{kind} {prefix}{name}", "{", "OFFSET " + " ".join(f"{v:.6f}" for v in back[name])]
        lines.append(f"CHANNELS {channels} Zrotation Xrotation Yrotation")
        for child in children:
            lines += joint(child, indent + 1)
        if not children:
            lines += ["End Site", "{", "OFFSET 0 0 0", "}"]
        return [*lines, "}"]

    rows = []
    for f in range(frames):
        values = list(world @ root(f / hz) / unit_m)
        for name, _, _ in walk():
            if swap is None:
                values += angles(f / hz).get(name, (0, 0, 0))
            else:
                z, x, y = angles(f / hz).get(name, (0, 0, 0))
                values += zxy(world @ rot("z", z) @ rot("x", x) @ rot("y", y) @ world.T)
        rows.append(" ".join(f"{v:.6f}" for v in values))
    return "\n".join(["HIERARCHY", *joint("Hips", 0), "MOTION", f"Frames: {frames}", f"Frame Time: {1 / hz:.8f}", *rows]) + "\n"


def walk(name="Hips"):
    """Bones depth first, as they stand in the file."""
    for one in BONES:
        if one[0] == name:
            yield one
    for child in [n for n, parent, _ in BONES if parent == name]:
        yield from walk(child)


def zxy(r):
    """Angles z, x, y in degrees with rot z @ rot x @ rot y = r."""
    x = math.degrees(math.asin(max(-1.0, min(1.0, r[2, 1]))))
    return [math.degrees(math.atan2(-r[0, 1], r[1, 1])), x, math.degrees(math.atan2(-r[2, 0], r[2, 2]))]


ASF_NAMES = {
    "LeftUpLeg": "lfemur", "LeftLeg": "ltibia", "LeftFoot": "lfoot", "LeftToeBase": "ltoes",
    "RightUpLeg": "rfemur", "RightLeg": "rtibia", "RightFoot": "rfoot", "RightToeBase": "rtoes",
    "Spine": "lowerback", "Spine1": "thorax", "Neck": "lowerneck", "Head": "head",
    "LeftShoulder": "lclavicle", "LeftArm": "lhumerus", "LeftForeArm": "lradius", "LeftHand": "lhand",
    "RightShoulder": "rclavicle", "RightArm": "rhumerus", "RightForeArm": "rradius", "RightHand": "rhand",
}  # fmt: skip
AXES = {"LeftUpLeg": (0, 0, 20), "RightUpLeg": (0, 0, -20), "LeftArm": (180, 30, 90)}
"""Own axes of some bones: the motion is the same, its numbers are others."""


def asf(length=0.45):
    """Text of an ASF skeleton. A bone of ours from joint to joint is carried by one of theirs that hangs at its parent's end."""
    unit = 0.0254 / length
    out = [
        "# made by a test",
        ":version 1.10",
        ":name T",
        ":units",
        "mass 1.0",
        f"length {length}",
        "angle deg",
        ":documentation",
        "none",
        ":root",
    ]
    out += ["order TX TY TZ RX RY RZ", "axis XYZ", "position 0 0 0", "orientation 0 0 0", ":bonedata"]
    hierarchy = []
    for name, parent, offset in BONES[1:]:
        size = float(np.linalg.norm(offset))
        carrier = f"to_{ASF_NAMES[name]}"
        out += bone(carrier, np.array(offset) / size, size / unit, (0, 0, 0), False)
        children = [o for _, p, o in BONES if p == name]
        along = np.array(children[0] if children else (0, 0.1, 0))
        out += bone(ASF_NAMES[name], along / np.linalg.norm(along), 0.0, AXES.get(name, (0, 0, 0)), True)
        hierarchy += [f"{ASF_NAMES.get(parent, 'root')} {carrier}", f"{carrier} {ASF_NAMES[name]}"]
    return "\n".join([*out, ":hierarchy", "begin", *hierarchy, "end"]) + "\n"


def bone(name, direction, length, axis, moves):
    out = ["begin", "id 1", f"name {name}", "direction " + " ".join(f"{v:.9f}" for v in direction), f"length {length:.9f}"]
    out.append("axis " + " ".join(str(v) for v in axis) + " XYZ")
    return [*out, *(["dof rx ry rz", "limits (-180 180)", "(-180 180)", "(-180 180)"] if moves else []), "end"]


def amc(*, frames=180, hz=120, length=0.45):
    unit = 0.0254 / length
    out = ["#!OML:ASF test", ":FULLY-SPECIFIED", ":DEGREES"]
    for f in range(frames):
        out.append(str(f + 1))
        for name, _, _ in BONES:
            z, x, y = angles(f / hz).get(name, (0, 0, 0))
            local = rot("z", z) @ rot("x", x) @ rot("y", y)
            ax, ay, az = AXES.get(name, (0, 0, 0))
            own = rot("z", az) @ rot("y", ay) @ rot("x", ax)
            values = list(xyz(own.T @ local @ own))
            head = list(root(f / hz) / unit) if name == "Hips" else []
            out.append(ASF_NAMES.get(name, "root") + " " + " ".join(f"{v:.9f}" for v in [*head, *values]))
    return "\n".join(out) + "\n"


def xyz(r):
    """Angles x, y, z in degrees with rot z @ rot y @ rot x = r."""
    return (
        math.degrees(math.atan2(r[2, 1], r[2, 2])),
        math.degrees(-math.asin(max(-1.0, min(1.0, r[2, 0])))),
        math.degrees(math.atan2(r[1, 0], r[0, 0])),
    )
