"""What people do, beside their skeletons: the answers of an instant by identity, for the nodes that hand them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps, Context
from posepipe.pipeline.packet import F32, I64, Actions

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Act:
    """What one person does: label is a position in `Acts.names`; p, one for each of these."""

    label: int
    p: F32


def check_actions(inputs: Mapping[str, Caps], port: str = "actions") -> None:
    """GraphError: actions come without the labels that would say what they are."""
    if port in inputs and not inputs[port].actions:
        raise GraphError(
            f"what comes at {port!r} has no labels", hint="take it from classify.action, or let caps of your node state actions=(...)"
        )


class Acts:
    """Finds everybody's action. labels: those that were known before the start; empty where nobody gives any. names: what consumers are told, which are the
    labels and after them `unknown` (of probability 0), for whom none is probable enough: so a label is always a name.

    Identities without a skeleton are left out, and people without an answer have none. Answers that do not fit the labels (the network was exchanged, and its worker
    has been restarted since) are left out, too, with one warning: a wrong name is worse than none, and skeletons go on.
    """

    def __init__(self, ctx: Context, port: str = "actions") -> None:
        self.labels = ctx.caps[port].actions if port in ctx.caps else ()
        self.names = (*self.labels, UNKNOWN) if self.labels and UNKNOWN not in self.labels else self.labels
        self._ctx = ctx
        self._warned = False

    def of(self, ids: I64, actions: Actions | None) -> list[Act | None]:
        """[P]: the action of each of these people, None where there is none."""
        if actions is None or not self._fit(actions):
            return [None] * len(ids)
        row = {person: k for k, person in enumerate(actions.ids.tolist())}
        unknown = self.names.index(UNKNOWN) if self.names else -1
        label = [k if k >= 0 else unknown for k in actions.label.tolist()]
        known = np.asarray(np.isfinite(actions.p).all(axis=1))
        p = np.pad(actions.p, ((0, 0), (0, len(self.names) - len(self.labels)))) if len(actions.p) else actions.p
        rows = [row.get(person) for person in ids.tolist()]
        return [Act(label[k], p[k]) if k is not None and known[k] else None for k in rows]

    def _fit(self, actions: Actions) -> bool:
        people, count = len(actions.ids), len(self.labels)
        if not people or (actions.p.shape == (people, count) and ((actions.label >= -1) & (actions.label < count)).all()):
            return True
        if not self._warned:
            self._warned = True
            given = actions.p.shape[-1] if actions.p.ndim else 0
            self._ctx.warn(
                f"{self._ctx.name}: actions of {given} labels came, and this run began with {count} ({', '.join(self.labels)}): "
                "they are left out, skeletons go on\n  -> start the studio again, so that everybody is told the new labels"
            )
        return False
