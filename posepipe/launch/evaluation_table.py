"""The figures of `posepipe eval` for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

_NONE = "-"


def of(found: Mapping[str, Any]) -> Iterator[Table | str]:
    """Lines and tables, in the order in which they are printed."""
    yield from (_against_truth(found) if "truth" in found else _alone(found))


def _against_truth(found: Mapping[str, Any]) -> Iterator[Table | str]:
    instants, people = found["instants"], found["people"]
    yield f"{escape(found['run'])} against {escape(found['truth'])}: {instants['compared']} of {instants['recorded']} instants, {found['joints']} joints"
    yield (
        f"people: {people['matched']} of {people['true']} found, {people['missed']} missed, {people['ghosts']} ghosts, "
        f"{people['identity_changes']} changes of identity; {_percent(found['joints_seen'])} of their joints seen"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("joint", style="cyan", no_wrap=True)
    for title in ("MPJPE mm", "p95 mm", "root-relative mm", "aligned mm", "seen"):
        table.add_column(title, justify="right")
    for name, row in found["per_joint"].items():
        figures = (row["mpjpe_mm"], row["p95_mm"], row["root_relative_mm"], row["pa_mm"])
        table.add_row(name, *map(_number, figures), _percent(row["seen"]))
    total = (found["mpjpe_mm"], found["p95_mm"], found["root_relative_mpjpe_mm"], found["pa_mpjpe_mm"])
    table.add_row("[bold]all[/]", *(f"[bold]{_number(v)}[/]" for v in total), f"[bold]{_percent(found['joints_seen'])}[/]")
    yield table
    yield _groups("cameras that truly see the joint", "cameras", found["by_visible"])
    if "by_views_used" in found:
        yield _groups("views behind the joint", "views", found["by_views_used"])
    if len(found["by_cameras"]) > 1:
        yield _groups("cameras in the instant", "cameras", found["by_cameras"])
    if len(found["by_tier"]) > 1:
        yield _groups("how the 3D was made", "tier", found["by_tier"])
    pcp, pck = found["pcp"], found["pck"]
    yield f"PCP: {_percent(pcp['mean'])} ({', '.join(f'{part} {_percent(v)}' for part, v in pcp.items() if part != 'mean')})"
    yield f"PCK: {_percent(pck['at_150'])} within 150 mm, area under the curve to {pck['mm'][-1]} mm {_percent(pck['auc'])}"
    yield f"acceleration error: {_number(found['acceleration_error_mm_per_frame2'])} mm/frame^2"
    if found["reproj_px"] is not None:
        each = ", ".join(f"{name} {_number(px)}" for name, px in found["reproj_px"]["cameras"].items())
        yield (
            f"reprojection against the true key points: median {_number(found['reproj_px']['median'])} px, "
            f"p95 {_number(found['reproj_px']['p95'])} px ({escape(each)}); published {_number(found['reproj_px_published'])} px"
        )


def _groups(title: str, key: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(title, justify="right", no_wrap=True)
    for column in ("joints", "missing", "MPJPE mm", "p95 mm"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row[key]), str(row["joints"]), _percent(row["missing"]), _number(row["mpjpe_mm"]), _number(row["p95_mm"]))
    return table


def _alone(found: Mapping[str, Any]) -> Iterator[Table | str]:
    instants, people = found["instants"], found["people"]
    yield f"{escape(found['run'])}: {instants['recorded']} instants in {_number(instants['seconds'])} s, {found['joints']} joints; no truth"
    yield (
        f"people: {people['identities']} identities, {_number(people['per_instant'])} an instant; "
        f"{_percent(found['joints_seen'])} of their joints seen"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("person", style="cyan", no_wrap=True)
    for column in ("instants", "seen", "limb lengths vary by", "left and right differ by", "acceleration mm/frame^2", "reprojection px"):
        table.add_column(column, justify="right")
    for name, row in found["per_person"].items():
        vary = [v for pair in row["limb_variation_percent"].values() for v in pair if v is not None]
        differ = [abs(a - b) / ((a + b) / 2) * 100 for a, b in row["limb_mm"].values() if a and b]
        table.add_row(
            str(name),
            str(row["instants"]),
            _percent(row["joints_seen"]),
            *(f"{sum(some) / len(some):.1f} %" if some else _NONE for some in (vary, differ)),
            _number(row["acceleration_mm_per_frame2"]),
            _number(row["reproj_px_published"]),
        )
    yield table
    yield (
        f"acceleration {_number(found['acceleration_mm_per_frame2'])} mm/frame^2, published reprojection {_number(found['reproj_px_published'])} px "
        f"(p95 {_number(found['reproj_px_published_p95'])}); a joint lies in {_number(found['in_pictures'])} pictures"
    )


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share * 100:.1f} %"
