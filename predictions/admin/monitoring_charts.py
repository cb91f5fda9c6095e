"""Charts of the page on drift and quality: heat map, traffic, quality over time, and two histograms."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from predictions.drift.timeline import Cell, Line, Timeline, Window
from predictions.quality.realised import Quality
from predictions.rollups import reading
from training.admin.charts import chart
from training.models import Activation, RegisteredModel
from vigia_ml.drift import histograms

DAY: Final = dt.timedelta(days=1)
TONES: Final = {
    "few": "too few rows",
    "quiet": "small, or explained by chance",
    "slight": "slight",
    "large": "large",
    "huge": "very large",
}
MOST_VERSIONS: Final = 4
"""Maximum number of series; the versions with the fewest rows share the last one."""


def labels(window: Window) -> list[str]:
    """Returns the labels of the steps: their beginnings (UTC), with years only if they differ."""
    if window.step >= DAY:
        years = {at.year for at in window.steps}
        return [f"{at:%Y-%m-%d}" if len(years) > 1 else f"{at:%m-%d}" for at in window.steps]
    return [f"{at:%m-%d %H:%M}" for at in window.steps]


def heat(drift: Timeline, window: Window) -> dict[str, Any]:
    """Returns a heat map of columns (lines) by steps (columns); each cell has a number and a description."""
    names = labels(window)
    return {
        "labels": names,
        "lines": [
            {
                "line": line,
                "overall": _described(line.overall, "the window"),
                "cells": [_described(cell, label) for cell, label in zip(line.cells, names, strict=True)],
            }
            for line in drift.lines
        ],
        "tones": TONES,
    }


def _described(cell: Cell | None, when: str) -> dict[str, Any]:
    if cell is None:
        return {"text": "", "tone": "none", "description": f"{when}: no predictions"}
    if cell.psi is None:
        return {"text": "·", "tone": "few", "description": f"{when}: only {cell.rows:,} rows"}
    number = max(cell.psi, 0.0)
    text = f"{number:.2f}" if number < 9.95 else f"{number:.0f}"
    description = f"{when}: adjusted PSI {cell.psi:.3f}, {TONES[cell.tone]}; {cell.rows:,} rows"
    return {"text": text, "tone": cell.tone, "description": description}


# -- charts --------------------------------------------------------------------------------------------


def traffic(model: RegisteredModel, window: Window) -> dict[str, Any]:
    """Returns the rows answered in each step by version, with marks for activations."""
    places = {at: place for place, at in enumerate(window.steps)}
    rows: dict[int, list[int]] = defaultdict(lambda: [0] * len(places))
    for since, until in window.parts:
        for at, number, answered in reading.traffic(model, since, until, window.step):
            rows[number][places[at]] += answered
    numbers = sorted(rows, key=lambda number: sum(rows[number]), reverse=True)
    series = [
        {"name": f"version {number}", "values": rows[number]} for number in numbers[: MOST_VERSIONS - 1]
    ]
    others = numbers[MOST_VERSIONS - 1 :]
    if others:
        name = f"version {others[0]}" if len(others) == 1 else "other versions"
        by_step = zip(*(rows[number] for number in others), strict=True)
        series.append({"name": name, "values": [sum(each) for each in by_step]})
    activations = marks(model, window)
    return chart(
        "traffic",
        "Predictions",
        "Rows answered in each step, by version." + (" Dashed lines: activations." if activations else ""),
        kind="bar",
        stacked=True,
        x="step begins (UTC)",
        y="rows",
        labels=labels(window),
        markers=activations,
        series=series,
    )


def marks(model: RegisteredModel, window: Window) -> list[dict[str, Any]]:
    """Returns the marks of the activations within the window."""
    rows = Activation.objects.filter(registered_model=model, at__gte=window.since, at__lt=window.until)
    return [
        {
            "at": round(window.place(row.at), 3),
            "label": f"version {row.version.number}",
            "said": f"{row.at:%Y-%m-%d %H:%M} UTC: version {row.version.number} became active ({row.kind}).",
        }
        for row in rows.select_related("version").order_by("at")
    ]


def quality(
    model: RegisteredModel, metric: str, qualities: Sequence[Quality], window: Window
) -> list[dict[str, Any]]:
    """Returns charts of a metric over time with its interval, and of the coverage; none without outcomes."""
    if not any(each.labelled for each in qualities):
        return []
    by_step = {each.since: each for each in qualities}
    steps = [by_step.get(at) for at in window.steps]
    estimates = [step.metrics.get(metric) if step and not step.too_few else None for step in steps]
    series: list[dict[str, Any]] = [
        {
            "name": metric,
            "values": [each.value if each else None for each in estimates],
            "low": [each.low if each else None for each in estimates],
            "high": [each.high if each else None for each in estimates],
        }
    ]
    holdout = qualities[0].holdout.get(metric)
    if holdout is not None:
        series.append({"name": "on the hold-out", "values": [holdout] * len(steps), "dashed": True})
    shared = {"x": "step begins (UTC)", "labels": labels(window)}
    coverage = [
        round(100 * step.coverage, 2) if step and step.coverage is not None else None for step in steps
    ]
    note = "With its 95 % interval, if enough outcomes are known; dashed: on the hold-out."
    spec = {"kind": "line", "y": metric, "markers": marks(model, window), "series": series} | shared
    covered = "Per cent of each step's predictions with an outcome; the newest still wait for theirs."
    per_cent = [{"name": "per cent", "values": coverage}]
    bars = {"kind": "bar", "y": "per cent", "y_range": [0, 100], "series": per_cent} | shared
    return [
        chart("quality", f"Realised {metric}", note, **spec),
        chart("coverage", "Coverage", covered, **bars),
    ]


def calibration(quality: Quality) -> dict[str, Any] | None:
    """Returns the calibration chart of a classification: observed share by mean probability."""
    bins = (quality.calibration or {}).get("bins")
    if not bins:
        return None
    points = [[round(each["predicted"], 4), round(each["observed"], 4)] for each in bins]
    return chart(
        "calibration",
        "Calibration",
        "Observed share of the class by predicted probability; on the line both agree.",
        kind="line",
        x="mean probability",
        y="observed share",
        x_range=[0, 1],
        y_range=[0, 1],
        diagonal="exact",
        series=[{"name": f"version {quality.version}", "points": points}],
    )


def histogram(line: Line) -> dict[str, Any]:
    """Returns the chart of a column's two histograms, in per cent of their rows."""
    bars = histograms.shown(line.bars)

    def name(bar: histograms.Bar) -> str:
        return f"{bar.label} ({bar.apart})" if bar.apart not in ("", bar.label) else bar.label

    def share(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 2)

    apart = [at for at, bar in enumerate(bars) if bar.apart]
    return chart(
        "histogram",
        f"{line.name}: training and window",
        "Shares of the rows in per cent, in the bins of the training data."
        + (" Hatched: missing, unseen, or outside the training range." if apart else ""),
        kind="bar",
        x={"level": "level", "length": "characters", "date": "date", "time": "time (UTC)"}.get(
            line.column.bins.kind, "value"
        ),
        y="per cent of the rows",
        labels=[name(bar) for bar in bars],
        apart=apart,
        series=[
            {"name": "training", "values": [share(bar.reference_share) for bar in bars]},
            {"name": "window", "values": [share(bar.window_share) for bar in bars]},
        ],
    )
