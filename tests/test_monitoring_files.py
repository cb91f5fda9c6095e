"""The files of alert rules and dashboards: their metrics exist, and each is described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.metrics.definitions import TABLE
from tests.test_docs import anchors

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
PROVISIONING = MONITORING / "grafana" / "provisioning"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = sorted(rule["alert"] for rule in RULES if "alert" in rule)
each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def metrics_in(expression: str) -> set[str]:
    """Returns Vigía's metric names in an expression, without the suffixes of histograms."""
    names = set(re.findall(r"\b(?:vigia|recommendation)[a-z0-9_:]*", re.sub(r'"[^"]*"', '""', expression)))
    return {re.sub(r"(?<=_seconds)_(bucket|count|sum)$", "", name) for name in names}


def panels(path: Path) -> Iterator[dict[str, Any]]:
    yield from json.loads(path.read_text(encoding="utf-8"))["panels"]


def test_rules_use_existing_metrics() -> None:
    known = set(TABLE) | {rule["record"] for rule in RULES if "record" in rule}
    for rule in RULES:
        assert metrics_in(rule["expr"]) <= known, rule
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert {"summary", "description"} == set(rule["annotations"])


def test_every_alert_is_tested_and_explained_to_the_operator() -> None:
    files = [path.read_text(encoding="utf-8") for path in MONITORING.glob("alerts*_test.yml")]
    cases = [case for text in files for case in yaml.safe_load(text)["tests"]]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    assert sorted({check["alertname"] for check in checks if check["exp_alerts"]}) == sorted(set(ALERTS))
    page = ROOT / "docs" / "operating.md"
    explained = re.findall(r"^\| `(Vigia\w+)` \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(explained) == ALERTS
    assert "the-alerts" in anchors(page)


@each_dashboard
def test_a_dashboard_uses_existing_metrics(path: Path) -> None:
    known = set(TABLE) | {rule["record"] for rule in RULES if "record" in rule}
    board = json.loads(path.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    expressions += [variable["definition"] for variable in board["templating"]["list"]]
    for expression in expressions:
        named = metrics_in(expression)
        assert named <= known, expression
        assert named or re.search(r"\b(up|ALERTS)\{", expression), expression


@each_dashboard
def test_every_panel_has_a_description_and_a_unit(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"] == path.stem
    assert board["schemaVersion"] == 42
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    uid = source["datasources"][0]["uid"]
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        assert panel["datasource"]["uid"] == uid
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == uid
            assert target["legendFormat"], panel["title"]


@each_dashboard
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        at = panel["gridPos"]
        assert 0 <= at["x"] <= 24 - at["w"], panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_compose_mounts_the_dashboards_where_grafana_reads_them() -> None:
    provider = yaml.safe_load((PROVISIONING / "dashboards" / "vigia.yml").read_text(encoding="utf-8"))
    path = provider["providers"][0]["options"]["path"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert f"./monitoring/grafana/dashboards:{path}:ro" in compose["services"]["grafana"]["volumes"]
