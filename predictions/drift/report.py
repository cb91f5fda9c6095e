"""A drift review for people: what its page shows, and one HTML file that needs nothing else.

Column names and levels come from data; the templates escape them like everything else.
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
"""Content policy of the page: nothing but the styles it carries."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of a finding: the field it is in, its heading, and what it means in a sentence or two.

    form : how it is written.
    """

    field: str
    title: str
    said: str
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
        "Which part of what the model makes of its columns comes from this one, by what the primary metric "
        "lost on the hold-out when it was shuffled. Near zero, the model hardly looks at it, and its drift "
        "matters little.",
        form="share",
    ),
    Reading(
        "adjusted_psi",
        "Adjusted PSI",
        "Population stability index: how differently the rows spread over the bins, less what chance alone "
        "makes of so few rows. Around 0 nothing has changed; from the model's threshold on (0.1 unless "
        "declared) the change is large enough to be called drift.",
    ),
    Reading(
        "adjusted_p_value",
        "Adjusted p",
        "How often chance alone would make a difference this large, allowing for the number of columns "
        "looked at (Benjamini and Hochberg). Below 0.05 the change is taken for real; how large it is, the "
        "PSI says.",
        form="p",
    ),
    Reading(
        "ks",
        "KS",
        "Kolmogorov and Smirnov: the largest distance between the two cumulative shares, 0 to 1. Of numbers "
        "alone.",
    ),
    Reading(
        "chi_square_p_value",
        "Chi-square p",
        "How often chance alone would spread the rows this differently over the levels. Of categories alone.",
        form="p",
    ),
    Reading(
        "jensen_shannon",
        "Jensen-Shannon",
        "A distance between the two spreads: 0 when they are the same, 0.83 when they have no bin in common.",
    ),
    Reading(
        "wasserstein",
        "Wasserstein",
        "How far the rows would have to be moved to make one spread of the other, in standard deviations of "
        "the training data. Of numbers alone.",
    ),
    Reading("missing", "Missing", "Share of the window's rows without a value.", form="share"),
    Reading(
        "unseen", "Unseen", "Share of the rows with a level or a value that training never saw.", form="share"
    ),
    Reading("outside", "Outside", "Share of the rows outside the training range.", form="share"),
)
MORE_READINGS: Final = (
    Reading("psi", "PSI", "Before what chance alone makes is taken off."),
    Reading("p_value", "p", "Before the number of columns is allowed for.", form="p"),
    Reading("reference_missing", "Missing in training", "Share of the training rows.", form="share"),
)
SEVERITY: Final = (Verdict.DRIFT, Verdict.NOTICE, Verdict.INSUFFICIENT, Verdict.STABLE)
BY_FIELD: Final = {reading.field: reading for reading in (*READINGS, *MORE_READINGS)}


def findings(review: DriftReview, *, histogrammed: bool) -> list[dict[str, Any]]:
    """The findings as a page shows them: what has drifted first, then as they stand in the schema.

    Parameters
    ----------
    histogrammed : with the rows of every bin, whose labels may be levels of the log.
    """
    return [
        {
            "finding": found,
            "name": histograms.said(found.column),
            "cells": [reading.text(found) for reading in READINGS],
            "more": [(reading.title, reading.text(found)) for reading in MORE_READINGS],
            "psi": BY_FIELD["adjusted_psi"].text(found),
            "p": BY_FIELD["adjusted_p_value"].text(found),
            "pairs": _pairs(found) if histogrammed else None,
        }
        for found in sorted(review.findings.all(), key=lambda found: SEVERITY.index(found.verdict))
    ]


def _pairs(found: DriftFinding) -> list[dict[str, Any]]:
    every = histograms.shown(histograms.bars(found.kind, found.bins))
    largest = max(
        (share or 0.0 for bar in every for share in (bar.reference_share, bar.window_share)), default=0.0
    )
    return [{"bar": bar, "svg": svg.pair(bar, largest)} for bar in every]


def quality_rows(
    model: RegisteredModel, quality: Mapping[str, Any] | None, expected: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Each metric on the hold-out, as expected without outcomes, and as realised; the primary one first, and
    said which one is watched.

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
    watched = watched_metric(model)
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
    """What the templates in ``predictions/drift`` show of a review."""
    quality = review.quality[0] if review.quality else None  # of the one version that is reviewed
    found = findings(review, histogrammed=histogrammed)
    return {
        "review": review,
        "version": review.version,
        "findings": found,
        "readings": READINGS,
        "more_readings": MORE_READINGS,
        "drifted": [each["name"] for each in found if each["finding"].verdict == "drift"],
        "quality": quality,
        "expected": review.expected,
        "quality_rows": quality_rows(review.registered_model, quality, review.expected),
    }


def render(review: DriftReview) -> str:
    """The review as one HTML file: no script, nothing from elsewhere; light and dark, and to be printed."""
    return render_to_string(
        "predictions/drift/report.html",
        context(review, histogrammed=True) | {"made_with": f"Vigía {VERSION}"},
    )


def file_name(review: DriftReview, suffix: str) -> str:
    return f"drift-{review.registered_model.name}-{review.version.number}-review-{review.pk}.{suffix}"
