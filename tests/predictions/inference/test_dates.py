"""A model with a date and a datetime, from its declaration to the log, drift reviews and pages."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests import fast_path
from tests.conftest import Post, assert_error
from tests.training.conftest import Declare, declare, shelf  # noqa: F401 (fixtures)
from training import artifacts
from training.models import ModelVersion
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml.schema import Instance
from web.fast_path import FastPath
from web.openapi import json_schema

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "/api/v1/models/orders/predictions/"
DRIFT = "/api/v1/models/orders/drift/"

DECLARATION = """
from vigia_ml import Column, DatasetSchema, Gate, ModelDeclaration

SCHEMA = DatasetSchema(
    columns=(
        Column("ordered", "date", "Of the order.", nullable=True, minimum="1990-01-01", format="%d/%m/%Y"),
        Column("seen_at", "datetime", aliases=("Seen at",)),
        Column("size", "number"),
    ),
    target=Column("price", "number"),
)


def build(seed):
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline

    from vigia_ml.transformers.dates import DateParts

    parts = [
        ("ordered", DateParts(("year", "month", "weekday", "age_days"), reference="2020-01-01"), ["ordered"]),
        ("seen", DateParts(("hour", "minute", "month_sin", "is_weekend", "day_of_year")), ["seen_at"]),
        ("size", "passthrough", ["size"]),
    ]
    return make_pipeline(ColumnTransformer(parts), HistGradientBoostingRegressor(random_state=seed))


MODEL = ModelDeclaration(
    name="orders", title="Orders", description="", task="regression", schema=SCHEMA, build=build,
    primary_metric="r2", gate=Gate(), policy="always",
)
"""
EDGES: list[dict[str, Any]] = [
    {"ordered": ordered, "seen_at": seen_at, "size": 1.5}
    for ordered, seen_at in [
        ("2024-02-29", "2024-02-29T23:59:59.999999Z"),
        ("2023-12-31", "2024-01-01T00:00:00Z"),
        ("29/02/2000", "1969-12-31T23:59:59.5Z"),
        ("2026-11-30T00:00:00.000Z", "2026-11-30 05:18:09+01"),
        (None, "0001-01-01"),
        ("9999-12-31", "9999-12-31T23:59:59.999999999Z"),
        ("1990-01-01", "1900-02-28t12:00"),
    ]
]


def table(rows: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    ordered = pd.Series(
        np.datetime64("2019-01-01", "us") + rng.integers(0, 1_500, rows).astype("timedelta64[D]")
    )
    seen = pd.Series(
        np.datetime64("2019-01-01", "us") + rng.integers(0, 1_500 * 1_440, rows).astype("timedelta64[m]")
    )
    size = rng.normal(size=rows).round(3)
    price = ordered.dt.month * 3 + seen.dt.hour + size
    ordered[::25] = pd.NaT
    return pd.DataFrame({"ordered": ordered, "seen_at": seen, "size": size, "price": price.round(2)})


@pytest.fixture
def orders(declare: Declare) -> ModelVersion:  # noqa: F811
    model = declare("orders", DECLARATION)
    written = table()
    written["ordered"] = written["ordered"].dt.strftime("%d/%m/%Y")
    dataset = uploads.from_csv(
        model, io.BytesIO(written.to_csv(index=False).encode()), by=None, source="test"
    )
    run = run_requests.request(model, dataset, mode="replace", by=None, activation_reason="wanted")
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert (run.version.status, run.version.engine) == ("active", "onnx"), run.version.engine_note
    return run.version


def expected(version: ModelVersion, rows: list[dict[str, Any]]) -> list[float]:
    """Returns the answers of the version's scikit-learn pipeline."""
    schema = version.dataset_schema
    read = [schema.read(row) for row in rows]
    assert all(isinstance(each, Instance) for each in read), read
    values = [each.values for each in read if isinstance(each, Instance)]
    return list(artifacts.load_pipeline(version).predict(values).values)


def ranges(version: ModelVersion) -> tuple[list[str], ...]:
    """Returns the first and the last month of the training rows, of both columns."""
    columns = version.dataset_schema.columns[:2]
    return tuple(
        [str(each.shown(end))[:7] for end in (each.seen.minimum, each.seen.maximum) if end is not None]
        for each in columns
        if each.seen is not None
    )


