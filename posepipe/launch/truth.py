"""`truth:` of a studio file: what an offline run publishes, against the synthetic recording that it sees."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posepipe.calib.evaluate import Run, check_cameras, match
from posepipe.calib.evaluate_figures import figures
from posepipe.calib.synthetic_truth import Truth, read_truth
from posepipe.pipeline.errors import GraphError, PosepipeError, RunError
from posepipe.pipeline.packet import Packet, Poses
from posepipe.pipeline.runner import Runner
from posepipe.pipeline.skeleton import SKELETONS

from . import logs
from .studio import Studio


@dataclass(slots=True)
class Witness:
    """Listens to what a studio publishes and says, at the end, how far it was from the truth."""

    truth: Truth
    place: str
    heard: dict[int, Packet[Poses]] = field(default_factory=dict)
    _runner: Runner | None = None

    def attend(self, runner: Runner) -> None:
        """Hear every instant that this run publishes; of several publishers the first."""
        self._runner = runner
        runner.shared.on_poses = lambda packet: self.heard.setdefault(packet.seq, packet)

    def figures(self) -> dict[str, Any]:
        """The `truth` of a summary: millimetres over the joints of the body. RunError when nothing that was published can be compared."""
        try:
            run = self._run()
            found = figures(match(run, self.truth), run, self.truth)
        except PosepipeError as e:
            raise RunError(e.what, where=self.place, hint=e.hint) from None
        for warning in found["warnings"]:
            logs.say(f"truth: {warning}", level=logging.WARNING, prefix="posepipe: warning: ")
        kept = (
            "mpjpe_mm",
            "p95_mm",
            "pa_mpjpe_mm",
            "root_relative_mpjpe_mm",
            "joints_seen",
            "people",
            "instants",
            "by_tier",
            "by_views_used",
        )
        per_joint = {name: row["mpjpe_mm"] for name, row in found["per_joint"].items()}
        return {**{key: found[key] for key in kept}, "per_joint_mm": per_joint}

    def _run(self) -> Run:
        packets = [self.heard[seq] for seq in sorted(self.heard)]
        if not packets:
            raise RunError(
                "nothing was published, so there is nothing to compare with the truth", hint="see what the ledger says was dropped"
            )
        bodies = [p.body for p in packets]
        return Run(
            where=self.place,
            skeleton=bodies[0].skeleton,
            cameras=bodies[0].cameras,
            seq=np.array([p.seq for p in packets], np.int64),
            t_ns=np.array([p.t_capture_ns for p in packets], np.int64),
            views=tuple(b.sync.views for b in bodies),
            tier=tuple(b.tier for b in bodies),
            instant=np.repeat(np.arange(len(bodies)), [len(b.ids) for b in bodies]),
            ids=np.concatenate([b.ids for b in bodies]),
            xyz_m=np.concatenate([np.where((b.conf > 0)[..., None], b.xyz_m, np.nan) for b in bodies]).astype(np.float64),
            reproj_px=np.concatenate([b.reproj_px for b in bodies]).astype(np.float64),
            views_used=np.concatenate([b.views_used for b in bodies]).astype(np.int64),
            start_ns=self._runner.start_ns if self._runner is not None else None,
        )


def witness(whole: Studio) -> Witness | None:
    """Who compares this studio with the truth; None when its file names none.

    GraphError or SourceError, with the line, before anything is opened: a folder that is missing or is no synthetic recording, the
    truth of other cameras, nothing that publishes skeletons, a skeleton without the truth's joints.
    """
    plan = whole.plan
    if "truth" not in plan.file.value:
        return None
    named, place = plan.file.value["truth"], plan.file.place(("truth",))
    if not isinstance(named, str) or not named:
        raise GraphError(f"truth is {named!r}, want a folder", where=place, hint="truth: FOLDER, as posepipe synth render wrote it")
    try:
        truth = read_truth(whole.resolve(named))
        check_cameras(plan.cameras, truth, where="")
    except PosepipeError as e:
        e.where = f"{place}: {e.where}" if e.where else place
        raise
    layouts = {caps.skeleton for n in plan.nodes if n.cls.publishes for caps in n.caps_in.values() if caps.skeleton}
    if not layouts:
        raise GraphError(
            "nothing publishes skeletons, so there is nothing to compare with the truth", where=place, hint="add a publish.zmq"
        )
    for name in sorted(layouts):
        if name not in SKELETONS:
            known = ", ".join(SKELETONS)
            raise GraphError(
                f"the truth has no joints of the skeleton {name!r} that is published", where=place, hint=f"it has those of {known}"
            )
    return Witness(truth, place)
