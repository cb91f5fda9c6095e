"""Packages of pushes, made with the real compiler, and their requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from training.models import TrainingRun
from training.runs import requests as run_requests
from training.runs.pushes import NAMES
from vigia_ml.declaration import Task
from vigia_ml.engines.onnx_export.compile import compile_pipeline
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.schema import Column, DatasetSchema

ROWS, HELD = 300, 100
ISLANDS = ("Biscoe", "Dream", "Torgersen")
SPECIES = ("Adelie", "Chinstrap", "Gentoo")
FEATURES = (
    Column("bill_mm", "number", unit="mm"),
    Column("mass_g", "integer", unit="g", nullable=False),
    Column("island", "category"),
)
TARGETS = {
    "binary": Column("sold", "boolean"),
    "multiclass": Column("species", "category"),
    "regression": Column("price", "number"),
}


def penguins(rows: int, seed: int, task: Task = "multiclass") -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Returns invented birds: features and target."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, rows)
    features = pd.DataFrame(
        {
            "bill_mm": 38.0 + 5.0 * kind + random.normal(0.0, 1.5, rows),
            "mass_g": (3500 + 600 * kind + random.normal(0.0, 200.0, rows)).round(),
            "island": np.array(ISLANDS, dtype=object)[(kind + random.integers(0, 2, rows)) % 3],
        }
    )
    if task == "multiclass":
        return features, pd.Series(np.array(SPECIES, dtype=object)[kind], name="species")
    if task == "binary":
        return features, pd.Series((kind + random.normal(0.0, 0.5, rows)) > 1.0, name="sold")
    return features, pd.Series(10.0 * kind + random.normal(0.0, 1.0, rows), name="price")


class Package:
    """A package in a directory: manifest and files, to be changed before they are sent."""

    def __init__(
        self, directory: Path, task: Task = "multiclass", *, seed: int = 1, rows: int = ROWS, held: int = HELD
    ) -> None:
        self.directory, self.task = directory, task
        directory.mkdir(parents=True, exist_ok=True)
        schema = DatasetSchema(FEATURES, TARGETS[task], key="bird")
        train_x, train_y = penguins(rows, seed, task)
        held_x, held_y = penguins(held, seed + 1_000, task)
        model = LinearRegression() if task == "regression" else LogisticRegression(max_iter=1_000)
        self.pipeline = make_pipeline(
            make_column_transformer(
                (StandardScaler(), ["bill_mm", "mass_g"]),
                (OneHotEncoder(handle_unknown="ignore"), ["island"]),
            ),
            model,
        ).fit(train_x, train_y.to_numpy())
        self.schema = schema.learn(
            {column.name: fitting.seen(column, train_x[column.name]) for column in schema.columns}
        )
        self.file("graph").write_bytes(compile_pipeline(self.pipeline, self.schema, task))
        self.write_rows("train", train_x, train_y)
        self.write_rows("holdout", held_x, held_y)
        self.classes = None if task == "regression" else self.pipeline.classes_.tolist()
        self.held_x, self.held_y = held_x, held_y
        self.write_answers(self.answers(held_x))
        self.manifest: dict[str, Any] = {
            "format": 1,
            "title": "Penguins",
            "description": "Invented birds.",
            "task": task,
            "schema": self.schema.to_json(),
            "classes": self.classes,
            "primary_metric": None,
            "threshold": None,
            "estimator": "Pipeline: ColumnTransformer, LogisticRegression",
            "libraries": {"python": "3.11.2", "scikit-learn": "1.9.0"},
            "parity": None,
        }

    def file(self, part: str) -> Path:
        return self.directory / NAMES[part]

    def answers(self, features: pd.DataFrame) -> Any:
        pipeline = self.pipeline
        return pipeline.predict(features) if self.task == "regression" else pipeline.predict_proba(features)

    def write_rows(self, part: str, features: pd.DataFrame, target: pd.Series[Any]) -> None:
        schema = self.schema
        keys = [f"{part}-{place}" for place in range(len(features))]
        columns: dict[str, list[Any]] = {name: features[name].tolist() for name in schema.names}
        columns["mass_g"] = [int(each) for each in columns["mass_g"]]
        columns[schema.target.name] = target.tolist()
        with parquet.DatasetWriter(self.file(part), schema) as writer:
            writer.write_columns(columns, keys)

    def write_answers(self, answers: Any) -> None:
        values = np.asarray(answers, dtype=np.float64).reshape(len(answers), -1)
        names = ["prediction"] if self.task == "regression" else [f"p{n}" for n in range(values.shape[1])]
        pq.write_table(pa.table(dict(zip(names, values.T, strict=True))), self.file("answers"))

    def rename_target(self, name: str) -> None:
        """Gives the target another name, in the manifest and in the files."""
        old = self.schema.target.name
        self.manifest["schema"]["target"]["name"] = name
        for part in ("train", "holdout"):
            table = pq.read_table(self.file(part))
            names = [name if each == old else each for each in table.column_names]
            pq.write_table(table.rename_columns(names), self.file(part))

    def describe(self) -> str:
        """Writes the manifest with the digests of the files as they are; returns its text."""
        self.manifest["files"] = {
            part: {
                "sha256": hashlib.sha256(self.file(part).read_bytes()).hexdigest(),
                "size": self.file(part).stat().st_size,
            }
            for part in NAMES
        }
        text = json.dumps(self.manifest)
        (self.directory / "manifest.json").write_text(text, encoding="utf-8")
        return text

    def send(self, api: APIClient, name: str, *, without: Sequence[str] = (), **headers: str) -> Any:
        parts: dict[str, Any] = {"manifest": self.describe()}
        parts |= {
            part: SimpleUploadedFile(file, self.file(part).read_bytes()) for part, file in NAMES.items()
        }
        for part in without:
            del parts[part]
        return api.post(
            f"/api/v1/models/{name}/versions/", parts, format="multipart", headers=headers or None
        )


def staged() -> list[str]:
    """Returns the pushes whose files are in the store."""
    try:
        return list(default_storage.listdir("pushes")[0])
    except FileNotFoundError:
        return []


def execute(answered: Any) -> TrainingRun:
    """Executes the run of an accepted push in this process; returns it as it is afterwards."""
    assert answered.status_code == 202, answered.content
    assert run_requests.execute(answered.json()["id"])
    return TrainingRun.objects.select_related("registered_model", "version").get(pk=answered.json()["id"])
