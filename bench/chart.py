"""The chart of rates and processor time of all services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.measuring import Summary
from bench.processes import ROOT
from bench.services import SCENARIOS, Service

CHART = ROOT / "docs" / "images" / "performance.svg"
OURS, STORING, OTHERS, DATABASE, INK = "#14708a", "#d08a3c", "#9aa5ad", "#5b4a8a", "#22313a"
PANELS = (
    ("churn-16", "rate", "churn, one row, 16 connections: requests/s"),
    ("churn-16", "cpu", "churn, one row, 16 connections: CPU µs"),
    ("churn-64", "rate", "churn, one row, 64 connections: requests/s"),
    ("churn-many", "rate", "churn, 1,000 rows, 4 connections: rows/s"),
)


def draw(path: Path, services: Sequence[Service], summaries: Sequence[Summary]) -> None:
    plt.rcParams.update(
        {
            "svg.hashsalt": "vigia",
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    known = {scenario.name for scenario in SCENARIOS}
    panels = [panel for panel in PANELS if panel[0] in known]
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), facecolor="white")
    for axis, (scenario, measure, title) in zip(axes.flat, panels, strict=True):
        by_service = {entry.service: entry for entry in summaries if entry.scenario == scenario}
        shown = [(service, by_service[service.name]) for service in services if service.name in by_service]
        _bars(axis, shown, measure)
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    keys = [(OURS, "Vigía"), (STORING, "stores every row, committed"), (OTHERS, "stores nothing")]
    keys.append((DATABASE, "PostgreSQL's part of the CPU"))
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour, _ in keys]
    figure.legend(patches, [text for _, text in keys], loc="lower center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)


def _bars(axis: Axes, shown: Sequence[tuple[Service, Summary]], measure: str) -> None:
    labels = [service.title.replace("*", "").replace("`", "") for service, _ in shown]
    colours = [_colour(service) for service, _ in shown]
    if measure == "rate":
        values = [entry.rate for _, entry in shown]
        axis.barh(labels, values, color=colours, height=0.68)
    else:
        server = [entry.server_cpu * 1e6 for _, entry in shown]
        # A service that stores nothing does not account for PostgreSQL's background work.
        database = [entry.postgres_cpu * 1e6 if service.table else 0.0 for service, entry in shown]
        axis.barh(labels, server, color=colours, height=0.68)
        axis.barh(labels, database, left=server, color=DATABASE, height=0.68)
        values = [a + b for a, b in zip(server, database, strict=True)]
    for position, value in enumerate(values):
        axis.text(value, position, f" {value:,.0f}", va="center", fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, max(values, default=1) * 1.17)
    axis.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color("#b8c2c8")
    axis.tick_params(axis="y", length=0)


def _colour(service: Service) -> str:
    if service.name.startswith("vigia"):
        return OURS
    return STORING if service.table else OTHERS
