"""Rows of the rollups and of quality for the tests of pages, written as they are counted from the log."""

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
    """`rows` spread as in the reference, or all in the first bin that training filled."""
    reference = np.asarray(column.counts)
    if first_bin:
        counts = np.zeros(len(reference), dtype=np.int64)
        counts[int(np.argmax(reference > 0))] = rows
    else:
        edges = np.round(np.cumsum(reference) / reference.sum() * rows).astype(np.int64)
        counts = np.diff(edges, prepend=0)
    return Counted(counts, np.zeros(len(counts)))


def roll(version: ModelVersion, hour: dt.datetime, rows: int, *, drifted: tuple[str, ...] = ()) -> None:
    """An hour of the version's rollups; the named columns are all in one bin."""
    profile = version.reference.profile
    made = [Rollup(version=version, hour=hour, column=Rollup.ROWS, bin=0, rows=rows)]
    for name, column in profile.by_name.items():
        found = counted(column, rows, first_bin=name in drifted).counts
        made += [
            Rollup(version=version, hour=hour, column=name, bin=place, rows=int(count), total=0.0)
            for place, count in enumerate(found)
            if count
        ]
    Rollup.objects.bulk_create(made)
    upto = lowest_at(min(hour + HOUR, timezone.now()))
    RolledHour.objects.update_or_create(
        registered_model=version.registered_model,
        hour=hour,
        defaults={"upto": upto, "rows": rows, "closed": hour < this_hour()},
    )


def reviewed(
    version: ModelVersion, rows: int = 400, *, drifted: tuple[str, ...] = (), **given: Any
) -> DriftReview:
    """A review of the last day as `verdicts.review` makes it."""
    profile = version.reference.profile
    window = {
        name: counted(column, rows, first_bin=name in drifted) for name, column in profile.by_name.items()
    }
    said = verdicts.review(profile, window, MonitoringConfig(), None)
    usual: dict[str, Any] = {
        "registered_model": version.registered_model,
        "version": version,
        "since": this_hour() - 24 * HOUR,
        "until": this_hour(),
        "counted_to": this_hour(),
        "rows": rows,
        "verdict": said.verdict,
        "reason": said.reason,
    }
    review = DriftReview.objects.create(**usual | given)
    DriftFinding.objects.bulk_create(
        DriftFinding(
            review=review,
            position=position,
            **{name: getattr(found, name) for name in found.__dataclass_fields__},
        )
        for position, found in enumerate(said.findings)
    )
    return review
