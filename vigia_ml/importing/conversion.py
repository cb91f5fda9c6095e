"""Compiles an opened pipeline for a schema; runs in the sandbox, see `vigia_ml.importing.opening`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.pipeline import Pipeline

from vigia_ml.declaration import Task
from vigia_ml.engines import parity
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.fitting import parquet
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.package_files import ANSWERS, GRAPH, HOLDOUT, TRAIN
from vigia_ml.importing.parts import PASSED, Parts
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.faults import first_of
from vigia_ml.transformers.as_fitted import Relabelled
from vigia_ml.transformers.original import OriginalColumns, RowsToDicts

Floats = npt.NDArray[np.float64]
MOST_NULL_ROWS: Final = 2_000  # of the training part, on which nulls are tried


def adapted(parts: Parts, plan: dict[str, Any], task: Task) -> Pipeline:
    """Returns a pipeline that takes rows of the schema; see `vigia_ml.importing.plans.Plan`."""
    steps: list[tuple[str, Any]] = [
        ("columns", OriginalColumns(plan["names"], plan["levels"], plan["fill"])),
    ]
    if plan["dicts"]:
        steps.append(("dicts", RowsToDicts(plan["nulls"])))
    *before, (name, model) = parts.steps
    if task != "regression":
        model = Relabelled(model, plan["classes"], plan["order"])
    return Pipeline([*steps, *before, (name, model)])


def convert(parts: Parts, plan: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Writes the graph and the hold-out's answers; returns parity, estimator and libraries as JSON.

    Parameters
    ----------
    plan : see `vigia_ml.importing.plans.Plan`, with ``schema``, ``task``, ``threshold`` and ``seed``.

    Raises
    ------
    NotImportable : a step does not compile, the engines differ, or the pipeline rejects the rows.
    """
    schema, task = DatasetSchema.from_json(plan["schema"]), plan["task"]
    pipeline = adapted(parts, plan, task)
    train, held = (
        parquet.read_frame(directory / name, schema)[list(schema.names)] for name in (TRAIN, HOLDOUT)
    )
    with_nulls = train[train.isna().any(axis=1).to_numpy()].head(MOST_NULL_ROWS)
    if len(with_nulls):
        _answers(pipeline, with_nulls, task)
    answers = _answers(pipeline, held, task)
    try:
        compiled = compile_pipeline(pipeline, schema, task)
    except NotConvertible as error:
        raise NotImportable(
            f"the pipeline cannot be compiled: {error}. Replace that step by one that compiles "
            "(docs/importing.md lists them), fit again and import the new file"
        ) from error
    engine = OnnxEngine.from_bytes(compiled, schema)
    verdict = parity.check(pipeline, engine, schema, train, task, plan["seed"], threshold=plan["threshold"])
    if not verdict.passed:
        raise NotImportable(f"the compiled graph gives other answers than the pipeline: {verdict.reason}")
    (directory / GRAPH).write_bytes(compiled)
    names = ["prediction"] if task == "regression" else [f"p{place}" for place in range(answers.shape[1])]
    table = pa.table(dict(zip(names, answers.T, strict=True)))
    pq.write_table(table, directory / ANSWERS)
    return {"parity": verdict.to_json(), "estimator": estimator_text(parts), "libraries": libraries()}


def _answers(pipeline: Pipeline, frame: pd.DataFrame, task: Task) -> Floats:
    """Returns the pipeline's answers (n, k) to rows.

    Raises
    ------
    NotImportable : it rejects rows, or answers no finite numbers.
    """
    try:
        answers = _asked(pipeline, frame, task)
    except Exception as error:  # the file's own code may raise anything
        words = " ".join(str(error).split()).partition(". ")[0][:300]
        raise NotImportable(_rejected(pipeline, frame, task, f"{type(error).__name__}: {words}")) from error
    if not np.isfinite(answers).all():
        raise NotImportable(_rejected(pipeline, frame, task, "answers that are not finite numbers"))
    return answers


def _asked(pipeline: Pipeline, frame: pd.DataFrame, task: Task) -> Floats:
    answers = pipeline.predict(frame) if task == "regression" else pipeline.predict_proba(frame)
    numbers = np.asarray(answers, dtype=np.float64).reshape(len(frame), -1)
    if task == "regression" and numbers.shape[1] != 1:
        raise NotImportable(
            f"the pipeline predicts {numbers.shape[1]} numbers for a row, and Vigía serves one"
        )
    return numbers


def _rejected(pipeline: Pipeline, frame: pd.DataFrame, task: Task, reason: str) -> str:
    """Returns in words why the pipeline rejects rows: nulls of some columns, or all rows."""
    names = [name for name in frame.columns if frame[name].isna().any()]
    guilty = [name for name in names if _fails(pipeline, frame[frame[name].isna()], task)]
    complete = frame[frame.notna().all(axis=1)]
    if guilty and not (len(complete) and _fails(pipeline, complete, task)):
        rows = int(frame[guilty].isna().any(axis=1).sum())
        return (
            f"the pipeline rejects nulls of {first_of(guilty, 6)} ({rows:,} rows or more; "
            f"{reason}). If its author filled them before the pipeline, say with which value: --fill "
            f"{guilty[0]}=VALUE; else leave these rows out of the CSV"
        )
    return (
        f"the pipeline rejects rows of the CSV ({reason}). Does the CSV hold the columns and values as its "
        "author's table did when the pipeline was fitted?"
    )


def _fails(pipeline: Pipeline, frame: pd.DataFrame, task: Task) -> bool:
    try:
        return not np.isfinite(_asked(pipeline, frame, task)).all()
    except Exception:  # see `_answers`
        return True


def estimator_text(parts: Parts) -> str:
    """Returns the estimator in words, as in ``Pipeline: StandardScaler, LogisticRegression``."""
    names = []
    for _, step in parts.steps:
        steps = [each for _, each in step.steps] if hasattr(step, "steps") else [step]
        names += [type(each).__name__ for each in steps if each not in PASSED]
    return f"Pipeline: {', '.join(names)}"[:300] if len(names) > 1 else names[0][:300]


def libraries() -> dict[str, str]:
    """Returns the versions of the libraries that opened and compiled the file."""
    known = {"python": platform.python_version()}
    for name in ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "onnx", "skl2onnx", "onnxruntime"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known
