"""Aggregates one hour's labelled predictions into one `Tally` per version."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.uuid7 import lowest_at, time_of
from predictions.models import decoded
from predictions.outcomes import labelled_rows
from predictions.outcomes.labelled_rows import Labelled
from predictions.quality.metrics import BOUNDS, DELAY_GROWTH, MOST_RANKED, Tally, total_of
from predictions.quality.sql import classes_of
from predictions.rollups.hours import end
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.declaration import Task
from vigia_ml.evaluation.sums import binary_terms, class_terms
from vigia_ml.reference_profile import PREDICTION

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Sums = dict[str, Any]

# Between these magnitudes a number's fourth power is a double.
_LARGEST: Final = 1e70
_SMALLEST: Final = 1e-70


def of_hour(model: RegisteredModel, hour: dt.datetime) -> dict[int, Tally]:
    """Returns version id -> tally of the hour's labelled predictions."""
    versions = _Versions()
    parts: dict[int, list[Tally]] = defaultdict(list)
    by_version = attrgetter("version_id")
    for page in labelled_rows.pages(model.pk, lowest_at(hour), end(hour), inputs=False):
        for version_id, rows in groupby(sorted(page, key=by_version), by_version):
            parts[version_id].append(_tally(versions[version_id], list(rows)))
    return {version_id: total_of(part, versions[version_id].task) for version_id, part in parts.items()}


def task_of(version: ModelVersion) -> Task:
    """Returns a version's own task; the declaration may have changed."""
    if "rmse" in version.metrics:
        return "regression"
    return "multiclass" if classes_of(version) is None else "binary"


@dataclass(frozen=True, slots=True)
class _Version:
    """The part of a version that its tallies need.

    classes : of two classes, the negative and the positive one; of more, those of the log's arrays.
    center : mean of the answers to the hold-out, if known; the powers of actual values are summed around it,
        which preserves precision.
    """

    task: Task
    classes: tuple[Any, ...]
    center: float


class _Versions(dict[int, _Version]):
    """Version id -> version, loaded on first use, because a model may have thousands with long schemas."""

    def __missing__(self, version_id: int) -> _Version:
        version = ModelVersion.objects.get(pk=version_id)
        reference = ReferenceProfile.objects.filter(version=version).first()
        answers = reference.profile.by_name[PREDICTION] if reference is not None else None
        center = sum(answers.sums) / answers.rows if answers is not None and answers.rows else 0.0
        classes = classes_of(version) or version.known_classes or ()
        self[version_id] = _Version(task_of(version), classes, center)
        return self[version_id]


def _tally(version: _Version, rows: Sequence[Labelled]) -> Tally:
    answers, actuals = decoded(row.prediction for row in rows), decoded(row.actual for row in rows)
    tally = Tally(version.task, len(rows), center=version.center, delays=_delays(rows))
    if version.task == "regression":
        predicted, actual = _numbers(answers), _numbers(actuals)
        usable = (np.abs(predicted) < _LARGEST) & (np.abs(actual) < _LARGEST)
        p, positive = np.zeros(usable.sum()), np.zeros(usable.sum(), dtype=bool)
        sums = _regression(predicted[usable], actual[usable], version.center)
    else:
        p = np.array([row.probability for row in rows], dtype=np.float64)
        usable = (p >= 0) & (p <= 1)
        if version.task == "binary":
            decided, positive = _places(answers, version.classes), _places(actuals, version.classes)
            usable &= (decided >= 0) & (positive >= 0)
            p, decided, positive = p[usable], decided[usable] == 1, positive[usable] == 1
            sums = _binary(p, decided, positive)
        else:
            pairs = list(zip(answers, actuals, strict=True))
            usable &= np.array([type(answer) is type(actual) is str for answer, actual in pairs], dtype=bool)
            pairs = [pairs[place] for place in np.flatnonzero(usable).tolist()]
            # Right answers count as positive if there are more than two classes.
            p, positive = p[usable], np.array([answer == actual for answer, actual in pairs], dtype=bool)
            sums = {"right": positive.sum(), **_errors(p - positive)}
            tally.pairs = dict(Counter(pairs))
            of_classes, tally.classes = _every_class(version.classes, pairs, _arrays(rows, usable))
            sums |= of_classes
    tally.unusable = len(rows) - len(p)
    tally.sums = {name: value.item() for name, value in sums.items()} if len(p) else {}
    bucket = np.searchsorted(BOUNDS, p, side="right")
    counts = (np.bincount(bucket), np.bincount(bucket, positive), np.bincount(bucket, p))
    tally.buckets = {
        place: (int(counts[0][place]), int(counts[1][place]), float(counts[2][place]))
        for place in np.flatnonzero(counts[0]).tolist()
    }
    return tally


