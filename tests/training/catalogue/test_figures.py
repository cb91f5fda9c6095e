"""Metrics of the shipped models on the published data; docs/models.md holds the figures over many splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from training import catalogue
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting.parquet import DatasetWriter, read_frame
from vigia_ml.schema.csv_reader import CsvReader

pytestmark = pytest.mark.real_data


def published(data_dir: Path, model: str, file: str, tmp_path: Path) -> pd.DataFrame:
    schema = catalogue.get(model).schema
    with (data_dir / file).open("rb") as stream, DatasetWriter(tmp_path / "rows.parquet", schema) as writer:
        for batch in CsvReader(stream, schema, with_target=True).batches():
            writer.write_columns(batch.columns, batch.keys)
    return read_frame(tmp_path / "rows.parquet", schema)


@pytest.mark.parametrize(
    ("model", "file", "r2"),
    [
        ("cars", "cardekho.csv", 0.86),
        ("cars_v3", "cardekho_v3.csv", 0.91),
        ("houses", "madrid_houses.csv", 0.86),
        ("bikes", "bike_hour.csv", 0.94),
    ],
)
def test_regressions_reach_their_r2_on_a_holdout_without_shared_rows(
    data_dir: Path, tmp_path: Path, model: str, file: str, r2: float
) -> None:
    frame = published(data_dir, model, file, tmp_path)
    fitted = fitting.fit(catalogue.get(model), frame)
    assert fitted.metrics["r2"] >= r2, fitted.metrics
    assert fitted.metrics["rmse"] < fitted.baseline["rmse"] / 2
    share = fitted.holdout_rows / (fitted.holdout_rows + fitted.train_rows)
    assert 0.17 < share < 0.23


def test_no_row_is_on_both_sides_of_a_split(data_dir: Path, tmp_path: Path) -> None:
    frame = published(data_dir, "cars", "cardekho.csv", tmp_path)
    features = frame.drop(columns="selling_price")
    held = evaluation.holdout_mask(features, 0.2, seed=1)
    both = pd.merge(features[held].drop_duplicates(), features[~held].drop_duplicates(), how="inner")
    assert len(both) == 0
    more = pd.concat(
        [features, features.sample(500, random_state=1).assign(km_driven=7.0)], ignore_index=True
    )
    again = evaluation.holdout_mask(more, 0.2, seed=1)
    assert (again[: len(features)] == held).all(), "appending rows moves none to the other side"


def test_churn_reaches_its_auc_over_five_folds(data_dir: Path, tmp_path: Path) -> None:
    declared = catalogue.get("churn")
    frame = published(data_dir, "churn", "telco_churn.csv", tmp_path)
    features, target = frame[list(declared.schema.names)], frame["churn"].astype(bool).to_numpy()
    groups = pd.util.hash_pandas_object(features, index=False).to_numpy()
    scores = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=1).split(features, target, groups):
        fitted = declared.build(declared.seed).fit(features.iloc[train], target[train])
        scores.append(roc_auc_score(target[test], fitted.predict_proba(features.iloc[test])[:, 1]))
    assert np.mean(scores) >= 0.845, scores


def test_the_courses_customers_get_the_courses_probabilities(
    data_dir: Path, tmp_path: Path, customer: dict[str, Any]
) -> None:
    frame = published(data_dir, "churn", "telco_churn.csv", tmp_path)
    fitted = fitting.fit(catalogue.get("churn"), frame)
    engine = SklearnEngine(fitted.pipeline, fitted.schema)
    new, loyal = customer, {**customer, "tenure": 24, "totalcharges": 716.4}
    rows = [engine.schema.read(row) for row in (new, loyal)]
    probabilities = engine.predict([row.values for row in rows if not isinstance(row, list)]).probabilities
    assert probabilities is not None
    assert probabilities[0][1] == pytest.approx(0.627, abs=0.02)
    assert probabilities[1][1] == pytest.approx(0.339, abs=0.02)
