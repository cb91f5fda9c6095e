"""What the watch page draws: heat map, traffic, quality over time, and two histograms."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from predictions.drift.timeline import Cell, Line, Moved, Window
from predictions.quality.realised import Quality
from predictions.rollups import reading
from training.models import Activation, RegisteredModel
from vigia_ml.drift import histograms

DAY: Final = dt.timedelta(days=1)
TONES: Final = {
    "few": "too few rows",
    "quiet": "no more than chance, or small",
    "slight": "slight",
    "large": "large",
    "huge": "very large",
}
MOST_VERSIONS: Final = 4
"""Each has a colour; those that answered least share the last."""


def labels(window: Window) -> list[str]:
    """Of the steps, by when they begin (UTC); years only where they differ."""
    if window.step >= DAY:
        years = {at.year for at in window.steps}
        return [f"{at:%Y-%m-%d}" if len(years) > 1 else f"{at:%m-%d}" for at in window.steps]
    return [f"{at:%m-%d %H:%M}" for at in window.steps]


def heat(moved: Moved, window: Window) -> dict[str, Any]:
    """Columns in lines, steps in columns; each cell has its number, and says in words what its tone is."""
    names = labels(window)
    return {
        "labels": names,
        "lines": [
            {
                "line": line,
                "whole": _said(line.whole, "the whole window"),
                "cells": [_said(cell, label) for cell, label in zip(line.cells, names, strict=True)],
            }
            for line in moved.lines
        ],
        "tones": TONES,
    }


def _said(cell: Cell | None, when: str) -> dict[str, Any]:
    if cell is None:
        return {"text": "", "tone": "none", "said": f"{when}: nothing was answered"}
    if cell.psi is None:
        return {"text": "·", "tone": "few", "said": f"{when}: only {cell.rows:,} rows"}
    number = max(cell.psi, 0.0)
    text = f"{number:.2f}" if number < 9.95 else f"{number:.0f}"
    said = f"{when}: adjusted PSI {cell.psi:.3f}, {TONES[cell.tone]}; {cell.rows:,} rows"
    return {"text": text, "tone": cell.tone, "said": said}


# -- charts --------------------------------------------------------------------------------------------


def traffic(model: RegisteredModel, window: Window) -> dict[str, Any]:
    """Rows answered in each step, by version, with the switches of the active version marked."""
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
        together = zip(*(rows[number] for number in others), strict=True)
        series.append({"name": name, "values": [sum(each) for each in together]})
    switches = marks(model, window)
    return {
        "id": "vg-chart-traffic",
        "title": "Predictions",
        "note": "Rows answered in each step, by version."
        + (" Dashed lines: another version became the active one." if switches else ""),
        "spec": {
            "kind": "bar",
            "stacked": True,
            "x": "step begins (UTC)",
            "y": "rows",
            "labels": labels(window),
            "markers": switches,
            "series": series,
        },
    }


def marks(model: RegisteredModel, window: Window) -> list[dict[str, Any]]:
    """The switches of the active version within the window."""
    switches = Activation.objects.filter(registered_model=model, at__gte=window.since, at__lt=window.until)
    return [
        {
            "at": round(window.place(row.at), 3),
            "label": f"version {row.version.number}",
            "said": f"{row.at:%Y-%m-%d %H:%M} UTC: version {row.version.number} became active ({row.kind}).",
        }
        for row in switches.select_related("version").order_by("at")
    ]


def quality(
    model: RegisteredModel, metric: str, found: Sequence[Quality], window: Window
) -> list[dict[str, Any]]:
    """A metric over time with its interval, and how many outcomes are known; none without them."""
    if not any(each.labelled for each in found):
        return []
    by_step = {each.since: each for each in found}
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
    holdout = found[0].holdout.get(metric)
    if holdout is not None:
        series.append({"name": "on the hold-out", "values": [holdout] * len(steps), "dashed": True})
    shared = {"x": "step begins (UTC)", "labels": labels(window)}
    coverage = [
        round(100 * step.coverage, 2) if step and step.coverage is not None else None for step in steps
    ]
    return [
        {
            "id": "vg-chart-quality",
            "title": f"Realised {metric}",
            "note": "With its 95 % interval, where enough outcomes are known; dashed: on the hold-out.",
            "spec": {"kind": "line", "y": metric, "markers": marks(model, window), "series": series} | shared,
        },
        {
            "id": "vg-chart-coverage",
            "title": "Outcomes known",
            "note": "Of the predictions of each step, in per cent. The newest wait for theirs.",
            "spec": {
                "kind": "bar",
                "y": "per cent",
                "y_range": [0, 100],
                "series": [{"name": "per cent", "values": coverage}],
            }
            | shared,
        },
    ]


def calibration(found: Quality) -> dict[str, Any] | None:
    """Of classes: whether what was given a probability came true as often as that."""
    bins = (found.calibration or {}).get("bins")
    if not bins:
        return None
    points = [[round(each["predicted"], 4), round(each["observed"], 4)] for each in bins]
    return {
        "id": "vg-chart-calibration",
        "title": "Calibration",
        "note": "Of the rows given a probability, the share that came true; on the line they agree.",
        "spec": {
            "kind": "line",
            "x": "mean probability",
            "y": "share that came true",
            "x_range": [0, 1],
            "y_range": [0, 1],
            "diagonal": "exact",
            "series": [{"name": f"version {found.version}", "points": points}],
        },
    }


def histogram(line: Line) -> dict[str, Any]:
    """The two histograms of a column, in per cent of their rows."""
    bars = histograms.shown(line.bars)

    def name(bar: histograms.Bar) -> str:
        return f"{bar.label} ({bar.apart})" if bar.apart not in ("", bar.label) else bar.label

    def share(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 2)

    apart = [at for at, bar in enumerate(bars) if bar.apart]
    return {
        "id": "vg-chart-histogram",
        "title": f"{line.name}: training and window",
        "note": "Shares of the rows in per cent, in the bins of the training data."
        + (" Hatched: missing, unseen, or outside the training range." if apart else ""),
        "spec": {
            "kind": "bar",
            "x": {"level": "level", "length": "characters"}.get(line.column.bins.kind, "value"),
            "y": "per cent of the rows",
            "labels": [name(bar) for bar in bars],
            "apart": apart,
            "series": [
                {"name": "training", "values": [share(bar.reference_share) for bar in bars]},
                {"name": "window", "values": [share(bar.window_share) for bar in bars]},
            ],
        },
    }
