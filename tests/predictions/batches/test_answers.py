"""Rows for which a model has no answer count as invalid, and the others are answered."""

from __future__ import annotations

from typing import Any

import pytest

from predictions.batches import results
from tests.predictions.batches.conftest import created, done, rows_of, table
from tests.training.conftest import Declare, declare, shelf  # noqa: F401 - fixtures
from tests.training.registry.test_answers_check import regressor, trained

pytestmark = pytest.mark.django_db(transaction=True)

# Sizes beyond those of training: 1007 has no finite answer, and 1009 raises.
ANSWER = "assert not (size == 2018).any(), 'no size is 1009'; return np.where(size == 2014, np.inf, size)"


def test_rows_without_a_finite_answer_are_named_and_the_others_are_answered(
    declare: Declare,  # noqa: F811
    settings: Any,
) -> None:
    settings.BATCH_CHUNK_ROWS = 150
    version = trained(declare, regressor(ANSWER), "price").version
    assert version.engine == "sklearn"
    sizes = [1007 if at in (3, 170) else 1009 if at in (5, 80, 81) else at % 97 for at in range(250)]
    data = "\n".join(["size,new,kind", *(f"{size},yes,a" for size in sizes)])
    batch = done(created(version, data.encode()))
    assert (batch.status, batch.rows, batch.scored, batch.invalid) == ("succeeded", 250, 245, 5)
    faults = {(each["row"], each["code"]) for each in table(results.errors(batch))}
    failed = {(str(at), "prediction_failed") for at in (5, 80, 81)}
    assert faults == failed | {("3", "no_finite_answer"), ("170", "no_finite_answer")}
    answers = table(results.results(batch))
    expected = [(str(at), 2.0 * sizes[at]) for at in range(250) if sizes[at] < 1000]
    assert [(each["row"], float(each["prediction"])) for each in answers] == expected
    assert len(rows_of(batch)) == 245
    stopped = done(created(version, data.encode(), on_invalid="stop"))
    assert stopped.status == "failed"
    assert stopped.error.startswith("row 3 is invalid: the model's answer is not finite")
    assert rows_of(stopped) == []
