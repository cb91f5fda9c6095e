"""Presents a drift review: the context of its page, and a self-contained HTML file.

Column names and levels come from data, and the templates escape them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.template.loader import render_to_string

from core.version import VERSION
from predictions.drift import svg
from predictions.models import DriftFinding, DriftReview, Verdict
from predictions.quality.realised import watched_metric
from training.models import RegisteredModel
from training.reports import side_by_side
from training.templatetags.vigia import MINUS, share
from vigia_ml.drift import histograms

HTML: Final = "text/html; charset=utf-8"
POLICY: Final = {
    "default-src": ["'none'"],
    "style-src": ["'unsafe-inline'"],
    "form-action": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
}
"""Content policy of the HTML file: its inline styles only."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of a finding: its field, its heading and its meaning in a sentence or two.

    form : the format of the number.
    """

    field: str
    title: str
    meaning: str
    form: Literal["number", "share", "p"] = "number"

    def text(self, finding: DriftFinding) -> str:
        value: float | None = getattr(finding, self.field)
        if value is None:
            return "–"
        if self.form == "share":
            return share(value)
        if self.form == "p":
            return f"{value:.4f}" if value >= 0.00005 else "<0.0001"
        return f"{value:.3f}".replace("-", MINUS)


READINGS: Final = (
    Reading(
        "importance",
        "Importance",
        "This column's part of the model's predictive power: the loss of the primary metric on the hold-out "
        "when the column is shuffled. Near zero, the model hardly uses the column, and its drift matters "
        "little.",
        form="share",
    ),
    Reading(
        "adjusted_psi",
        "Adjusted PSI",
        "Population stability index, adjusted for sample size: the difference between the two distributions "
        "over the bins. Around 0 nothing has changed; from the model's threshold on (0.1 unless declared) "
        "the change counts as drift.",
    ),
    Reading(
        "adjusted_p_value",
        "Adjusted p",
        "Probability that chance alone makes a difference this large, adjusted for the number of columns "
        "(Benjamini and Hochberg). Below 0.05 the change counts as real; the PSI measures its size.",
        form="p",
    ),
    Reading(
        "ks",
        "KS",
        "Kolmogorov and Smirnov: the largest distance between the two cumulative shares, 0 to 1. Numbers "
        "only.",
    ),
    Reading(
        "chi_square_p_value",
        "Chi-square p",
        "Probability that chance alone makes the shares of the levels differ this much. Categories only.",
        form="p",
    ),
    Reading(
        "jensen_shannon",
        "Jensen-Shannon",
        "A distance between the two distributions: 0 if they are equal, 0.83 if they have no bin in common.",
    ),
    Reading(
        "wasserstein",
        "Wasserstein",
        "The average distance by which rows must move to turn one distribution into the other, in standard "
        "deviations of the training data. Numbers only.",
    ),
    Reading("missing", "Missing", "Share of the window's rows without a value.", form="share"),
    Reading(
        "unseen",
        "Unseen",
        "Share of the rows with a level or a value that is not in the training data.",
        form="share",
    ),
    Reading("outside", "Outside", "Share of the rows outside the training range.", form="share"),
)
MORE_READINGS: Final = (
    Reading("psi", "PSI", "Not adjusted for sample size."),
    Reading("p_value", "p", "Not adjusted for the number of columns.", form="p"),
    Reading("reference_missing", "Missing in training", "Share of the training rows.", form="share"),
)
SEVERITY: Final = (Verdict.DRIFT, Verdict.NOTICE, Verdict.INSUFFICIENT, Verdict.STABLE)
BY_FIELD: Final = {reading.field: reading for reading in (*READINGS, *MORE_READINGS)}


def findings(review: DriftReview, *, histogrammed: bool) -> list[dict[str, Any]]:
    """Returns the findings as a page shows them: drifted columns first, then the schema's order.

    Parameters
    ----------
    histogrammed : whether to include the rows of every bin, whose labels may be levels of the log.
    """
    return [
        {
            "finding": finding,
            "name": histograms.said(finding.column),
            "cells": [reading.text(finding) for reading in READINGS],
            "more": [(reading.title, reading.text(finding)) for reading in MORE_READINGS],
            "psi": BY_FIELD["adjusted_psi"].text(finding),
            "p": BY_FIELD["adjusted_p_value"].text(finding),
            "pairs": _pairs(finding) if histogrammed else None,
        }
        for finding in sorted(review.findings.all(), key=lambda finding: SEVERITY.index(finding.verdict))
    ]


def _pairs(finding: DriftFinding) -> list[dict[str, Any]]:
    bars = histograms.shown(histograms.bars(finding.kind, finding.bins))
    largest = max(
        (share or 0.0 for bar in bars for share in (bar.reference_share, bar.window_share)), default=0.0
    )
    return [{"bar": bar, "svg": svg.pair(bar, largest)} for bar in bars]


def quality_rows(
    model: RegisteredModel, quality: Mapping[str, Any] | None, expected: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Returns each metric on the hold-out, expected without outcomes, and realised, the primary one first;
    marks the watched metric.

    Parameters
    ----------
    quality : see `predictions.quality.realised.as_dict`.
    expected : the fields of `vigia_ml.drift.performance_estimation.Expected`.
    """
    quality, expected = quality or {}, expected or {}
    realised: Mapping[str, Any] = quality.get("metrics") or {}
    columns = [
        quality.get("holdout") or {},
        expected.get("metrics") or {},
        {name: each["value"] for name, each in realised.items() if each},
    ]
    watched = watched_metric(model, realised)
    return [
        {
            "row": row,
            "watched": row.name == watched,
            "holdout": row.values[0],
            "expected": row.values[1],
            "realised": realised.get(row.name),
        }
        for row in side_by_side.metric_rows(model, columns)
    ]


def context(review: DriftReview, *, histogrammed: bool) -> dict[str, Any]:
    """Returns the context of the templates in ``predictions/drift``."""
    quality = review.quality[0] if review.quality else None  # of the one version that is reviewed
    shown = findings(review, histogrammed=histogrammed)
    return {
        "review": review,
        "version": review.version,
        "findings": shown,
        "readings": READINGS,
        "drifted": [each["name"] for each in shown if each["finding"].verdict == "drift"],
        "quality": quality,
        "expected": review.expected,
        "quality_rows": quality_rows(review.registered_model, quality, review.expected),
    }


def render(review: DriftReview) -> str:
    """Returns the review as one HTML file without scripts or external files, light and dark, printable."""
    return render_to_string(
        "predictions/drift/report.html",
        context(review, histogrammed=True) | {"made_with": f"Vigía {VERSION}"},
    )


def file_name(review: DriftReview, suffix: str) -> str:
    return f"drift-{review.registered_model.name}-{review.version.number}-review-{review.pk}.{suffix}"
