"""Frames in, frames out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from predictions.models import Prediction
from tests.trained import SAMPLES
from tests.vigia_ml.client.conftest import Working
from training.models import TrainingRun
from vigia_ml import Client, Column, DatasetSchema, VigiaError
from vigia_ml.client import InvalidInput
from vigia_ml.client.frames import answers_frame, is_table, key_text, rows_of, tabled
from vigia_ml.client.results import Answer

Customers = Callable[[int], list[dict[str, Any]]]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def frame(customers: Customers) -> pd.DataFrame:
    """A frame as notebooks hold them: categoricals, numpy integers, a column with gaps, an index of names."""
    frame = pd.DataFrame(customers(40)).drop(columns=["_key"])
    frame["contract"] = frame["contract"].astype("category")
    frame["tenure"] = frame["tenure"].astype("Int64")
    frame["totalcharges"] = frame["totalcharges"].where(frame.index % 3 > 0)
    frame["customer"] = [f"c-{index}" for index in range(40)]
    frame.index = pd.Index([f"row {index % 7}" for index in range(40)], name="place")
    return frame


def test_ten_thousand_rows_in_batches_keep_their_index(client: Client, customers: Customers) -> None:
    frame = pd.DataFrame(customers(10_000)).rename(columns={"_key": "customer"})
    frame.index = frame.index[::-1]
    started = time.monotonic()
    answers = client.predict("churn", frame, key_column="customer", batch_size=1_000, concurrency=4)
    seconds = time.monotonic() - started
    assert answers.index.equals(frame.index)
    logged = dict(Prediction.objects.values_list("key", "id"))
    assert len(logged) == Prediction.objects.count() == 10_000
    assert [str(logged[key]) for key in frame["customer"]] == answers["id"].tolist()
    assert answers["probability"].between(0, 1).all()
    assert Prediction.objects.values("request_id").distinct().count() == 10
    print(f"10,000 rows in {seconds:.2f} s")


def test_a_frame_is_taken_as_it_is(client: Client, frame: pd.DataFrame, customers: Customers) -> None:
    answers = client.predict("churn", frame, key_column="customer", batch_size=15)
    assert answers.index.equals(frame.index)
    assert list(answers.columns)[:2] == ["prediction", "probability"]
    assert {"id", "warnings", "version"} <= set(answers.columns)
    assert answers["probability"].dtype == np.float64
    assert answers["version"].tolist() == [1] * 40
    for key, row in zip(frame["customer"], answers.itertuples(), strict=True):
        logged = Prediction.objects.get(pk=row.id)
        assert logged.key == key
        assert logged.probability == row.probability
    assert Prediction.objects.get(key="c-3").inputs["totalcharges"] is None
    for probability, by_class in zip(answers["probability"], answers["probabilities"], strict=True):
        assert by_class == {"false": pytest.approx(1 - probability), "true": probability}
    wide = client.predict("churn", frame, key_column="customer", probabilities="columns")
    assert (wide["probability_true"] == wide["probability"]).all()


def test_arrays_and_series_are_rows_in_the_order_of_the_columns(client: Client, frame: pd.DataFrame) -> None:
    rows = frame.drop(columns=["customer"])
    expected = client.predict("churn", rows)["probability"].to_numpy()
    names = [column["name"] for column in (client.model("churn").schema or {})["columns"]]
    array = rows[names].to_numpy(dtype=object)
    assert (client.predict("churn", array)["probability"].to_numpy() == expected).all()
    one = client.predict("churn", rows.reset_index(drop=True).iloc[3])
    assert (one.index.tolist(), one["probability"].tolist()) == ([3], [expected[3]])
    with pytest.raises(VigiaError, match="the rows have 3 columns, the schema has"):
        client.predict("churn", array[:, :3])


def test_texts_are_rows_of_a_model_with_one_column() -> None:
    schema = DatasetSchema((Column("review", "text"),), Column("tone", "category"))
    for rows in (["good", "bad"], np.array(["good", "bad"]), pd.Series(["good", "bad"], name="review")):
        assert is_table(rows)
        table = tabled(rows, schema)
        assert rows_of(table, schema) == [{"review": "good"}, {"review": "bad"}]
    assert not is_table([{"review": "good"}])
    assert not is_table([])


def test_invalid_rows_come_back_as_a_frame(client: Client, frame: pd.DataFrame) -> None:
    frame["tenure"] = frame["tenure"].astype(object)
    frame.iloc[[3, 20], list(frame.columns).index("tenure")] = ["abc", -5]
    with pytest.raises(InvalidInput) as caught:
        client.predict("churn", frame, key_column="customer", batch_size=10, concurrency=1)
    assert caught.value.details[0]["row"] == 3
    already = Prediction.objects.count()
    answers, faults = client.predict("churn", frame, key_column="customer", batch_size=10, errors="frame")
    assert answers.index.equals(frame.index)
    assert answers["prediction"].isna().to_numpy().nonzero()[0].tolist() == [3, 20]
    assert faults["row"].tolist() == [3, 20]
    assert faults.index.tolist() == ["row 3", "row 6"]
    assert set(faults.columns) == {"row", "field", "code", "message", "value"}
    assert faults["field"].tolist() == ["tenure", "tenure"]
    assert Prediction.objects.count() == already + 38


def test_an_empty_frame_gives_an_empty_frame(client: Client, frame: pd.DataFrame) -> None:
    answers, faults = client.predict("churn", frame.iloc[:0].drop(columns=["customer"]), errors="frame")
    assert len(answers) == len(faults) == 0
    assert {"prediction", "id", "warnings", "version"} <= set(answers.columns)


def test_a_column_that_the_model_does_not_know_is_named(client: Client, frame: pd.DataFrame) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.predict("churn", frame)
    assert {(each["field"], each["code"]) for each in caught.value.details} == {("customer", "unknown_field")}


def test_a_frame_with_the_target_trains_and_evaluates(client: Client, working: Working) -> None:
    frame = pd.read_csv(SAMPLES / "churn.csv")
    frame["TotalCharges"] = pd.to_numeric(frame["TotalCharges"], errors="coerce")
    assert client.evaluate("churn", frame.head(300)).rows == 300
    assert len(client.predict("churn", frame.head(5))) == 5, "the target is no input"
    with working():
        run = client.train("churn", frame, mode="replace")
    assert TrainingRun.objects.get(pk=run.id).upload.rows == len(frame)


def test_probabilities_are_dicts_or_columns() -> None:
    answers = [
        Answer(id="1", prediction="a", probability=0.7, probabilities={"a": 0.7, "b": 0.3}, version=1),
        None,
    ]
    index = pd.Index([5, 9])
    frame = answers_frame(answers, index, "dict")
    assert frame["probabilities"].iloc[0] == {"a": 0.7, "b": 0.3}
    wide = answers_frame(answers, index, "columns")
    assert wide["probability_b"].iloc[0] == 0.3
    assert wide["probability_b"].dtype == np.float64
    assert "probabilities" not in wide
    assert "probability_a" not in answers_frame(answers, index, "none")
    regression = answers_frame([Answer(id="1", prediction=3.5, version=2)], pd.Index([0]), "dict")
    assert list(regression.columns) == ["prediction", "id", "warnings", "version"]


def test_keys_are_text_whatever_their_column_holds() -> None:
    keys = ["a", 7, np.int64(7), 7.0, np.float64(7), 7.5, None, float("nan"), pd.NA, pd.NaT]
    assert [key_text(key) for key in keys] == ["a", "7", "7", "7", "7", "7.5", None, None, None, None]


def test_the_log_as_a_frame_has_a_column_for_each_input(client: Client, frame: pd.DataFrame) -> None:
    client.predict("churn", frame, key_column="customer")
    log = client.log("churn", page_size=15).to_frame()
    assert len(log) == 40
    assert set(log["input.contract"]) == {"month-to-month"}
    assert pd.api.types.is_datetime64_any_dtype(log["at"])


def test_a_parquet_file_on_the_command_line(
    client: Client, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from vigia_ml.cli.app import app

    monkeypatch.setenv("VIGIA_URL", client.url)
    monkeypatch.setenv("VIGIA_KEY", client._target.key)
    source, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    frame.reset_index(drop=True).to_parquet(source)
    done = CliRunner().invoke(
        app, ["predict", "churn", str(source), "--key-column", "customer", "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    written = pd.read_parquet(out)
    assert Counter(written["_key"]) == Counter(frame["customer"])
    assert written["probability"].between(0, 1).all()
