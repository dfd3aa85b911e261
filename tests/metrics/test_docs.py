"""docs/metrics.md lists what is exposed, all of it and nothing else; docs/grafana.json asks for nothing else either."""

import json
import re
from typing import Any

import pytest
from prometheus_client import Metric

from server import metrics
from server.metrics import Reading, Relay
from tests.conftest import REPOSITORY
from tests.metrics.conftest import scrape

DOC = (REPOSITORY / "docs" / "metrics.md").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "docs" / "grafana.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# A metric in an expression: all of ours are asked for with labels. In prose they may stand alone.
ASKED = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
NAMED = re.compile(r"\b((?:doorbell|process)_[a-z_]+[a-z])\b")


@pytest.fixture(scope="module")
def exposed() -> dict[str, Metric]:
    """Every family, each with a sample."""
    metrics.known("bikes")
    metrics.answered("signup", 202, 0.01)
    metrics.job_ended("purge", well=True)
    metrics.transactions("write").observe(0.001)
    pool = dict.fromkeys(("leased", "idle", "size", "waiting", "connects", "connect_failures"), 1)
    metrics.publish(Relay(pool, fault=("connect", "421")))
    return {name: one for name, one in scrape(Reading({}, None)).items() if not name.endswith("_created")}


def listed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels(family: Metric) -> set[str]:
    return set().union(*(sample.labels for sample in family.samples)) - {"le"}


def samples(exposed: dict[str, Metric]) -> dict[str, set[str]]:
    """The labels of every sample, `le` too, by its name."""
    return {sample.name: set(sample.labels) for family in exposed.values() for sample in family.samples}


def test_the_list_is_complete_and_right(exposed: dict[str, Metric]) -> None:
    rows = re.findall(r"^\| `([a-z_]+)(?:\{([a-z,]+)\})?` \| (counter|gauge|histogram) \|", DOC, re.M)
    listed = {name: (set(filter(None, held.split(","))), kind) for name, held, kind in rows}
    assert len(listed) == len(rows)
    assert listed == {listed_name(family): (labels(family), family.type) for family in exposed.values()}


def test_alarms_ask_for_what_there_is(exposed: dict[str, Metric]) -> None:
    alarms = DOC[DOC.index("## What is worth an alarm") :]
    assert NAMED.search(alarms)
    assert set(NAMED.findall(alarms)) <= samples(exposed).keys()


@pytest.mark.parametrize("expression", [target["expr"] for panel in PANELS for target in panel["targets"]])
def test_the_dashboard_asks_for_what_there_is(exposed: dict[str, Metric], expression: str) -> None:
    known = samples(exposed)
    asked = ASKED.findall(expression)
    assert asked and {name for name, _ in asked} == set(NAMED.findall(expression))
    for name, matchers in asked:
        assert name in known
        assert set(re.findall(r"([a-z_]+)(?:=~|!=|=)", matchers)) <= known[name] | {"job"}
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", group)) <= set().union(*(known[name] for name, _ in asked))
    for bucket in re.findall(r"histogram_quantile\([\d.]+, sum by \((\w+)", expression):
        assert bucket == "le"


def test_legends_name_labels_that_are_left(exposed: dict[str, Metric]) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            left = set(re.split(r",\s*", ",".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert wanted <= left, target


def test_the_dashboard_reads_the_source_that_is_chosen() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["source"]["type"] == "datasource" and variables["source"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${source}"}
    assert all(panel["datasource"] == chosen for panel in PANELS)
    assert all(target["datasource"] == chosen for panel in PANELS for target in panel["targets"])


def test_panels_do_not_cover_each_other() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
