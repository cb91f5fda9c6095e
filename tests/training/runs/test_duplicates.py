"""Repeated rows: they stay, a split by row divides them when necessary, and dropped rows are reported."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.core.management import call_command
from django.test import Client

from tests.conftest import Post
from tests.trained import train_sample
from tests.training.admin.test_registry import copy
from training import catalogue
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.registry import lookup
from training.reports import model_card, reproduction
from training.runs import evaluation as judgement
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml import notes
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting.hyperparameter_search import folds
from vigia_ml.schema import Column, DatasetSchema

# R's Titanic table: (class, sex, age) -> (died, survived).
TITANIC = {
    ("1st", "Male", "Child"): (0, 5), ("2nd", "Male", "Child"): (0, 11), ("3rd", "Male", "Child"): (35, 13),
    ("1st", "Female", "Child"): (0, 1), ("2nd", "Female", "Child"): (0, 13),
    ("3rd", "Female", "Child"): (17, 14), ("1st", "Male", "Adult"): (118, 57),
    ("2nd", "Male", "Adult"): (154, 14), ("3rd", "Male", "Adult"): (387, 75),
    ("Crew", "Male", "Adult"): (670, 192), ("1st", "Female", "Adult"): (4, 140),
    ("2nd", "Female", "Adult"): (13, 80), ("3rd", "Female", "Adult"): (89, 76),
    ("Crew", "Female", "Adult"): (3, 20),
}  # fmt: skip


def titanic(path: Path) -> Path:
    lines = ["Class,Sex,Age,Survived"]
    for row, (died, survived) in TITANIC.items():
        lines += [f"{','.join(row)},No"] * died + [f"{','.join(row)},Yes"] * survived
    assert len(lines) == 2_202
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def served(name: str, csv: Path, target: str, *options: str, **row: str) -> tuple[str, ModelVersion]:
    """Returns the output of `startmodel` for a CSV, and the active version trained from it."""
    output = io.StringIO()
    call_command("startmodel", name, str(csv), "--target", target, *options, stdout=output)
    catalogue.names.cache_clear()
    lookup.sync_catalogue()
    model = RegisteredModel.objects.get(name=name)
    with csv.open("rb") as stream:
        dataset = uploads.from_csv(model, stream, by=None, source=csv.name)
    run = run_requests.request(model, dataset, mode="replace", by=None, activation_reason="a test needs it")
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return output.getvalue(), run.version


@pytest.mark.django_db(transaction=True)
def test_the_titanic_is_served_with_its_frequencies(
    shelf: Path, db: None, post: Post, tmp_path: Path
) -> None:
    output, version = served("titanic", titanic(tmp_path / "titanic.csv"), "Survived")
    assert "WARNING" not in output
    assert "2,177 of 2,201 rows (98.9%) repeat an earlier row and are kept" in output
    assert "split: by_row" in output
    assert version.status == "active", version.gate
    assert version.metrics["roc_auc"] == pytest.approx(0.763, abs=0.03)
    assert version.train_rows + version.holdout_rows == 2_201
    rows = [
        {"Class": "1st", "Sex": "Female", "Age": "Adult"},
        {"Class": "3rd", "Sex": "Male", "Age": "Adult"},
    ]
    answers = post("/api/v1/models/titanic/predictions/", rows).json()["predictions"]
    assert answers[0]["probability"] >= 0.9
    assert answers[1]["probability"] == pytest.approx(75 / 462, abs=0.05)


def test_a_run_notes_that_its_rows_were_split_by_row(
    shelf: Path, db: None, api: Any, tmp_path: Path, admin_client: Client
) -> None:
    _, version = served("titanic", titanic(tmp_path / "titanic.csv"), "Survived")
    run = api.get(f"/api/v1/models/titanic/training-runs/{version.run_id}/").json()
    assert (run["split"], run["duplicates_dropped"]) == ("by_row", 0)
    assert [note["code"] for note in run["notes"]] == ["duplicates_kept", "split_by_row"]
    notes = api.get("/api/v1/models/titanic/versions/1/").json()
    assert (notes["split"], notes["notes"]) == ("by_row", run["notes"])
    assert "split: by_row" in model_card.markdown(version)
    page = admin_client.get(f"/admin/training/modelversion/{version.pk}/change/").content.decode()
    assert "split: by_row" in page
    assert reproduction.reproduce(version).reproduced


def test_the_number_of_dropped_rows_is_shown_everywhere(
    shelf: Path, db: None, api: Any, tmp_path: Path, admin_client: Client
) -> None:
    lines = [f"{n % 40},{(n * 7) % 11},{(n % 40) * 2 + (n * 7) % 11}" for n in range(440)]
    csv = tmp_path / "offers.csv"
    csv.write_text("\n".join(["size,rooms,price", *lines, *lines[:60]]) + "\n", encoding="utf-8")
    keep = ("--keep", "size", "rooms")
    output, version = served("offers", csv, "price", "--drop-duplicates", *keep)
    wanted = "60 of 500 rows (12.0%) repeat an earlier row and were dropped"
    assert f"WARNING: {wanted}" in output
    run = api.get(f"/api/v1/models/offers/training-runs/{version.run_id}/").json()
    assert run["duplicates_dropped"] == 60
    assert [(note["level"], note["message"].startswith(wanted)) for note in run["notes"]] == [
        ("warning", True)
    ]
    assert f"**{wanted}".replace("(", "(") in model_card.markdown(version)
    for page in (f"trainingrun/{version.run_id}", f"modelversion/{version.pk}"):
        shown = admin_client.get(f"/admin/training/{page}/change/").content.decode()
        assert wanted in shown
        assert "vg-alert-bad" in shown


def test_few_dropped_rows_give_a_note_and_many_a_warning() -> None:
    [few] = notes.of_rows(1_000, 50, 50, None)
    [many] = notes.of_rows(1_000, 51, 51, None)
    assert (few.level, many.level) == ("info", "warning")
    assert notes.of_rows(1_000, 0, 0, None) == []


# -- the split -----------------------------------------------------------------------------------------


def frame_of(rows: list[tuple[str, str]], repeat: int = 1) -> tuple[pd.DataFrame, pd.Series[Any]]:
    frame = pd.DataFrame(rows * repeat, columns=["a", "b"])
    return frame, pd.Series([n % 3 == 0 for n in range(len(frame))])


def decided(frame: pd.DataFrame) -> int | None:
    return evaluation.by_row_from(evaluation.digests(frame))


def test_few_distinct_feature_rows_are_split_by_row() -> None:
    frame, _ = frame_of([("x", "1"), ("y", "1"), ("y", "2")], repeat=100)
    assert decided(frame) == 1


@pytest.mark.parametrize("times", [1, 2, 3, 10])
def test_a_file_with_repeated_rows_is_split_by_features(times: int) -> None:
    """Copies on both sides would reward memorised rows."""
    frame, target = frame_of([(str(n), str(n % 7)) for n in range(300)], repeat=times)
    assert decided(frame) is None
    held = evaluation.holdout_mask(frame, 0.2, 1, target, decided(frame))
    assert not set(map(tuple, frame[held].to_numpy())) & set(map(tuple, frame[~held].to_numpy()))


def test_only_a_very_common_row_is_split_by_row() -> None:
    rows = [("zero", "0")] * 120 + [(str(n), "1") for n in range(200)] * 2
    frame, target = frame_of(rows)
    assert decided(frame) == 26
    held = evaluation.holdout_mask(frame, 0.2, 1, target, 26)
    zeros = (frame["a"] == "zero").to_numpy()
    assert 0.1 < held[zeros].mean() < 0.3
    apart = frame[~zeros]
    sides = pd.Series(held[~zeros], index=apart.index).groupby(apart["a"]).nunique()
    assert (sides == 1).all()


def test_rows_keep_their_side_when_rows_are_appended() -> None:
    frame, target = frame_of([("x", "1"), ("y", "1"), ("y", "2")], repeat=100)
    held = evaluation.holdout_mask(frame, 0.2, 1, target, 1)
    longer, more = (
        pd.concat([frame, frame], ignore_index=True),
        pd.concat([target, target], ignore_index=True),
    )
    again = evaluation.holdout_mask(longer, 0.2, 1, more, 1)
    assert (again[: len(frame)] == held).all()
    assert 0.12 < held.mean() < 0.28
    assert not np.array_equal(held, evaluation.holdout_mask(frame, 0.2, 2, target, 1))


def test_every_fold_of_rows_split_by_row_holds_every_feature_row() -> None:
    frame, target = frame_of([("x", "1"), ("y", "1"), ("y", "2")], repeat=100)
    dealt = folds("binary", frame, target, seed=1, by_row_from=1)
    assert np.array_equal(np.bincount(dealt), [60] * 5)
    assert all(len(frame[dealt == fold].drop_duplicates()) == 3 for fold in range(5))


def test_probabilities_follow_the_frequencies_of_repeated_rows() -> None:
    """20,000 rows of 360 feature rows, of which 9.4 % bought."""
    random = np.random.default_rng(0)
    columns = {"shop": 6, "day": 5, "offer": 2, "children": 6}
    frame = pd.DataFrame({
        name: random.integers(0, count, 20_000).astype(str).astype(object) for name, count in columns.items()
    })  # fmt: skip
    frame["bought"] = (random.random(20_000) < 0.094 * (1 + (frame["offer"] == "1") - 0.5)).astype(float)
    levels = {name: tuple(map(str, range(count))) for name, count in columns.items()}
    schema = DatasetSchema(
        columns=tuple(Column(name, "category", levels=levels[name]) for name in columns),
        target=Column("bought", "boolean"),
    )

    def build(seed: int) -> Any:
        from sklearn.compose import make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        return make_pipeline(
            make_column_transformer((OneHotEncoder(), list(columns))), LogisticRegression(random_state=seed)
        )

    declared = ModelDeclaration("shop", "Shop", "", "binary", schema, build, "roc_auc")
    fitted = fitting.fit(declared, frame)
    assert (fitted.duplicates_dropped, fitted.by_row_from) == (0, 1)
    mean = fitted.pipeline.predict_proba(frame[list(columns)])[:, 1].mean()
    assert mean == pytest.approx(frame["bought"].mean(), abs=0.005)
    dropping = fitting.fit(replace(declared, drop_duplicates=True), frame)
    assert dropping.pipeline.predict_proba(frame[list(columns)])[:, 1].mean() > 0.3, "what dropping does"


# -- versions of the old default ----------------------------------------------------------------------


def test_a_version_that_dropped_repeated_rows_is_reproduced(db: None) -> None:
    version = train_sample("cars", rows=300)
    split = dict(version.evaluation["split"])  # type: ignore[index]
    assert split["distinct"] is True
    assert reproduction.declaration_of(version).drop_duplicates
    old = {name: split[name] for name in ("seed", "share", "distinct")}
    then = copy(version, evaluation=version.evaluation | {"split": old})  # type: ignore[operator]
    kept = copy(version, evaluation=version.evaluation | {"split": old | {"distinct": False}})  # type: ignore[operator]
    assert reproduction.declaration_of(then).drop_duplicates
    assert reproduction.declaration_of(then).by_row_from is None
    assert not reproduction.declaration_of(kept).drop_duplicates


@pytest.mark.parametrize(("missing", "dropped"), [(0, False), (7, True)])
def test_the_row_count_shows_the_split_of_a_version_older_than_stored_splits(
    churn: ModelVersion, missing: int, dropped: bool
) -> None:
    old = copy(churn, evaluation=None, train_rows=churn.train_rows - missing)
    declared = catalogue.get("churn")
    split = judgement.stored_split(old, declared)
    assert (split["distinct"], split["method"], split["seed"]) == (dropped, "by_features", churn.seed)


def test_shipped_models_with_repeated_offers_drop_and_report_them(db: None) -> None:
    version = train_sample("cars", rows=300)
    run = TrainingRun.objects.get(version=version)
    rows = version.train_rows + version.holdout_rows
    assert rows < 300
    [note] = run.notes
    assert (note["code"], f"{300 - rows} of 300 rows" in note["message"]) == ("duplicates_dropped", True)
    assert {name for name in catalogue.names() if catalogue.get(name).drop_duplicates} == {
        "cars", "cars_v3", "houses",
    }  # fmt: skip