def answers_of(response: Any) -> list[float]:
    assert response.status_code == 200, response.content
    return [each["prediction"] for each in response.json()["predictions"]]


def test_a_version_knows_its_dates_and_answers_as_scikit_learn_at_their_edges(
    orders: ModelVersion, post: Post, api: APIClient
) -> None:
    assert ranges(orders) == (["2019-01", "2023-02"], ["2019-01", "2023-01"])
    truth = expected(orders, EDGES)
    assert answers_of(post(ADDRESS, EDGES)) == pytest.approx(truth, rel=1e-9)
    assert [answers_of(post(ADDRESS, row))[0] for row in EDGES] == pytest.approx(truth, rel=1e-9)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["Seen at", "size", "ordered"])
    writer.writeheader()
    writer.writerows(
        {"Seen at": row["seen_at"], "size": row["size"], "ordered": row["ordered"]} for row in EDGES
    )
    assert answers_of(post(ADDRESS, text.getvalue(), content_type="text/csv")) == pytest.approx(
        truth, rel=1e-9
    )

    frame = table().drop(columns="price").head(20)
    records = frame.to_json(orient="records", date_format="iso")
    assert answers_of(post(ADDRESS, records)) == pytest.approx(
        expected(orders, json.loads(records)), rel=1e-9
    )
    path, token = FastPath(), api._credentials["HTTP_AUTHORIZATION"]
    fast_path.ask(path, ADDRESS, EDGES[0], token)
    for row in (EDGES[0], EDGES[3], EDGES[4]):
        reply = fast_path.ask(path, ADDRESS, row, token)
        assert reply is not None, "the fast path reads dates"
        assert reply.status == 200

    warned = post(ADDRESS, EDGES[5]).json()["predictions"][0]["warnings"]
    assert [each["field"] for each in warned] == ["ordered", "seen_at"]


def test_the_log_holds_canonical_texts(orders: ModelVersion, post: Post, api: APIClient) -> None:
    rows = [EDGES[3] | {"_key": "a"}, EDGES[4] | {"_key": "b"}]
    assert post(ADDRESS, rows).status_code == 200
    inputs = {row["key"]: row["inputs"] for row in api.get(ADDRESS).json()["predictions"]}
    assert inputs["a"] == {"ordered": "2026-11-30", "seen_at": "2026-11-30T04:18:09Z", "size": 1.5}
    assert inputs["b"] == {"ordered": None, "seen_at": "0001-01-01T00:00:00Z", "size": 1.5}
    exported = b"".join(api.get(f"{ADDRESS}?format=csv").streaming_content).decode()
    lines = {row["key"]: row for row in csv.DictReader(io.StringIO(exported))}
    assert lines["a"]["input.seen_at"] == "2026-11-30T04:18:09Z"
    assert (lines["a"]["input.ordered"], lines["b"]["input.ordered"]) == ("2026-11-30", "")
    again = [{name: lines[key][f"input.{name}"] for name in inputs["a"]} for key in ("a", "b")]
    text = "\n".join([",".join(again[0]), *(",".join(row.values()) for row in again)])
    before = answers_of(post(ADDRESS, rows))
    assert answers_of(post(ADDRESS, text, content_type="text/csv")) == before


def test_wrong_dates_are_refused_with_row_field_and_advice(orders: ModelVersion, post: Post) -> None:
    wrong = [
        EDGES[0] | {"ordered": "2023-02-29"},
        EDGES[0] | {"seen_at": 1_764_480_000_000},
        EDGES[0] | {"ordered": "1989-12-31"},
        EDGES[0] | {"ordered": "2024-02-29T05:00"},
        EDGES[0] | {"seen_at": None},
    ]
    details = assert_error(post(ADDRESS, wrong), 400, "invalid_input")["details"]
    assert [(each["row"], each["field"], each["code"]) for each in details] == [
        (0, "ordered", "not_a_date"),
        (1, "seen_at", "not_a_datetime"),
        (2, "ordered", "out_of_bounds"),
        (3, "ordered", "not_a_date"),
        (4, "seen_at", "null_not_allowed"),
    ]
    assert details[0]["message"] == "ordered must be a day of the calendar"
    assert 'date_format="iso"' in details[1]["message"]
    assert details[2]["message"] == "ordered must be at least 1990-01-01"


