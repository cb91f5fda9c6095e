"""Metrics of a version on labelled rows; the evaluation trains nothing and logs no prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Final

from django.conf import settings

from core.errors import TooLarge
from training import providers
from training.models import ModelVersion, RegisteredModel
from training.serving import engine_cache
from training.serving.engine_cache import Served
from vigia_ml.declaration import Task
from vigia_ml.engines import Scores
from vigia_ml.engines.shape import checked
from vigia_ml.errors import VigiaError
from vigia_ml.schema import Fault, Instance, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import read_all

ROWS_AT_ONCE: Final = 2_000
SEED: Final = 1


def from_instances(model: RegisteredModel, rows: Sequence[object], *, number: int | None) -> dict[str, Any]:
    """Evaluates a version on decoded JSON objects, read by the version's schema.

    Parameters
    ----------
    number : number of the version; None: the active version.

    Raises
    ------
    InvalidRows : lists every fault. TooLarge : more than `settings.PREDICT_MAX_ROWS` rows.
    NoActiveVersion, UnknownVersion, ArtifactError : there is no version to evaluate.
    UnsupportedForModel : the model is not a model of rows.
    """
    providers.require_rows(model, "labelled rows")
    served = engine_cache.served(model, number)
    _limit(len(rows))
    schema = served.schema
    return _evaluated(
        served, read_all(rows, lambda raw: schema.read(raw, with_target=True, weight_required=False))
    )


def from_csv(
    model: RegisteredModel, stream: BinaryIO, dialect: Told, *, number: int | None
) -> dict[str, Any]:
    """Evaluates a version on a CSV with a header; see `from_instances`."""
    from vigia_ml.schema.csv_reader import CsvReader

    providers.require_rows(model, "labelled rows")
    served = engine_cache.served(model, number)
    reader = CsvReader(stream, served.schema, with_target=True, told=dialect, weight_required=False)
    return _evaluated(served, reader.instances(_limit))


def _limit(rows: int) -> None:
    limit = settings.PREDICT_MAX_ROWS
    if rows > limit:
        message = f"too many rows; one request evaluates at most {limit:,} rows: send several requests"
        raise TooLarge(message, code="too_many_rows")


def _evaluated(served: Served, rows: Sequence[Instance]) -> dict[str, Any]:
    from vigia_ml.evaluation import bootstrap, curves
    from vigia_ml.evaluation.outputs import plain
    from vigia_ml.evaluation.weighted_metrics import metrics, statistics

    truth, weight = [row.target for row in rows], _weights(served, rows)
    answers = _answers(served, _scores(served, rows), truth, weight)
    values = metrics(answers)
    times = bootstrap.resamples_for(len(rows), answers.rankings)
    [drawn] = bootstrap.resampled([statistics(answers)], len(rows), times, SEED)
    return {
        "model": served.model_name,
        "version": served.number,
        "rows": len(rows),
        "metrics": {name: plain(value) for name, value in values.items()},
        "intervals": {name: bootstrap.interval(drawn[name]) if drawn else None for name in values},
        "confidence": bootstrap.CONFIDENCE,
        "baseline": _baseline(served, truth, weight),
        "confusion": curves.confusion(answers) if answers.classes else None,
        "notes": _notes(values, truth, times),
    }


def _scores(served: Served, rows: Sequence[Instance]) -> list[Scores]:
    """Returns the engine's answers in parts of `ROWS_AT_ONCE` rows."""
    parts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = [row.values for row in rows[start : start + ROWS_AT_ONCE]]
        try:
            parts.append(checked(served.engine.predict(part), len(part)))
        except Exception as error:  # a step of the pipeline may raise any error; it must not become a 500
            message = f"the model has no answer to these values: {error}"
            raise VigiaError(message, code="prediction_failed") from error
    faults = [
        Fault(None, "no_finite_answer", "the model's answer is not finite", row=position)
        for position, numbers in enumerate(_numbers(parts))
        if not all(map(math.isfinite, numbers))
    ]
    if faults:
        raise InvalidRows(faults, rows=len(rows), bad=len(faults))
    return parts


def _numbers(parts: Sequence[Scores]) -> Iterable[Sequence[float]]:
    for part in parts:
        yield from (
            part.probabilities if part.probabilities is not None else ([value] for value in part.values)
        )


def _weights(served: Served, rows: Sequence[Instance]) -> Any:
    """Returns the rows' weights (n,), a row without one counts once; None where the schema names none."""
    import numpy as np

    if served.schema.weight is None:
        return None
    weights = np.array([row.weight for row in rows], dtype=np.float64)
    if not weights.any():
        name = served.schema.weight
        raise InvalidRows.single(name, "all_weights_zero", f"every row's {name} is 0: send positive weights")
    return weights


def _answers(served: Served, parts: Sequence[Scores], truth: Sequence[Any], weight: Any) -> Any:
    import numpy as np

    from vigia_ml.evaluation import Answers

    numbers = np.array(list(_numbers(parts)), dtype=np.float64)
    if parts[0].probabilities is None:
        return Answers(
            "regression", np.array(truth, dtype=np.float64), predicted=numbers[:, 0], weight=weight
        )
    classes = tuple(parts[0].classes)
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    labels = np.empty(len(truth), dtype=object)
    labels[:] = truth
    threshold = served.threshold if served.threshold is not None else 0.5
    return Answers(task, labels, threshold, classes, numbers, weight=weight)


def _baseline(served: Served, truth: Sequence[Any], weight: Any) -> dict[str, float | None] | None:
    """Returns the metrics of the baseline on these rows; None for a version without a stored baseline.

    The baseline never reads the features: it answers with the training part's mean or class shares.
    """
    import numpy as np

    from vigia_ml.evaluation.outputs import plain
    from vigia_ml.evaluation.weighted_metrics import metrics

    stored = ModelVersion.objects.values_list("evaluation", flat=True).get(pk=served.version_id)
    prior = (stored or {}).get("prior")
    if not prior:
        return None
    if "mean" in prior:
        scores = Scores([prior["mean"]] * len(truth))
    else:
        shares = [prior["shares"]] * len(truth)
        likeliest = prior["classes"][int(np.argmax(prior["shares"]))]
        scores = Scores([likeliest] * len(truth), shares, prior["classes"])
    answers = _answers(served, [scores], truth, weight)
    return {name: plain(value) for name, value in metrics(answers).items()}


def _notes(values: dict[str, float], truth: Sequence[Any], resamples: int) -> list[str]:
    """Returns messages about metrics and intervals that the rows do not define."""
    from vigia_ml.evaluation.bootstrap import FEWEST_ROWS

    notes = []
    undefined = [name for name, value in values.items() if not math.isfinite(value)]
    if undefined:
        same = len(set(truth)) < 2
        reason = "all rows have the same target" if same else "these rows do not define them"
        notes.append(f"{', '.join(undefined)}: null, because {reason}")
    if not resamples:
        notes.append(f"intervals: null, because the request has fewer than {FEWEST_ROWS} rows")
    return notes
