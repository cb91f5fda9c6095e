"""Makes the package of a push: compiled graph, rows, the pipeline's answers, manifest. No Django here."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vigia_ml.declaration import CLASSIFICATION_METRICS, REGRESSION_METRICS, Task
from vigia_ml.engines.parity import Parity
from vigia_ml.evaluation.metrics import TooFewRows, check_split
from vigia_ml.fitting.parquet import DatasetWriter
from vigia_ml.pushing.build import fitted_model
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.inference import Overrides
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.row_keys import KEY_FIELD

Floats = npt.NDArray[np.float64]
FORMAT: Final = 1
PART: Final = 50_000  # rows written at once
LARGEST_GRAPH: Final = 2**28  # bytes; the server takes no more
LIBRARIES: Final = (
    "vigia-ml", "scikit-learn", "numpy", "scipy", "pandas", "joblib", "skl2onnx", "onnx", "onnxruntime",
)  # fmt: skip
IF_IMPORTED: Final = (
    "lightgbm",
    "xgboost",
    "catboost",
    "onnxmltools",
    "skops",
    "imblearn",
    "category_encoders",
)
_DISTRIBUTIONS: Final = {"imblearn": "imbalanced-learn", "category_encoders": "category-encoders"}


@dataclass(frozen=True)
class Package:
    """The files of a push, in one directory, and what they say.

    manifest : see docs/pushing.md. graph, train, holdout, answers : paths. parity : the local comparison.
    """

    directory: Path
    manifest: dict[str, Any]
    schema: DatasetSchema
    parity: Parity

    @property
    def graph(self) -> Path:
        return self.directory / "graph.onnx"

    @property
    def train(self) -> Path:
        return self.directory / "train.parquet"

    @property
    def holdout(self) -> Path:
        return self.directory / "holdout.parquet"

    @property
    def answers(self) -> Path:
        return self.directory / "answers.parquet"

    @property
    def manifest_path(self) -> Path:
        return self.directory / "manifest.json"


def package(
    pipeline: Any,
    X_train: Any,
    y_train: Any,
    X_test: Any = None,
    y_test: Any = None,
    *,
    directory: str | Path,
    key: str | None = None,
    title: str = "",
    description: str = "",
    schema: DatasetSchema | None = None,
    task: Task | None = None,
    primary_metric: str | None = None,
    threshold: float | None = None,
    target: str = "",
    overrides: Overrides | None = None,
    nullable: bool | Collection[str] | None = None,
    bounds: bool = False,
    activation_reason: str = "",
) -> Package:
    """Compiles a fitted pipeline, compares the graph with it, and writes the files of a push.

    Parameters
    ----------
    pipeline : fitted scikit-learn estimator. X_train, y_train : the rows on which it was fitted. X_test,
        y_test : rows on which it was not.
    directory : where the files are written; it is made if it does not exist.
    key : column or index that identifies the row. target : name of the target, if `y_train` has none.
    schema : a complete schema instead of the inferred one; `overrides`, `nullable` and `bounds` change the
        inferred one, see `vigia_ml.pushing.infer_schema`. nullable : default: the columns for which the
        pipeline answers a missing value.
    task : default: by the pipeline's classes. primary_metric : default: the server's for the task.
    threshold : probability from which a binary prediction is true.

    Raises
    ------
    NotPushable : names the step or the column, the reason, and what would work.
    """
    if X_test is None or y_test is None:
        raise NotPushable(
            "X_test and y_test are missing: the service judges a model on rows that it was not fitted on",
            advice="X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0); "
            "pipeline.fit(X_train, y_train)",
        )
    model = fitted_model(
        pipeline, X_train, y_train, X_test, y_test,
        key=key, schema=schema, task=task, target=target, overrides=overrides, nullable=nullable,
        bounds=bounds, threshold=threshold,
    )  # fmt: skip
    _check_metric(primary_metric, model.task)
    try:
        check_split(model.task, pd.Series(model.train.target), pd.Series(model.holdout.target))
    except TooFewRows as few:
        raise NotPushable(str(few)) from None
    graph = model.compiled()
    if len(graph) > LARGEST_GRAPH:
        raise NotPushable(
            f"the compiled model has {len(graph) / 2**20:,.0f} MiB; the service takes {LARGEST_GRAPH >> 20}",
            advice="fit fewer or shallower trees (n_estimators, max_depth, min_samples_leaf)",
        )
    parity, answers = model.compared(graph)
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    result = Package(path, {}, model.schema, parity)
    result.graph.write_bytes(graph)
    for path, rows in ((result.train, model.train), (result.holdout, model.holdout)):
        _write_rows(path, model.schema, rows.frame, rows.target, rows.keys)
    pq.write_table(_answers(answers, model.task), result.answers, compression="zstd")
    result.manifest.update(
        {
            "format": FORMAT,
            "title": title,
            "description": description,
            "task": model.task,
            "schema": model.schema.to_json(),
            "classes": None if model.labels is None else list(model.labels.labels),
            "primary_metric": primary_metric,
            "threshold": model.threshold,
            "estimator": model.estimator,
            "libraries": libraries(),
            "parity": parity.to_json(),
            "activation_reason": activation_reason,
            "files": {
                name: _file(path)
                for name, path in (
                    ("graph", result.graph),
                    ("train", result.train),
                    ("holdout", result.holdout),
                    ("answers", result.answers),
                )
            },
        }
    )
    result.manifest_path.write_text(json.dumps(result.manifest, ensure_ascii=False), encoding="utf-8")
    return result


def libraries() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that a model's answers depend on."""
    names = [*LIBRARIES, *(_DISTRIBUTIONS.get(name, name) for name in IF_IMPORTED if name in sys.modules)]
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_metric(metric: str | None, task: Task) -> None:
    known = REGRESSION_METRICS if task == "regression" else CLASSIFICATION_METRICS
    if metric is not None and metric not in known:
        raise NotPushable(f"{metric!r} is not a metric of the task {task}; accepted: {', '.join(known)}")


def _write_rows(
    path: Path, schema: DatasetSchema, frame: pd.DataFrame, target: npt.NDArray[Any], keys: list[str | None]
) -> None:
    with DatasetWriter(path, schema) as writer:
        for start in range(0, len(frame), PART):
            part = slice(start, start + PART)
            arrays = [pa.array(frame[name].iloc[part], from_pandas=True) for name in schema.names]
            arrays += [pa.array(target[part].tolist()), pa.array(keys[part], pa.string())]
            writer.write_table(
                pa.Table.from_arrays(arrays, names=[*schema.names, schema.target.name, KEY_FIELD])
            )


def _answers(answers: Floats, task: Task) -> pa.Table:
    names = ["prediction"] if task == "regression" else [f"p{place}" for place in range(answers.shape[1])]
    return pa.table({name: np.ascontiguousarray(answers[:, at]) for at, name in enumerate(names)})


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "size": path.stat().st_size}
