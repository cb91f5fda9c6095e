"""Evaluations as charts and tables: what `vigia_ml.evaluation` measured, for the pages of versions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from training.reports import side_by_side

Report = Mapping[str, Any]
"""One evaluation, as `vigia_ml.evaluation` returns it."""
Named = Sequence[tuple[str, Report]]
"""Evaluations with the name each is shown under."""

SHARES = [0.0, 1.0]


def of_version(version: Any) -> dict[str, Any] | None:
    """What the page of a version shows of its evaluation; None when it has none."""
    found = version.evaluation
    if not found:
        return None
    named = [(f"version {version.number}", found)]
    rows = side_by_side.metric_rows(version.registered_model, [found.get("metrics") or {}])
    return {
        "rows": found.get("rows"),
        "confidence": found.get("confidence"),
        "resamples": found.get("resamples"),
        "intervals": [
            {"row": row, "value": row.values[0], "interval": (found.get("intervals") or {}).get(row.name)}
            for row in rows
        ],
        "charts": charts(named),
        "confusions": confusions(named),
        "slices": found.get("slices") or [],
        "slice_metrics": [row.name for row in rows],
        "importance": found.get("importance"),
        "latency": found.get("latency"),
    }


def of_comparison(job: Any) -> dict[str, Any] | None:
    """What the comparison page shows of a comparison that succeeded; else None."""
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


def _difference(row: side_by_side.MetricRow, found: Report) -> dict[str, Any]:
    interval = found.get("interval")
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return {"row": row, "interval": interval, "sure": sure}


def _slices(before: Report, after: Report, metric: str) -> list[dict[str, Any]]:
    """One row a slice, both versions' value of one metric."""
    theirs = {(item["column"], item["level"]): item["metrics"].get(metric) for item in before["slices"]}
    found = []
    for item in after["slices"]:
        old, new = theirs.get((item["column"], item["level"])), item["metrics"].get(metric)
        change = None if old is None or new is None else new - old
        found.append(item | {"before": old, "after": new, "difference": change})
    return found


# -- charts --------------------------------------------------------------------------------------------


def charts(named: Named) -> list[dict[str, Any]]:
    """Those that fit: ROC and calibration, or residuals; then importances."""
    found = [_roc(named), _calibration(named), _predicted(named), *_histograms(named), _importances(named)]
    return [chart for chart in found if chart is not None]


def _chart(name: str, title: str, note: str, **spec: Any) -> dict[str, Any]:
    return {"id": f"vg-chart-{name}", "title": title, "note": note, "spec": spec}


def _roc(named: Named) -> dict[str, Any] | None:
    series = [{"name": name, "points": found["roc"]} for name, found in named if found.get("roc")]
    if not series:
        return None
    return _chart(
        "roc",
        "ROC curve",
        "How many of the positives are found, for how many of the negatives taken for one.",
        kind="line",
        x="false positive rate",
        y="true positive rate",
        x_range=SHARES,
        y_range=SHARES,
        diagonal="chance",
        series=series,
    )


def _calibration(named: Named) -> dict[str, Any] | None:
    series = [
        {"name": name, "points": [[each["predicted"], each["observed"]] for each in found["calibration"]]}
        for name, found in named
        if found.get("calibration")
    ]
    if not series:
        return None
    return _chart(
        "calibration",
        "Calibration",
        "Of the rows given a probability, the share that was true; each point holds about as many rows.",
        kind="line",
        x="mean probability",
        y="share that was true",
        x_range=SHARES,
        y_range=SHARES,
        diagonal="exact",
        series=series,
    )


def _predicted(named: Named) -> dict[str, Any] | None:
    series = [
        {"name": name, "points": found["residuals"]["points"]}
        for name, found in named
        if (found.get("residuals") or {}).get("points")
    ]
    if not series:
        return None
    values = [value for each in series for point in each["points"] for value in point if value is not None]
    return _chart(
        "predicted",
        "Answer beside truth",
        f"A sample of {len(series[0]['points']):,} rows of the hold-out; on the line an answer is exact.",
        kind="scatter",
        x="actual",
        y="predicted",
        x_range=[min(values), max(values)],
        diagonal="exact",
        series=series,
    )


def _histograms(named: Named) -> list[dict[str, Any]]:
    """One for each version: their bins are their own."""
    found = []
    for at, (name, report) in enumerate(named):
        histogram = (report.get("residuals") or {}).get("histogram") or {}
        edges = histogram.get("edges")
        if not edges:
            continue
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        found.append(
            _chart(
                f"errors-{at}",
                f"Errors of {name}",
                "Answer minus truth, in the target's unit; the outermost bars hold what lies beyond.",
                kind="bar",
                x="error",
                y="rows",
                labels=[side_by_side.plain(_round(middle)) for middle in middles],
                series=[{"name": name, "values": histogram["counts"]}],
            )
        )
    return found


def _round(number: float) -> float:
    """To whole numbers where there are thousands of them."""
    return float(round(number)) if abs(number) >= 1_000 else float(f"{number:.4g}")


def _importances(named: Named) -> dict[str, Any] | None:
    known = [(name, found["importance"]) for name, found in named if found.get("importance")]
    known = [(name, found) for name, found in known if found["columns"]]
    if not known:
        return None
    order = list(dict.fromkeys(item["column"] for _, found in reversed(known) for item in found["columns"]))
    series = []
    for name, found in known:
        losses = {item["column"]: item["mean"] for item in found["columns"]}
        series.append({"name": name, "values": [losses.get(column) for column in order]})
    metric, rows = known[-1][1]["metric"], known[-1][1]["rows"]
    return _chart(
        "importance",
        "Importance of the columns",
        f"What {metric} loses when a column's values are shuffled among {rows:,} rows.",
        kind="bar",
        x="column",
        y=f"loss of {metric}",
        labels=order,
        series=series,
    )


def confusions(named: Named) -> list[dict[str, Any]]:
    """Confusion matrices as rows of cells: the count and its share of the actual class."""
    found = []
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
        found.append(
            {"name": name, "labels": matrix["labels"], "rows": rows, "threshold": matrix["threshold"]}
        )
    return found
