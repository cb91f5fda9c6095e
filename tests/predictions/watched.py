"""Creates rollups and reviews for the tests of pages, as counting the log would."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.models import DriftFinding, DriftReview, RolledHour, Rollup
from training.models import ModelVersion
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift import verdicts
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.reference_profile import ColumnProfile

HOUR = dt.timedelta(hours=1)


def this_hour() -> dt.datetime:
    return timezone.now().replace(minute=0, second=0, microsecond=0)


def counted(column: ColumnProfile, rows: int, *, first_bin: bool = False) -> Counted:
    """Returns `rows` spread as in the reference, or all in the first bin that training filled."""
    reference = np.asarray(column.counts)
    if first_bin:
        counts = np.zeros(len(reference), dtype=np.int64)
        counts[int(np.argmax(reference > 0))] = rows
    else:
        edges = np.round(np.cumsum(reference) / reference.sum() * rows).astype(np.int64)
        counts = np.diff(edges, prepend=0)
    return Counted(counts, np.zeros(len(counts)))


def roll(version: ModelVersion, hour: dt.datetime, rows: int, *, drifted: tuple[str, ...] = ()) -> None:
    """Creates an hour of the version's rollups; the drifted columns are all in one bin."""
    profile = version.reference.profile
    rollups = [Rollup(version=version, hour=hour, column=Rollup.ROWS, bin=0, rows=rows)]
    for name, column in profile.by_name.items():
        counts = counted(column, rows, first_bin=name in drifted).counts
        rollups += [
            Rollup(version=version, hour=hour, column=name, bin=place, rows=int(count), total=0.0)
            for place, count in enumerate(counts)
            if count
        ]
    Rollup.objects.bulk_create(rollups)
    upto = lowest_at(min(hour + HOUR, timezone.now()))
    RolledHour.objects.update_or_create(
        registered_model=version.registered_model,
        hour=hour,
        defaults={"upto": upto, "rows": rows, "closed": hour < this_hour()},
    )


def reviewed(
    version: ModelVersion, rows: int = 400, *, drifted: tuple[str, ...] = (), **fields: Any
) -> DriftReview:
    """Creates a review of the last day as `verdicts.review` makes it."""
    profile = version.reference.profile
    window = {
        name: counted(column, rows, first_bin=name in drifted) for name, column in profile.by_name.items()
    }
    result = verdicts.review(profile, window, MonitoringConfig(), None)
    usual: dict[str, Any] = {
        "registered_model": version.registered_model,
        "version": version,
        "since": this_hour() - 24 * HOUR,
        "until": this_hour(),
        "counted_to": this_hour(),
        "rows": rows,
        "verdict": result.verdict,
        "reason": result.reason,
    }
    review = DriftReview.objects.create(**usual | fields)
    DriftFinding.objects.bulk_create(
        DriftFinding(
            review=review,
            position=position,
            **{name: getattr(finding, name) for name in finding.__dataclass_fields__},
        )
        for position, finding in enumerate(result.findings)
    )
    return review
