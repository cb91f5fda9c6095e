"""`import_model`: a pickle of elsewhere becomes a version that answers as its author's code does."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.conftest import Post
from tests.trained import SAMPLES
from training.models import ModelVersion, Origin, RegisteredModel, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)
NUMBERS = ["tenure", "monthlycharges", "totalcharges"]


def course_table(csv: Path) -> pd.DataFrame:
    """The course's own lines that read and tidy up the table."""
    df = pd.read_csv(csv)
    df.columns = df.columns.str.lower().str.replace(" ", "_")
    for column in df.select_dtypes(exclude="number").columns:
        df[column] = df[column].astype(str).str.lower().str.replace(" ", "_")
    df["totalcharges"] = pd.to_numeric(df["totalcharges"], errors="coerce").fillna(0)
    df["churn"] = (df["churn"] == "yes").astype(int)
    return df


def course_dicts(df: pd.DataFrame) -> list[dict[str, Any]]:
    features = df.drop(columns=["customerid", "churn"])
    categories = [column for column in features.columns if column not in NUMBERS]
    return features[[*categories, *NUMBERS]].to_dict(orient="records")


def course_pair(csv: Path) -> tuple[DictVectorizer, LogisticRegression]:
    """The course's own lines that fit its model."""
    df = course_table(csv)
    full_train, _ = train_test_split(df, test_size=0.2, random_state=1)
    vectorizer = DictVectorizer(sparse=False)
    model = LogisticRegression(C=1.0, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lbfgs stops at the course's number of iterations
        model.fit(vectorizer.fit_transform(course_dicts(full_train)), full_train["churn"].values)
    return vectorizer, model


def written(path: Path, value: Any) -> str:
    """Pickles a value and returns the file's digest."""
    path.write_bytes(pickle.dumps(value))
    return digest(path)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("import_model", *map(str, arguments), stdout=out, stderr=out, **options)
    return out.getvalue()


@pytest.fixture
def sample_pair(tmp_path: Path) -> tuple[Path, Any]:
    pair = course_pair(SAMPLES / "churn.csv")
    written(tmp_path / "model.bin", pair)
    return tmp_path / "model.bin", pair


@pytest.mark.real_data
def test_the_courses_published_model_answers_its_customers_as_in_the_course(
    data_dir: Path, tmp_path: Path, post: Post, customer: dict[str, Any]
) -> None:
    sha256 = written(tmp_path / "model.bin", course_pair(data_dir / "telco_churn.csv"))
    said = run(
        "churn", tmp_path / "model.bin", "--sha256", sha256, "--data", data_dir / "telco_churn.csv",
        "--activate", "the course's model",
    )  # fmt: skip
    assert "version 1 is active" in said, said

    answers = [
        post("/predict", row).json()
        for row in (
            {"customerid": "8879-zkjof", **customer},
            {**customer, "tenure": 24, "totalcharges": 716.4},
        )
    ]
    assert answers[0]["churn_probability"] == pytest.approx(0.627, abs=0.02)
    assert answers[1]["churn_probability"] == pytest.approx(0.339, abs=0.02)
    assert [answer["churn"] for answer in answers] == [True, False]

    version = ModelVersion.objects.get()
    assert (version.origin, version.engine, version.status) == (Origin.IMPORTED, "onnx", "active")
    assert version.metrics["roc_auc"] > 0.83
    assert version.activations.get().reason == "the course's model"


def test_the_pair_answers_every_row_as_the_authors_code(sample_pair: tuple[Path, Any], post: Post) -> None:
    path, (vectorizer, model) = sample_pair
    said = run(
        "churn", path, "--sha256", digest(path), "--data", SAMPLES / "churn.csv", "--activate", "sample"
    )
    assert "nulls of totalcharges are left out of the dict" in said, said
    assert "the author may have fitted the pipeline on rows that are held out here" in said

    rows = course_dicts(course_table(SAMPLES / "churn.csv"))[:200]
    body = post("/api/v1/models/churn/predictions/", rows).json()
    given = [answer["probability"] for answer in body["predictions"]]
    expected = model.predict_proba(vectorizer.transform(rows))[:, 1]
    np.testing.assert_allclose(given, expected, atol=1e-9)
    run_row = TrainingRun.objects.get()
    assert (run_row.origin, run_row.status, run_row.requested_by) == ("imported", "succeeded", None)


def test_without_a_digest_the_command_prints_it_and_opens_nothing(
    sample_pair: tuple[Path, Any],
) -> None:
    path, _ = sample_pair
    out = io.StringIO()
    with pytest.raises(CommandError, match="compare the digest above with the one that the author published"):
        call_command("import_model", "churn", str(path), "--data", str(SAMPLES / "churn.csv"), stdout=out)
    assert digest(path) in out.getvalue()
    assert "opening" not in out.getvalue()
    with pytest.raises(CommandError, match="it is another file"):
        run("churn", path, "--sha256", "0" * 64, "--data", SAMPLES / "churn.csv")
    assert not TrainingRun.objects.exists()


COURSE = ("--target", "Churn", "--key", "customerID", "--data", SAMPLES / "churn.csv")


def test_a_new_name_creates_a_model_that_other_versions_join(
    sample_pair: tuple[Path, Any], post: Post, api: APIClient
) -> None:
    path, (vectorizer, model) = sample_pair
    with pytest.raises(CommandError, match="--target is missing"):
        run("churn_course", path, "--sha256", digest(path), "--data", SAMPLES / "churn.csv")
    said = run("churn_course", path, "--sha256", digest(path), *COURSE, "--title", "Course")
    assert "version 1 is not active" in said, said

    created = RegisteredModel.objects.get(name="churn_course")
    assert (created.title, created.policy) == ("Course", "manual")
    [row] = course_dicts(course_table(SAMPLES / "churn.csv"))[:1]
    answer = post("/api/v1/models/churn_course/versions/1/predictions/", row).json()["predictions"][0]
    expected = model.predict_proba(vectorizer.transform([row]))[0, 1]
    assert answer["probability"] == pytest.approx(expected, abs=1e-9)

    said = run(
        "churn_course", path, "--sha256", digest(path), "--data", SAMPLES / "churn.csv", "--activate", "again"
    )
    assert "version 2 is active" in said, said
    assert list(created.versions.order_by("number").values_list("number", "origin")) == [
        (1, "imported"),
        (2, "imported"),
    ]
    refused = api.post("/api/v1/models/churn_course/training-runs/", {}, format="json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_trainable")


def test_a_pipeline_of_numbers_with_rows_that_it_never_saw(tmp_path: Path) -> None:
    table = pd.read_csv(SAMPLES / "churn.csv")
    train, test = table.iloc[:1500], table.iloc[1500:]
    train.to_csv(tmp_path / "train.csv", index=False)
    test.to_csv(tmp_path / "test.csv", index=False)
    encoder = ColumnTransformer(
        [("c", OneHotEncoder(), ["InternetService", "PhoneService"])], remainder="passthrough"
    )
    columns = ["InternetService", "PhoneService", "tenure"]
    pipeline = make_pipeline(encoder, LinearRegression()).fit(train[columns], train["MonthlyCharges"])
    joblib.dump(pipeline, tmp_path / "bill.joblib", compress=3)

    said = run(
        "bill", tmp_path / "bill.joblib", "--sha256", digest(tmp_path / "bill.joblib"), "--data",
        tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--target", "MonthlyCharges",
    )  # fmt: skip

    assert "1,500 rows to compare with, 500 held out" in said, said
    assert "held out here" not in said
    version = ModelVersion.objects.get()
    assert (version.train_rows, version.holdout_rows) == (1500, 500)
    expected = r2_score(test["MonthlyCharges"], pipeline.predict(test[columns]))
    assert version.metrics["r2"] == pytest.approx(expected, abs=1e-6)


def test_a_file_that_asks_for_a_command_makes_no_run_and_no_model(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(CommandError, match=r"asks for posix\.system.*do not trust the file"):
        run("mine", tmp_path / "model", "--sha256", digest(tmp_path / "model"), *COURSE)
    assert not RegisteredModel.objects.filter(name="mine").exists()
    assert not TrainingRun.objects.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--holdout", "0.2", "--test", "x.csv"], "choose one"),
        (["--holdout", "1.5"], "between 0.01 and 0.9"),
        (["--timeout", "0"], "1 to 86,400 seconds"),
        (["--fill", "totalcharges"], "write it as COLUMN=VALUE"),
        (["--target", "Churn"], "--target is for a new model; churn declares its columns"),
        (["--fill", "total=0"], "the model has no column 'total'"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_words(
    sample_pair: tuple[Path, Any], options: list[str], words: str
) -> None:
    path, _ = sample_pair
    with pytest.raises(CommandError, match=words):
        run("churn", path, "--sha256", digest(path), "--data", SAMPLES / "churn.csv", *options)
    assert not TrainingRun.objects.exists()


def test_a_name_in_a_file_commands_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"\x80\x04\x8c\x09posix\x1b[2J\x8c\x06system\x93.")
    with pytest.raises(CommandError) as caught:
        run("mine", tmp_path / "model", "--sha256", digest(tmp_path / "model"), *COURSE)
    assert "\x1b" not in str(caught.value)
    assert "posix" in str(caught.value)


class Runs:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code, {})


def test_answers_that_are_not_the_graphs_are_refused_by_the_service(tmp_path: Path) -> None:
    """The file's code has the sandbox to itself, and still brings no version with invented answers."""
    lies = (
        "import vigia_ml.importing.conversion as c, numpy as np\n"
        "true = c._answers\n"
        "c._answers = lambda *a: np.tile([0.01, 0.99], (len(true(*a)), 1))\n"
    )
    pair = course_pair(SAMPLES / "churn.csv")
    sha256 = written(tmp_path / "model.bin", {"pair": pair, "x": Runs(lies)})
    with pytest.raises(CommandError, match=r"run \d+ failed: .*answers"):
        run(
            "churn", tmp_path / "model.bin", "--sha256", sha256, "--data", SAMPLES / "churn.csv",
            "--allow-class", "builtins.exec", "--activate", "trust me",
        )  # fmt: skip
    assert not ModelVersion.objects.exists()


def test_a_faulty_csv_is_reported_row_by_row(sample_pair: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = sample_pair
    rows = (SAMPLES / "churn.csv").read_text().replace("Month-to-month", "Weekly", 1)
    (tmp_path / "rows.csv").write_text(rows)
    out = io.StringIO()
    arguments = ["churn", path, "--sha256", digest(path), "--data", tmp_path / "rows.csv"]
    with pytest.raises(CommandError, match="nothing was imported"):
        call_command("import_model", *map(str, arguments), stdout=out, stderr=out)
    assert "contract must be one of its levels" in out.getvalue()
