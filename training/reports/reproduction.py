"""Is a version what its row says? Trained again from what is stored, and compared. Nothing is written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from core import version as code
from training import artifacts, catalogue, providers
from training.models import ModelVersion
from training.providers import ModelProvider
from training.reports.side_by_side import Change, mapping_changes
from training.runs.evaluation import stored_split
from vigia_ml.declaration import ModelDeclaration, Task
from vigia_ml.errors import VigiaError
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.fitting.fit import Report

TOLERANCE: Final = 1e-9
"""Relative. The same sums in another order (more threads, another processor) differ by some 1e-15 each."""


class CannotReproduce(VigiaError):
    """There is nothing to train with any more."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far what was trained again is from what is stored.

    difference : the largest, relative to the larger of both; None where nothing could be compared. where :
    of what, or why nothing could be compared.
    """

    difference: float | None
    where: str = ""

    @property
    def is_exact(self) -> bool:
        return self.difference == 0.0

    @property
    def holds(self) -> bool:
        return self.difference is not None and self.difference <= TOLERANCE

    @property
    def in_words(self) -> str:
        if self.difference is None:
            return f"not compared: {self.where}"
        if self.is_exact:
            return "exactly the same"
        said = f"largest relative difference {self.difference:.2g}{f' ({self.where})' if self.where else ''}"
        return f"the same within {TOLERANCE:.0e}: {said}" if self.holds else f"NOT the same: {said}"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it.

    then_and_now : what is not as it was then, of code and libraries. metrics : of the hold-out.
    predictions : on the hold-out, of the stored pipeline and of the one trained again.
    """

    version: ModelVersion
    then_and_now: list[Change]
    metrics: Agreement
    predictions: Agreement
    holdout_rows: int

    @property
    def reproduced(self) -> bool:
        """Metrics and predictions agree; where the stored pipeline is gone, the metrics alone decide."""
        return self.metrics.holds and (self.predictions.holds or self.predictions.difference is None)


def reproduce(version: ModelVersion, report: Report = lambda stage, percent: None) -> Reproduction:
    """Trains a version again from its stored dataset, seed and parameters, and compares.

    Raises
    ------
    CannotReproduce : its model is declared no longer, or today's pipeline does not take its parameters.
    ArtifactError : its dataset is not in the store, or was changed there.
    """
    provider = providers.find(version.registered_model.name)
    if provider is not None:
        return _remade(version, provider, report)
    declared = declared_then(version)
    report("reading", 10)
    with artifacts.dataset_file(version.dataset) as path:
        frame = parquet.read_frame(path, declared.schema)
    try:
        fitted = fitting.fit(
            declared, frame, report, parameters=version.parameters.get("chosen"), release=True
        )
    except (KeyError, ValueError) as error:
        raise CannotReproduce(
            f"today's pipeline of {declared.name} cannot be fitted as then: {error}"
        ) from error
    del frame
    report("comparing", 90)
    metrics = _metrics(version.metrics, fitted.metrics)
    if fitted.holdout_rows != version.holdout_rows:
        metrics = Agreement(math.inf, f"{fitted.holdout_rows} hold-out rows, then {version.holdout_rows}")
    return Reproduction(
        version=version,
        then_and_now=_changes(version),
        metrics=metrics,
        predictions=_predictions(version, declared.task, fitted),
        holdout_rows=fitted.holdout_rows,
    )


def _remade(version: ModelVersion, provider: ModelProvider, report: Report) -> Reproduction:
    """Of a version that an application above makes: its bytes are the same, or they are not."""
    with artifacts.dataset_file(version.dataset) as path:
        made = providers.remake_of(provider)(path, report)
    report("comparing", 90)
    then = {"code": version.code_version} | version.libraries
    now = {"code": code.code_version(made.source_sha256)} | artifacts.libraries()
    metrics = {name: value for name, value in version.metrics.items() if name in made.metrics}
    same = hashlib.sha256(made.artifact).hexdigest() == version.artifact_sha256
    return Reproduction(
        version=version,
        then_and_now=mapping_changes(then, now),
        metrics=_metrics(metrics, made.metrics),
        predictions=Agreement(0.0) if same else Agreement(math.inf, "the artifact has other bytes"),
        holdout_rows=made.holdout_rows,
    )


def declared_then(version: ModelVersion) -> ModelDeclaration:
    """Today's declaration with what the version's row remembers of then."""
    name = version.registered_model.name
    if name not in catalogue.names():
        raise CannotReproduce(
            f"cannot train {name}: its declaration was removed; restore training/catalogue/{name}.py"
        )
    declared = catalogue.get(name)
    # The dataset was written under this schema; what training saw in it is learnt again.
    same = declared.schema.sha256 == version.schema_sha256
    schema = declared.schema if same else version.dataset_schema
    threshold = declared.threshold if version.threshold is None else version.threshold
    split = stored_split(version, declared)
    return replace(
        declared,
        schema=schema,
        seed=split["seed"],
        threshold=threshold,
        drop_duplicates=split["distinct"],
        holdout=split["share"],
        by_row_from=split["by_row_from"],
    )


def _changes(version: ModelVersion) -> list[Change]:
    """Code, schema and libraries that are not those of then."""
    name = version.registered_model.name
    then = {"code": version.code_version, "schema": version.schema_sha256[:12]}
    now = {
        "code": code.code_version(catalogue.source_sha256(name)),
        "schema": catalogue.get(name).schema.sha256[:12],
    }
    return mapping_changes(then | version.libraries, now | artifacts.libraries())


def _metrics(then: Mapping[str, float], now: Mapping[str, float]) -> Agreement:
    worst = Agreement(0.0)
    for name in sorted(then.keys() | now.keys()):
        if name not in then or name not in now:
            return Agreement(math.inf, f"{name} is not in both")
        difference = _relative(np.array([then[name]]), np.array([now[name]]))
        if difference > (worst.difference or 0.0):
            worst = Agreement(difference, f"{name} {now[name]!r}, then {then[name]!r}")
    return worst


def _predictions(version: ModelVersion, task: Task, fitted: fitting.Fitted) -> Agreement:
    try:
        stored = artifacts.load_pipeline(version)
        theirs = _answers(stored.pipeline, task, fitted.held_features)
    except VigiaError as error:
        return Agreement(None, error.message)
    ours = _answers(fitted.pipeline, task, fitted.held_features)
    if theirs.shape != ours.shape:
        return Agreement(math.inf, "they know other classes")
    return Agreement(_relative(theirs, ours))


def _answers(pipeline: Any, task: Task, features: pd.DataFrame) -> npt.NDArray[np.float64]:
    given = pipeline.predict(features) if task == "regression" else pipeline.predict_proba(features)
    return np.asarray(given, dtype=np.float64)


def _relative(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """The largest difference, relative to the larger of both."""
    larger = np.maximum(np.abs(first), np.abs(second))
    larger[larger == 0.0] = 1.0
    return float(np.max(np.abs(first - second) / larger, initial=0.0))
