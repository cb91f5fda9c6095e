"""Frames as data scientists have them, and their pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.fitting import parquet
from vigia_ml.pushing import Package, package

NUMBERS = ["bill_length_mm", "flipper_length_mm", "body_mass_g"]


def penguins(texts: Any = "str", rows: int = 300) -> pd.DataFrame:
    """Returns penguins with missing values, texts of the given type, whole numbers and a flag."""
    rng = np.random.default_rng(0)
    species = rng.choice(["Adelie", "Chinstrap", "Gentoo"], rows)
    length = rng.normal(44, 4, rows) + np.select([species == "Adelie", species == "Gentoo"], [-6.0, 4.0])
    frame = pd.DataFrame(
        {
            "species": species,
            "island": rng.choice(["Biscoe", "Dream", "Torgersen"], rows),
            "bill_length_mm": length.round(1),
            "flipper_length_mm": rng.normal(200, 14, rows).round(),
            "body_mass_g": rng.normal(4200, 800, rows).round(-1),
            "sex": rng.choice(["male", "female"], rows),
            "year": rng.choice([2007, 2008, 2009], rows),
            "tagged": rng.random(rows) < 0.5,
        }
    )
    frame.loc[rng.choice(rows, 15, replace=False), "sex"] = None
    frame.loc[rng.choice(rows, 10, replace=False), "bill_length_mm"] = None
    for name in ("island", "sex"):
        frame[name] = frame[name].astype(texts)
    return frame


def prepared(texts: tuple[str, ...] = ("island", "sex")) -> ColumnTransformer:
    """Returns the usual preparation: imputed, scaled numbers, and imputed, encoded texts."""
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (
            make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
            list(texts),
        ),
    )


def pushed(
    directory: Path, pipeline: Any, X: Any, y: Any, *, fitted: bool = False, **options: Any
) -> Package:
    """Fits a pipeline on three quarters of the rows and makes the package."""
    train, held, y_train, y_held = train_test_split(X, y, random_state=0)
    if not fitted:
        pipeline.fit(train, y_train)
    return package(pipeline, train, y_train, held, y_held, directory=directory, **options)


def served(made: Package) -> tuple[Any, pd.DataFrame, pd.DataFrame]:
    """Returns the graph's answers to the hold-out's rows, the sent answers, and the hold-out."""
    engine = OnnxEngine.from_bytes(made.graph.read_bytes(), made.schema)
    holdout = parquet.read_frame(made.holdout, made.schema)
    compiled = AskedByFrame(engine, made.schema)
    is_regression = made.manifest["task"] == "regression"
    answers = compiled.predict(holdout) if is_regression else compiled.predict_proba(holdout)
    return answers, pd.read_parquet(made.answers), holdout
