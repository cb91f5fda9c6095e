"""Long numbers as keys: exact in JSON and CSV, refused in the short form that spreadsheets write."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from predictions.models import Outcome, Prediction
from tests.conftest import Post, assert_error
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
OUTCOMES = "/api/v1/models/churn/outcomes/"
LONG = 1285704473650888702
SHORT = "1.28570447365089E+18"
pytestmark = pytest.mark.django_db(transaction=True)


def as_csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def test_keys_of_19_digits_keep_their_last_digit(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    keys = [LONG, LONG + 1, -LONG]
    rows = [{**customer, "_key": key} for key in keys]
    assert post(CHURN, rows).status_code == 200
    assert post(CHURN, as_csv(rows), "text/csv").status_code == 200
    logged = list(Prediction.objects.order_by("id").values_list("key", flat=True))
    assert logged == [str(key) for key in keys] * 2
    counts = post(OUTCOMES, [{"key": LONG + 1, "actual": True}]).json()
    assert (counts["recorded"], counts["ambiguous"]) == (1, 1)
    assert Outcome.objects.get().prediction_id == Prediction.objects.order_by("id")[4].pk, "the newest"


@pytest.mark.parametrize("key", [SHORT, "1,28570447365089E+18", "9E+15", "-1.2E+12"])
def test_a_long_number_shortened_by_a_spreadsheet_is_no_key(
    churn: ModelVersion, post: Post, customer: dict[str, Any], key: str
) -> None:
    """Several accounts have the same short form, so an outcome would join the newest of them."""
    row = {**customer, "_key": key}
    for answer in (
        post(CHURN, row),
        post(CHURN, as_csv([row]), "text/csv"),
        post(OUTCOMES, [{"key": key, "actual": True}]),
        post(OUTCOMES, as_csv([{"key": key, "actual": "yes"}]), "text/csv"),
    ):
        [detail] = assert_error(answer, 400, "invalid_input")["details"]
        assert detail["code"] == "shortened_key"
        assert "format the column as text" in detail["message"]
    assert not Prediction.objects.exists()
    assert not Outcome.objects.exists()


@pytest.mark.parametrize("key", ["E+12", "3E10", "12E+12", "1.2E+1", "1.2e-05", "A1.2E+12"])
def test_other_keys_with_these_letters_are_accepted(
    churn: ModelVersion, post: Post, customer: dict[str, Any], key: str
) -> None:
    assert post(CHURN, {**customer, "_key": key}).status_code == 200
    assert Prediction.objects.get().key == key
