"""The demonstration of docs/drift.md on the published file: trained on the first quarter, asked of the last.

Hours of 2011 train the model; those of late 2012 are sent as traffic, in the order of time, and what came of
them follows late. The review has to say what changed, and nothing else.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from predictions.models import DriftReview
from tests.conftest import Post
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import requests as run_requests
from training.runs import uploads

pytestmark = [pytest.mark.real_data, pytest.mark.django_db(transaction=True)]
BIKES = "/api/v1/models/bikes"
Row = dict[str, str]
CHANGED = {"yr", "season", "mnth", "temp", "atemp"}
UNCHANGED = {"hr", "holiday", "weekday", "workingday", "weathersit"}


@pytest.fixture
def quarters(data_dir: Path) -> tuple[list[Row], list[Row]]:
    """Returns the first and the last quarter of the hours."""
    with (data_dir / "bike_hour.csv").open(encoding="utf-8", newline="") as stream:
        hours = list(csv.DictReader(stream))
    size = len(hours) // 4
    return hours[:size], hours[-size:]


@pytest.fixture
def trained(quarters: tuple[list[Row], list[Row]]) -> ModelVersion:
    lookup.sync_catalogue()
    model = RegisteredModel.objects.get(name="bikes")
    dataset = uploads.from_csv(
        model, io.BytesIO(written(quarters[0]).encode()), by=None, source="bike_hour.csv"
    )
    run = run_requests.request(
        model, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason="the first quarter"
    )
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return run.version


def written(rows: list[Row], columns: list[str] | None = None) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def send(post: Post, rows: list[Row]) -> None:
    """Sends rows as traffic, 500 hours per request; `instant` is the client key."""
    for start in range(0, len(rows), 500):
        piece = rows[start : start + 500]
        columns = [name for name in piece[0] if name not in ("casual", "registered", "cnt")]
        response = post(f"{BIKES}/predictions/", written(piece, columns), content_type="text/csv")
        assert response.status_code == 200, response.content[:500]


def send_outcomes(post: Post, rows: list[Row]) -> None:
    outcomes = [{"key": row["instant"], "actual": row["cnt"]} for row in rows]
    text = written(outcomes, ["key", "actual"])
    response = post(f"{BIKES}/outcomes/", text, content_type="text/csv")
    assert response.status_code == 200, response.content[:500]


def reviewed(api: APIClient) -> dict[str, Any]:
    since = timezone.now().replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=1)
    response = api.get(f"{BIKES}/drift/", {"since": since.isoformat()})
    assert response.status_code == 200, response.content
    review: dict[str, Any] = response.json()
    return review


def test_the_last_quarter_shows_its_drifted_columns_and_fallen_quality(
    trained: ModelVersion, quarters: tuple[list[Row], list[Row]], post: Post, api: APIClient
) -> None:
    _, last = quarters
    send(post, last)
    review = reviewed(api)
    verdicts = {each["column"]: each["verdict"] for each in review["findings"]}
    assert review["rows"] == len(last) == 4_344
    assert review["verdict"] == "drift"
    assert {name for name in CHANGED if verdicts[name] == "drift"} == CHANGED
    assert {name for name in UNCHANGED if verdicts[name] == "drift"} == set()
    assert review["quality"][0]["labelled"] == 0
    expected = review["expected"]["metrics"]["mae"]

    send_outcomes(post, last)
    [quality] = reviewed(api)["quality"]
    assert (quality["labelled"], quality["coverage"], quality["fell"]) == (4_344, 1.0, True)
    realised = quality["metrics"]["mae"]
    assert realised["low"] > 3 * quality["holdout"]["mae"]
    assert expected < realised["low"], (
        "what is expected from the answers alone is blind to what people do now"
    )


def test_the_first_quarter_shows_no_drift(
    trained: ModelVersion, quarters: tuple[list[Row], list[Row]], post: Post, api: APIClient
) -> None:
    first, _ = quarters
    sent = random.Random(5).sample(first, 1_500)
    send(post, sent)
    review = reviewed(api)
    assert review["verdict"] in ("stable", "notice"), review["reason"]
    assert review["drifting"] == []
    assert {each["verdict"] for each in review["findings"]} <= {"stable", "notice"}
    assert DriftReview.objects.count() == 1