def test_a_drift_review_shows_dates_and_expects_time_to_pass(
    orders: ModelVersion, post: Post, api: APIClient
) -> None:
    rows = json.loads(table(120).drop(columns="price").to_json(orient="records", date_format="iso"))
    for number, row in enumerate(rows):
        row["seen_at"] = f"2026-{number % 11 + 1:02d}-{number % 28 + 1:02d}T05:18:{number % 60:02d}Z"
        row["ordered"] = row["ordered"] and "2019-03-04"
    assert post(ADDRESS, rows).status_code == 200
    window = {"since": (timezone.now() - dt.timedelta(hours=1)).isoformat()}
    response = api.get(DRIFT, window)
    assert response.status_code == 200, response.content
    found = {each["column"]: each for each in response.json()["findings"]}
    ordered, seen_at = found["ordered"], found["seen_at"]
    assert (ordered["kind"], ordered["verdict"]) == ("date", "drift")
    assert ordered["bins"]["labels"][0].startswith("below 2019-01-")
    assert all(label[:1] in "2ba" or label == "missing" for label in ordered["bins"]["labels"][:-1])
    assert sum(ordered["bins"]["window"]) == 120
    assert (seen_at["kind"], seen_at["verdict"], seen_at["outside"]) == ("time", "notice", 1.0)
    assert seen_at["bins"]["labels"][-2].startswith("above 2023-01-")
    assert (
        "At least 95 % of the dates in seen_at are later than all training rows: time passes, so this is no "
        "drift." in response.json()["reason"]
    )
    page = api.get(f"{DRIFT}{response.json()['id']}/", {"format": "html"}).content.decode()
    assert "above 2023-01-" in page


def test_pages_forms_and_the_card_show_dates(
    orders: ModelVersion, post: Post, api: APIClient, client: Client
) -> None:
    assert post(ADDRESS, EDGES).status_code == 200
    client.force_login(User.objects.create_superuser("boss"))
    row = Prediction.objects.order_by("-id").first()
    assert row is not None
    page = client.get(reverse("admin:predictions_prediction_change", args=[row.pk])).content.decode()
    assert "1990-01-01" in page
    assert "1900-02-28T12:00:00Z" in page
    version = client.get(reverse("admin:training_modelversion_change", args=[orders.pk])).content.decode()
    assert "to 2023-0" in version
    card = api.get(f"/api/v1/models/orders/versions/{orders.number}/card/").content.decode()
    assert "at least 1990-01-01" in card
    assert "to 2023-0" in card
    watch = client.get(
        reverse("watch", args=[orders.registered_model_id]), {"window": "24h", "column": "ordered"}
    )
    assert watch.status_code == 200
    assert "2019-01-" in watch.content.decode()
    form = api.get(ADDRESS, headers={"accept": "text/html"}).content.decode()
    assert 'type="date"' in form


def test_the_openapi_schema_has_the_formats_of_dates(orders: ModelVersion) -> None:
    properties = json_schema(orders.dataset_schema)["properties"]
    assert properties["ordered"] == {
        "type": ["string", "null"],
        "format": "date",
        "description": "Of the order. At least 1990-01-01. Also accepted in the form %d/%m/%Y.",
    }
    assert properties["seen_at"]["format"] == "date-time"


def test_rows_of_the_log_and_of_an_older_dataset_train_the_next_version(
    orders: ModelVersion,
    post: Post,
    declare: Declare,  # noqa: F811
) -> None:
    # Longer, because Python takes old bytecode for a file of the same size and second.
    declare("orders", DECLARATION.replace('minimum="1990-01-01"', 'minimum="1980-01-01"') + "\n# wider\n")
    written = table(60).assign(ordered="1985-06-07")
    model = orders.registered_model
    dataset = uploads.from_csv(
        model, io.BytesIO(written.to_csv(index=False).encode()), by=None, source="more"
    )
    run = run_requests.request(model, dataset, mode="append", by=None, activation_reason="wanted")
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert run.version.dataset.rows == 560
    seen = run.version.dataset_schema.columns[0].seen
    assert seen is not None
    assert run.version.dataset_schema.columns[0].shown(seen.minimum or 0.0) == "1985-06-07"
