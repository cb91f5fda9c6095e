"""Reproduction: trains a version again from its stored dataset and compares the results; writes nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from django.utils.module_loading import import_string

from core import version as code
from training import artifacts, catalogue, providers
from training.models import ModelVersion
from training.providers import ModelProvider, Remake
from training.registry import declarations
from training.reports.side_by_side import Change, mapping_changes
from training.runs.evaluation import GIVEN, stored_split
from vigia_ml.declaration import ModelDeclaration, Task
from vigia_ml.errors import VigiaError
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.fitting.fit import Report

TOLERANCE: Final = 1e-9
"""Relative. Equal sums in another order (more threads, another processor) differ by some 1e-15 each."""


class CannotReproduce(VigiaError):
    """The version cannot be trained again."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The difference between the results of a second training and the stored ones.

    difference : largest difference, relative to the larger value; None when they could not be compared.
    where : the value with the largest difference, or the reason why they could not be compared.
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
    def message(self) -> str:
        if self.difference is None:
            return f"not compared: {self.where}"
        if self.is_exact:
            return "exactly the same"
        place = f" ({self.where})" if self.where else ""
        text = f"largest relative difference {self.difference:.2g}{place}"
        return f"the same within {TOLERANCE:.0e}: {text}" if self.holds else f"NOT the same: {text}"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The result of a reproduction.

    changes : differences in code, schema and libraries since the training. metrics : metrics on the hold-out.
    predictions : predictions of the stored and of the new pipeline on the hold-out.
    """

    version: ModelVersion
    changes: list[Change]
    metrics: Agreement
    predictions: Agreement
    holdout_rows: int

    @property
    def reproduced(self) -> bool:
        """Whether metrics and predictions agree; without the stored pipeline, the metrics alone decide."""
        return self.metrics.holds and (self.predictions.holds or self.predictions.difference is None)


def reproduce(version: ModelVersion, report: Report = lambda stage, percent: None) -> Reproduction:
    """Trains a version again from its stored dataset, seed and parameters, and compares the results.

    Raises
    ------
    NotDeclared : the model's declaration was removed.
    CannotReproduce : today's pipeline rejects the version's parameters, or the version came as a graph.
    ArtifactError : the dataset is not in the store or was changed there.
    """
    provider = providers.find(version.registered_model.name)
    if provider is not None:
        return _rebuilt(version, provider, report)
    if artifacts.is_graph(version):
        raise CannotReproduce(
            f"{version} was {version.origin} as a compiled graph, so there is no pipeline to train again; "
            "fit the pipeline again where it was made, push it and compare both versions"
        )
    declared = declaration_of(version)
    report("reading", 10)
    frame = _rows(version, declared)
    try:
        fitted = fitting.fit(
            declared, frame, report, parameters=version.parameters.get("chosen"), release=True
        )
    except (KeyError, ValueError) as error:
        raise CannotReproduce(
            f"cannot fit today's pipeline of {declared.name} with the version's settings: {error}"
        ) from error
    del frame
    report("comparing", 90)
    metrics = _metrics(version.metrics, fitted.metrics)
    if fitted.holdout_rows != version.holdout_rows:
        metrics = Agreement(math.inf, f"{fitted.holdout_rows} hold-out rows now, {version.holdout_rows} then")
    return Reproduction(
        version=version,
        changes=_changes(version),
        metrics=metrics,
        predictions=_predictions(version, declared.task, fitted),
        holdout_rows=fitted.holdout_rows,
    )


def _rebuilt(version: ModelVersion, provider: ModelProvider, report: Report) -> Reproduction:
    """Builds a provider's version again and compares metrics and the artifact's bytes."""
    remake: Remake = import_string(provider.remake)
    with artifacts.dataset_file(version.dataset) as path:
        result = remake(path, report)
    report("comparing", 90)
    then = {"code": version.code_version} | version.libraries
    now = {"code": code.code_version(result.source_sha256)} | artifacts.libraries()
    metrics = {name: value for name, value in version.metrics.items() if name in result.metrics}
    same = hashlib.sha256(result.artifact).hexdigest() == version.artifact_sha256
    return Reproduction(
        version=version,
        changes=mapping_changes(then, now),
        metrics=_metrics(metrics, result.metrics),
        predictions=Agreement(0.0) if same else Agreement(math.inf, "the bytes of the artifact differ"),
        holdout_rows=result.holdout_rows,
    )


def declaration_of(version: ModelVersion) -> ModelDeclaration:
    """Returns today's declaration with the schema, split and threshold that the version's row stores."""
    declared = declarations.of(version.registered_model)
    # The dataset was written under this schema; training learns the seen values again.
    same = declared.schema.sha256 == version.schema_sha256 and not artifacts.is_graph(version)
    schema = declared.schema if same else version.dataset_schema
    threshold = declared.threshold if version.threshold is None else version.threshold
    split = stored_split(version, declared)
    return declarations.with_schema(
        declared,
        schema,
        seed=split["seed"],
        threshold=threshold,
        drop_duplicates=split["distinct"],
        holdout=split["share"],
        by_row_from=split["by_row_from"],
    )


def divided(version: ModelVersion) -> fitting.Split:
    """Returns the rows of a version's dataset, divided as its run divided them.

    The hold-out of a pushed or imported version is the last rows of its dataset.

    Raises
    ------
    NotDeclared, ArtifactError : see `reproduce`.
    """
    declared = declaration_of(version)
    rows = _rows(version, declared)
    if stored_split(version, declared)["method"] == GIVEN:
        return fitting.divided(declared.schema, rows, version.holdout_rows)
    return fitting.split(declared, rows, release=True)


def _rows(version: ModelVersion, declared: ModelDeclaration) -> pd.DataFrame:
    with artifacts.dataset_file(version.dataset) as path:
        return parquet.read_frame(path, declared.schema)


def _changes(version: ModelVersion) -> list[Change]:
    """Returns the differences in code, schema and libraries since the version's training."""
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
            return Agreement(math.inf, f"only one of the two has {name}")
        difference = _relative(np.array([then[name]]), np.array([now[name]]))
        if difference > (worst.difference or 0.0):
            worst = Agreement(difference, f"{name} {now[name]!r} now, {then[name]!r} then")
    return worst


def _predictions(version: ModelVersion, task: Task, fitted: fitting.Fitted) -> Agreement:
    try:
        engine = artifacts.load_pipeline(version)
        stored = _answers(engine.pipeline, task, fitted.held_features)
    except VigiaError as error:
        return Agreement(None, error.message)
    new = _answers(fitted.pipeline, task, fitted.held_features)
    if stored.shape != new.shape:
        return Agreement(math.inf, "the classes differ")
    return Agreement(_relative(stored, new))


def _answers(pipeline: Any, task: Task, features: pd.DataFrame) -> npt.NDArray[np.float64]:
    answers = pipeline.predict(features) if task == "regression" else pipeline.predict_proba(features)
    return np.asarray(answers, dtype=np.float64)


def _relative(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Returns the largest difference, relative to the larger of both values."""
    larger = np.maximum(np.abs(first), np.abs(second))
    larger[larger == 0.0] = 1.0
    return float(np.max(np.abs(first - second) / larger, initial=0.0))
