"""References of the log, of reviews, replays and outcomes; see `training.registry.archiving`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from predictions.models import DriftReview, LogExport, Outcome, Prediction, Replay
from training.models import Dataset, ModelVersion, RegisteredModel
from training.registry.archiving import Reference

MOST_COUNTED = 10_000


def references(target: RegisteredModel | ModelVersion | Dataset) -> Iterator[Reference]:
    """Yields the rows of this application that refer to a model or a version."""
    if isinstance(target, Dataset):
        return
    own: dict[str, Any] = (
        {"version": target} if isinstance(target, ModelVersion) else {"registered_model": target}
    )
    rows = Prediction.objects.filter(**own)[: MOST_COUNTED + 1].count()
    yield (
        Reference("logged predictions", rows)
        if rows <= MOST_COUNTED
        else Reference(f"more than {MOST_COUNTED:,} logged predictions", None)
    )
    if isinstance(target, RegisteredModel):
        yield Reference("outcomes", Outcome.objects.filter(**own)[: MOST_COUNTED + 1].count())
        yield Reference("log exports", LogExport.objects.filter(**own).count())
    yield Reference("drift reviews", DriftReview.objects.filter(**own).count())
    yield Reference("replays", Replay.objects.filter(**own).count())
