"""The kinds of events of the log and its reviews."""

from __future__ import annotations

from typing import Final

from core.events.kinds import EventKind

KINDS: Final = (
    EventKind(
        "drift.found",
        "Drift found",
        "A drift review found drift in a column in which the review before it found none. Data: version, "
        "review, since, until, columns (new ones), drifting (all of them), reason.",
    ),
    EventKind(
        "quality.fell",
        "Quality fell",
        "A drift review found the watched metric worse than on the hold-out: by more than the model's "
        "declaration allows, and by more than chance explains. The next such event comes only after the "
        "metric has recovered. Data: version, review, since, until, metric, value, low, high, holdout.",
    ),
    EventKind(
        "batch.ended",
        "Batch ended",
        "A batch succeeded, failed or was cancelled. Data: batch, version, rows, scored, invalid, status, "
        "error, requested_by, queued_at.",
    ),
)
