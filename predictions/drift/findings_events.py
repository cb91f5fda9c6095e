"""Events of drift reviews: each finding once, not with every review that repeats it.

Only the reviews that show a model's present state count: scheduled ones, or every one for a model without a
schedule. Drift of a column is new if the last counting review of the version that could judge the column
found none. A fall of the quality is new if the last counting review that could judge it found none. A review
with too few rows or outcomes judges nothing, so it neither repeats a finding nor ends it.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from core.events import emit
from predictions.models import DriftFinding, DriftReview, Verdict
from predictions.quality import realised
from vigia_ml.drift.verdicts import Reviewed


def emit_new(review: DriftReview, reviewed: Reviewed) -> None:
    """Writes the events of a review that has just been stored, in its transaction."""
    model = review.registered_model
    if not review.scheduled and model.review_hours:
        return
    earlier = DriftReview.objects.filter(version=review.version, pk__lt=review.pk)
    if model.review_hours:
        earlier = earlier.filter(scheduled=True)
    subject = f"version {review.version.number}"
    drifting = [each.column for each in reviewed.findings if each.verdict == Verdict.DRIFT]
    new = [column for column in drifting if column not in _drifted(earlier, drifting)]
    if new:
        data = {"columns": new, "drifting": drifting, "reason": review.reason}
        emit("drift.found", model=model.name, subject=subject, data=_common(review) | data)
    for part in review.quality or []:
        judged = _judged(review, part)
        if judged is not None and part["fell"] and not _fell_before(earlier):
            emit("quality.fell", model=model.name, subject=subject, data=_common(review) | judged)


def _common(review: DriftReview) -> dict[str, Any]:
    return {
        "version": review.version.number,
        "review": review.pk,
        "since": review.since.isoformat(),
        "until": review.until.isoformat(),
    }


def _drifted(earlier: QuerySet[DriftReview], columns: list[str]) -> set[str]:
    """Returns the columns in which the last review that could judge them found drift."""
    findings = DriftFinding.objects.filter(review__in=earlier, column__in=columns)
    judged = findings.exclude(verdict=Verdict.INSUFFICIENT).order_by("column", "-review_id")
    verdicts = judged.distinct("column").values_list("column", "verdict")
    return {column for column, verdict in verdicts if verdict == Verdict.DRIFT}


def _fell_before(earlier: QuerySet[DriftReview]) -> bool:
    """Returns whether the quality had fallen in the last review that could judge it."""
    for review in earlier.select_related("registered_model").order_by("-pk").iterator(chunk_size=20):
        for part in review.quality or []:
            if _judged(review, part) is not None:
                return bool(part["fell"])
    return False


def _judged(review: DriftReview, part: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the watched metric with its interval and its value on the hold-out, or None if the review could
    not judge it; see `predictions.drift.reviews.has_fallen`."""
    metric = realised.watched_metric(review.registered_model, part["metrics"])
    if part["too_few"] or metric is None:
        return None
    here, holdout = part["metrics"].get(metric), part["holdout"].get(metric)
    if here is None or holdout is None or here["low"] is None or here["high"] is None:
        return None
    return {
        "metric": metric,
        "value": here["value"],
        "low": here["low"],
        "high": here["high"],
        "holdout": holdout,
    }
