"""The recommender's metrics; see `core.metrics.definitions`."""

from __future__ import annotations

from typing import Final

from core.metrics.definitions import Metric

RECOMMENDATIONS: Final = "recommendations_total"
SECONDS: Final = "recommendation_response_time_seconds"
EMPTY: Final = "recommendations_empty_total"
CLICKED: Final = "recommendations_clicked_total"
FEEDBACK: Final = "recommendation_feedback_total"

_LABELS: Final = ("model", "version")

METRICS: Final = (
    Metric(RECOMMENDATIONS, "counter", _LABELS, "Recommendations that were answered."),
    Metric(SECONDS, "histogram", _LABELS, "Time from a complete request to its response, commit included."),
    Metric(EMPTY, "counter", _LABELS, "Recommendations without a movie."),
    Metric(
        CLICKED,
        "counter",
        _LABELS,
        "Recommendations of which a movie was clicked, watched or liked; each counts once.",
    ),
    Metric(
        FEEDBACK, "counter", (*_LABELS, "kind"), "Reported interactions with recommended movies, by kind."
    ),
)
