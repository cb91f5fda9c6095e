"""Replays of several classes: the probability of every class, logged and of the candidate."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from predictions.models import Replay
from predictions.replays import jobs as replays
from predictions.replays.accumulator import ReplayAccumulator
from predictions.replays.rescoring import Answers
from predictions.replays.summary import Logged
from tests.conftest import Post
from tests.grapes import csv_of
from training.jobs import leases
from training.models import ModelVersion, TrainingRun
from training.runs import requests as run_requests
from vigia_ml.drift.statistics import kolmogorov_smirnov
from vigia_ml.evaluation import outputs, weighted_metrics

OF_EVERY_CLASS = ("roc_auc", "log_loss", "brier")


def piece(
    number: int, classes: tuple[str, ...], arrays: list[Any], actual: list[str | None], start: int
) -> Logged:
    """Returns rows that version `number` logged; a row without an array is older than the log's column."""
    ids = [str(uuid.UUID(int=start + at)) for at in range(len(arrays))]
    numbers = [array or [1.0, *[0.0] * (len(classes) - 1)] for array in arrays]
    return Logged(
        version=number,
        ids=ids,
        names=("x",),
        cells=[[0.0]] * len(ids),
        predictions=[classes[int(np.argmax(row))] for row in numbers],
        probabilities=[max(row) for row in numbers],
        actuals={name: value for name, value in zip(ids, actual, strict=True) if value is not None},
        by_class=arrays,
        classes=classes,
    )


def answers(classes: tuple[str, ...], matrix: Any, places: list[int]) -> Answers:
    numbers = np.asarray(matrix)
    return Answers(np.array(places), labels=numbers.argmax(axis=1), probabilities=numbers, classes=classes)


def test_both_sides_have_the_metrics_of_the_evaluation_on_the_same_rows() -> None:
    random, classes = np.random.default_rng(4), ("a", "b", "c")
    logged, new = random.dirichlet([1, 1, 1], 900), random.dirichlet([2, 1, 1], 900)
    truth = random.choice([*classes, "unknown"], 900, p=[0.4, 0.3, 0.29, 0.01])
    tally = ReplayAccumulator("multiclass")
    compared = []
    for start in range(0, 900, 300):
        rows = range(start, start + 300)
        arrays = [logged[at].tolist() if at % 5 else None for at in rows]  # a fifth is older
        actual = [str(truth[at]) if at % 2 else None for at in rows]  # half have outcomes
        answered = [at - start for at in rows if at % 7]  # the candidate does not answer a seventh
        part = piece(1, classes, arrays, actual, start)
        tally.add(part, answers(classes, new[[start + at for at in answered]], answered))
        compared += [at for at in rows if at % 5 and at % 7]
    summary = tally.summary()
    judged = [at for at in compared if at % 2]
    assert summary.with_probabilities == len(compared) < summary.answered
    assert summary.outcomes.with_probabilities == len(judged) < summary.outcomes.rows
    for side, matrix in ((summary.outcomes.before, logged), (summary.outcomes.after, new)):
        expected = weighted_metrics.metrics(
            outputs.Answers("multiclass", truth[judged], classes=classes, probability=matrix[judged])
        )
        for name in OF_EVERY_CLASS:
            assert side[name] == pytest.approx(expected[name], abs=2e-3 if name == "roc_auc" else 1e-12)
    shown = {each["label"]: each for each in summary.classes}
    assert set(shown) == set(classes)
    for at, label in enumerate(classes):
        assert shown[label]["mean_before"] == pytest.approx(logged[compared, at].mean())
        assert shown[label]["mean_after"] == pytest.approx(new[compared, at].mean())
        both = np.sort(np.concatenate([logged[compared, at], new[compared, at]]))
        counts = [np.histogram(side[compared, at], [-1, *both])[0] for side in (logged, new)]
        assert shown[label]["ks"] == pytest.approx(kolmogorov_smirnov(*counts), abs=0.01)
    distances = [each["ks"] for each in summary.classes]
    assert distances == sorted(distances, reverse=True)
    assert shown["a"]["psi"] > 0.05, "the candidate is surer of a"


def test_a_class_that_a_version_does_not_know_has_probability_0() -> None:
    tally = ReplayAccumulator("multiclass")
    new = ("a", "b", "c")
    tally.add(
        piece(1, ("a", "b"), [[0.25, 0.75]] * 2, ["a", "c"], 0), answers(new, [[0.5, 0.3, 0.2]] * 2, [0, 1])
    )
    tally.add(
        piece(2, ("b", "d"), [[0.5, 0.5]] * 2, ["d", None], 2), answers(new, [[0.1, 0.7, 0.2]] * 2, [0, 1])
    )
    summary = tally.summary()
    means = {each["label"]: (each["mean_before"], each["mean_after"]) for each in summary.classes}
    assert means == {
        "a": pytest.approx((0.125, 0.3)),
        "b": pytest.approx((0.625, 0.5)),
        "c": pytest.approx((0.0, 0.2)),
        "d": pytest.approx((0.25, 0.0)),
    }
    assert all(each["psi"] is not None and each["ks"] is not None for each in summary.classes)
    losses = -np.log([0.25, 1e-15, 0.5])
    assert summary.outcomes.before["log_loss"] == pytest.approx(losses.mean())


def test_rows_of_an_older_log_have_decisions_only() -> None:
    tally = ReplayAccumulator("multiclass")
    part = piece(1, ("a", "b"), [None, None], ["a", "b"], 0)
    tally.add(part, answers(("a", "b"), [[0.9, 0.1], [0.2, 0.8]], [0, 1]))
    summary = tally.summary()
    assert (summary.with_probabilities, summary.classes) == (0, [])
    assert set(summary.outcomes.after) == {"accuracy", "precision", "recall", "f1"}
    assert ReplayAccumulator("binary").summary().with_probabilities is None


@pytest.mark.django_db(transaction=True)
def test_a_replay_reads_every_class_from_the_log(grapes: ModelVersion, post: Post) -> None:
    rows = csv_of(80, seed=3).decode().splitlines()
    body = "\n".join(row.rpartition(",")[0] for row in rows)
    given = post("/api/v1/models/grapes/predictions/", body, content_type="text/csv").json()["predictions"]
    outcomes = [
        {"prediction": each["id"], "actual": row.rpartition(",")[2]}
        for each, row in zip(given, rows[1:], strict=True)
    ]
    assert post("/api/v1/models/grapes/outcomes/", outcomes).status_code == 200
    model = grapes.registered_model
    run = run_requests.request(model, grapes.dataset, mode=TrainingRun.Mode.REPLACE, by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    since, until = replays.window({})
    row = replays.request(run.version, since, until, by=None)
    assert leases.execute(Replay, row.pk)
    row.refresh_from_db()
    result = row.result
    assert result is not None
    assert (result["rows"], result["with_probabilities"]) == (80, 80)
    assert result["outcomes"]["with_probabilities"] == 80
    before, after = result["outcomes"]["before"], result["outcomes"]["after"]
    assert before == pytest.approx(after), "the same rows train the same version"
    numbers = np.array([list(each["probabilities"].values()) for each in given])
    truth = np.array([each["actual"] for each in outcomes])
    expected = weighted_metrics.metrics(
        outputs.Answers("multiclass", truth, classes=tuple(grapes.classes or ()), probability=numbers)
    )
    assert before["log_loss"] == pytest.approx(expected["log_loss"])
    assert before["brier"] == pytest.approx(expected["brier"])
    assert {each["label"]: each["ks"] for each in result["classes"]} == dict.fromkeys(
        grapes.classes or (), 0.0
    )