def _binary(p: Floats, decided: Flags, positive: Flags) -> Sums:
    terms = binary_terms(positive, p, decided)
    totals: Sums = {name: values.sum() for name, values in terms.items()}
    return totals | {"loss2": (terms["loss"] ** 2).sum(), **_errors(p - positive)}


def _arrays(rows: Sequence[Labelled], usable: Flags) -> list[Any]:
    """Returns the logged probabilities of every class of the usable rows; None where the log has none."""
    return decoded(rows[place].by_class or "null" for place in np.flatnonzero(usable).tolist())


def _every_class(
    classes: Sequence[Any], pairs: Sequence[tuple[Any, Any]], arrays: Sequence[Any]
) -> tuple[Sums, dict[str, dict[int, tuple[int, int]]]]:
    """Returns the sums, and `Tally.classes`, of the rows that have a probability of each of `classes`.

    Parameters
    ----------
    pairs : answer and actual class of each row. arrays : see `_arrays`.
    """
    known = [(actual, array) for (_, actual), array in zip(pairs, arrays, strict=True) if array is not None]
    known = [(actual, array) for actual, array in known if len(array) == len(classes)]
    if not known:
        return {}, {}
    places = {each: place for place, each in enumerate(classes)}
    actual = np.array([places.get(each, -1) for each, _ in known])
    probability = np.array([array for _, array in known], dtype=np.float64)
    sums: Sums = {"classed": np.int64(len(known))}
    for name, term in class_terms(actual, probability).items():
        sums |= {name: term.sum(), f"{name}2": (term**2).sum()}
    if len(classes) > MOST_RANKED:
        return sums, {}
    by_class = {}
    for place, name in enumerate(classes):
        bucket = np.searchsorted(BOUNDS, probability[:, place], side="right")
        counts = np.bincount(bucket), np.bincount(bucket, actual == place)
        filled = np.flatnonzero(counts[0]).tolist()
        by_class[str(name)] = {at: (int(counts[0][at]), int(counts[1][at])) for at in filled}
    return sums, by_class


def _regression(predicted: Floats, actual: Floats, center: float) -> Sums:
    d, z = predicted - actual, actual - center
    nonzero = np.abs(actual) >= _SMALLEST
    share = np.abs(d[nonzero] / actual[nonzero])
    return {
        "absolute": np.abs(d).sum(),
        "share": share.sum(),
        "share2": (share**2).sum(),
        "share_rows": nonzero.sum(),
        **{f"z{power}": (z**power).sum() for power in range(1, 5)},
        "wz": (d**2 * z).sum(),
        "wzz": (d**2 * z**2).sum(),
        **_errors(d),
    }


def _errors(d: Floats) -> Sums:
    return {"square": (d**2).sum(), "square2": (d**4).sum()}


def _numbers(values: Iterable[Any]) -> Floats:
    """Returns JSON numbers; NaN for other JSON."""
    return np.array([each if type(each) in (int, float) else math.nan for each in values], dtype=np.float64)


def _places(values: Iterable[Any], classes: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Returns the place of each value among two classes; -1 for another JSON value: 1 is not true."""
    places, kind = {each: place for place, each in enumerate(classes)}, type(classes[0])
    return np.array([places.get(each, -1) if type(each) is kind else -1 for each in values])


def _delays(rows: Sequence[Labelled]) -> dict[int, tuple[int, float]]:
    """Returns bucket -> (rows, sum) of the seconds from prediction to observation, see `DELAY_GROWTH`."""
    seconds = np.array(
        [(row.observed_at - time_of(uuid.UUID(row.prediction_id))).total_seconds() for row in rows]
    )
    size = np.abs(seconds)
    steps = np.floor(np.log(np.maximum(size, 1.0)) / math.log(DELAY_GROWTH)) + 1
    buckets, inverse = np.unique(np.where(size < 1, 0, np.sign(seconds) * steps), return_inverse=True)
    counts, sums = np.bincount(inverse), np.bincount(inverse, seconds)
    return {
        int(bucket): (int(count), float(total))
        for bucket, count, total in zip(buckets, counts, sums, strict=True)
    }
