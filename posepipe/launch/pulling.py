"""`posepipe pull`: what is there, what it would fetch, fetch it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from posepipe.engines.assets import MirrorOnly, Packaged, asset, catalogue
from posepipe.engines.pull import fetch, intact, on_terminal


def pull(names: Sequence[str], *, everything: bool = False, listing: bool = False) -> int:
    """Fetch these (or all) models and recordings; with `listing`, only say what is there. What is there already is left alone."""
    if listing:
        _list()
        return 0
    wanted = [asset(name) for name in (catalogue() if everything else dict.fromkeys(names))]
    with on_terminal() as report:
        for one in wanted:
            if one.present() and intact(one):
                print(f"{one.name}: there ({one.folder})")
            elif everything and isinstance(one.source, MirrorOnly) and not os.environ.get("POSEPIPE_MIRROR"):
                print(f"{one.name}: left out, it comes only from a mirror folder (POSEPIPE_MIRROR)")
            else:
                print(f"{one.name}: fetched ({fetch(one.name, progress=report)})")
    return 0


def _list() -> None:
    table = Table("name", "what", "licence", "here", box=None, pad_edge=False, header_style="bold")
    for name, one in catalogue().items():
        comes = ", comes with posepipe" if isinstance(one.source, Packaged) else ""
        here = f"yes, {one.size_bytes / 1e6:.1f} MB{comes}" if one.present() else f"no, would fetch {one.download}"
        table.add_row(name, f"{one.summary} ({one.not_run})" if one.not_run else one.summary, one.licence, here)
    Console().print(table)
    print("\nposepipe pull NAME... fetches, posepipe pull --all fetches everything.")
