"""docs/operations.md names the metrics that there are, and its YAML is YAML."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from outside_kit import MadeUp

from posepipe.launch.metrics import StudioCollector
from posepipe.pipeline.packet import Sync

TEXT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def whole(folder: Path) -> dict[str, set[str]]:
    """Metric -> labels, of a studio that knows everything."""
    studio = MadeUp(folder)
    sync = Sync(1, (0,), (), (0.1,) * 3, (0.1,) * 3, (1.0,) * 3)
    studio.beat(
        "main", latency_ns={"lift": [1]}, end_to_end_ns=[1], seen=(1, 1.0), published=((1, 1.0, "volumetric"),), sync=sync, subscribers=1
    )
    studio.frames(captured=range(2), published=range(1), lost=range(1, 2))
    return {sample.name: set(sample.labels) - {"studio", "le"} for family in StudioCollector(studio).collect() for sample in family.samples}


def test_the_table_is_what_a_studio_shows(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(posepipe_\w+)` \| *([\w, ]*?) *\| (\S+) ", TEXT, re.MULTILINE)
    told = {}
    for name, labels, first_word in rows:
        for suffix in ("_bucket", "_count", "_sum") if first_word == "histogram:" else ("",):
            told[name + suffix] = set(filter(None, labels.split(", ")))
    assert told == whole(tmp_path)


def test_rules_and_queries_use_metrics_that_there_are(tmp_path: Path) -> None:
    there = whole(tmp_path)
    (rules,) = [block for block in map(yaml.safe_load, blocks("yaml")) if "groups" in block]
    asked = [rule["expr"] for rule in rules["groups"][0]["rules"]] + re.findall(r"^\| [^|`]+ \| `(.*)` \|$", TEXT, re.MULTILINE)
    assert len(asked) == 12
    for query in asked:
        names = re.findall(r"posepipe_\w+", query)
        assert names, query
        assert set(names) <= set(there), query
