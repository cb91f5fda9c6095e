"""Charts and tables of evaluations by `vigia_ml.evaluation`, for the pages of versions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.reports import side_by_side

Report = Mapping[str, Any]
"""One evaluation, as `vigia_ml.evaluation` returns it."""
Named = Sequence[tuple[str, Report]]
"""Evaluations with their display names."""

SHARES = [0.0, 1.0]


def of_version(version: Any) -> dict[str, Any] | None:
    """Returns the template context of a version's evaluation; None without an evaluation."""
    report = version.evaluation
    if not report:
        return None
    named = [(f"version {version.number}", report)]
    rows = side_by_side.metric_rows(version.registered_model, [report.get("metrics") or {}])
    return {
        "rows": report.get("rows"),
        "confidence": report.get("confidence"),
        "resamples": report.get("resamples"),
        "intervals": [
            {"row": row, "value": row.values[0], "interval": (report.get("intervals") or {}).get(row.name)}
            for row in rows
        ],
        "charts": charts(named),
        "confusions": confusions(named),
        "slices": report.get("slices") or [],
        "slice_metrics": [row.name for row in rows],
        "importance": report.get("importance"),
        "latency": report.get("latency"),
    }


def of_comparison(job: Any) -> dict[str, Any] | None:
    """Returns the template context of a comparison that succeeded; else None."""
    result = job.result if job is not None else None
    if not result:
        return None
    before, after = result["before"], result["after"]
    named = [(f"version {each['version']}", each) for each in (before, after)]
    metric = result["metric"]
    return {
        "result": result,
        "names": [name for name, _ in named],
        "differences": [
            _difference(row, result["differences"].get(row.name) or {})
            for row in side_by_side.metric_rows(job.registered_model, [before["metrics"], after["metrics"]])
        ],
        "charts": charts(named),
        "confusions": confusions(named),
        "metric": metric,
        "slices": _slices(before, after, metric),
        "importance": after.get("importance") or before.get("importance"),
    }


def _difference(row: side_by_side.MetricRow, difference: Report) -> dict[str, Any]:
    interval = difference.get("interval")
    significant = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return {"row": row, "interval": interval, "significant": significant}


def _slices(before: Report, after: Report, metric: str) -> list[dict[str, Any]]:
    """Returns one row per slice with both versions' values of one metric."""
    earlier = {(item["column"], item["level"]): item["metrics"].get(metric) for item in before["slices"]}
    rows = []
    for item in after["slices"]:
        old, new = earlier.get((item["column"], item["level"])), item["metrics"].get(metric)
        change = None if old is None or new is None else new - old
        rows.append(item | {"before": old, "after": new, "difference": change})
    return rows


# -- charts --------------------------------------------------------------------------------------------


def charts(named: Named) -> list[dict[str, Any]]:
    """Returns the charts that the evaluations support: ROC and calibration, or residuals; importances."""
    every = [_roc(named), _calibration(named), _predicted(named), *_histograms(named), _importances(named)]
    return [each for each in every if each is not None]


def chart(name: str, title: str, note: str, **spec: Any) -> dict[str, Any]:
    """Returns a chart, see charts.js."""
    return {"id": f"vg-chart-{name}", "title": title, "note": note, "spec": spec}


def _series(named: Named, points: Callable[[Report], Any]) -> list[dict[str, Any]]:
    """Returns the points of the evaluations that have some."""
    found = ({"name": name, "points": points(report)} for name, report in named)
    return [each for each in found if each["points"]]


def _roc(named: Named) -> dict[str, Any] | None:
    series = _series(named, lambda report: report.get("roc"))
    note = "True positive rate against false positive rate, over all thresholds."
    axes = {"x": "false positive rate", "y": "true positive rate", "x_range": SHARES, "y_range": SHARES}
    spec = axes | {"kind": "line", "diagonal": "chance", "series": series}
    return chart("roc", "ROC curve", note, **spec) if series else None


def _calibration(named: Named) -> dict[str, Any] | None:
    series = _series(
        named, lambda report: [[b["predicted"], b["observed"]] for b in report.get("calibration") or ()]
    )
    note = "Share of true rows against the predicted probability; all points hold about equally many rows."
    axes = {"x": "mean probability", "y": "share of true rows", "x_range": SHARES, "y_range": SHARES}
    spec = axes | {"kind": "line", "diagonal": "exact", "series": series}
    return chart("calibration", "Calibration", note, **spec) if series else None


def _predicted(named: Named) -> dict[str, Any] | None:
    series = _series(named, lambda report: (report.get("residuals") or {}).get("points"))
    if not series:
        return None
    values = [value for each in series for point in each["points"] for value in point if value is not None]
    note = (
        f"A sample of {len(series[0]['points']):,} rows of the hold-out; exact predictions are on the line."
    )
    axes = {"x": "actual", "y": "predicted", "x_range": [min(values), max(values)]}
    spec = axes | {"kind": "scatter", "diagonal": "exact", "series": series}
    return chart("predicted", "Predicted against actual values", note, **spec)


def _histograms(named: Named) -> list[dict[str, Any]]:
    """Returns one histogram per version, because each version has its own bins."""
    histograms = []
    for at, (name, report) in enumerate(named):
        histogram = (report.get("residuals") or {}).get("histogram") or {}
        edges = histogram.get("edges")
        if not edges:
            continue
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        labels = [side_by_side.plain(_round(middle)) for middle in middles]
        series = [{"name": name, "values": histogram["counts"]}]
        note = "Prediction minus actual value, in the target's unit; the outermost bars hold larger errors."
        spec = {"kind": "bar", "x": "error", "y": "rows", "labels": labels, "series": series}
        histograms.append(chart(f"errors-{at}", f"Errors of {name}", note, **spec))
    return histograms


def _round(number: float) -> float:
    """Rounds numbers from 1,000 on to whole numbers, others to four digits."""
    return float(round(number)) if abs(number) >= 1_000 else float(f"{number:.4g}")


def _importances(named: Named) -> dict[str, Any] | None:
    known = [(name, report["importance"]) for name, report in named if report.get("importance")]
    known = [(name, importance) for name, importance in known if importance["columns"]]
    if not known:
        return None
    columns = (item["column"] for _, importance in reversed(known) for item in importance["columns"])
    order = list(dict.fromkeys(columns))
    series = []
    for name, importance in known:
        losses = {item["column"]: item["mean"] for item in importance["columns"]}
        series.append({"name": name, "values": [losses.get(column) for column in order]})
    metric, rows = known[-1][1]["metric"], known[-1][1]["rows"]
    note = f"Loss of {metric} when a column's values are shuffled among {rows:,} rows."
    spec = {"kind": "bar", "x": "column", "y": f"loss of {metric}", "labels": order, "series": series}
    return chart("importance", "Importance of the columns", note, **spec)


def confusions(named: Named) -> list[dict[str, Any]]:
    """Returns confusion matrices as rows of cells: the count and its share of the actual class."""
    tables = []
    for name, report in named:
        matrix = report.get("confusion")
        if not matrix:
            continue
        rows = [
            {
                "label": label,
                "cells": [{"count": n, "share": n / sum(counts) if sum(counts) else None} for n in counts],
            }
            for label, counts in zip(matrix["labels"], matrix["counts"], strict=True)
        ]
        tables.append(
            {"name": name, "labels": matrix["labels"], "rows": rows, "threshold": matrix["threshold"]}
        )
    return tables
