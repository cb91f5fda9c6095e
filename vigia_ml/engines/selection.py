"""The choice of the engine that serves a version, made once, at training. No Django here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.engines import parity
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.schema import DatasetSchema

log = logging.getLogger(__name__)

REASON_LENGTH = 300


@dataclass(frozen=True)
class Choice:
    """The engine that serves a version.

    engine : its name. reason : one sentence of at most `REASON_LENGTH` characters.
    compiled : bytes of the compiled engine; None where scikit-learn serves.
    parity : the comparison of both, if there was one.
    """

    engine: str
    reason: str
    compiled: bytes | None = None
    parity: parity.Parity | None = None


def choose(
    pipeline: Any,
    schema: DatasetSchema,
    task: Task,
    train: pd.DataFrame,
    seed: int,
    threshold: float | None = None,
) -> Choice:
    """Chooses the compiled engine where the pipeline converts and the answers agree, else scikit-learn.

    Never raises: after any error scikit-learn serves the version.

    Parameters
    ----------
    pipeline : fitted. schema : with the training data's ranges and levels. train : features, source of the
        compared rows.
    threshold : probability from which the positive class is predicted, for two classes.
    """
    try:
        compiled = compile_pipeline(pipeline, schema, task)
        engine = OnnxEngine.from_bytes(compiled, schema)
        verdict = parity.check(pipeline, engine, schema, train, task, seed, threshold=threshold)
    except NotConvertible as error:
        return _by_scikit_learn(str(error))
    except Exception as error:
        log.exception("the choice of an engine failed")
        return _by_scikit_learn(f"the comparison failed: {type(error).__name__}: {error}")
    if not verdict.passed:
        return _by_scikit_learn(f"the compiled engine gives other answers: {verdict.reason}", verdict)
    return Choice(OnnxEngine.name, f"compiled; {verdict.reason}"[:REASON_LENGTH], compiled, verdict)


def _by_scikit_learn(reason: str, verdict: parity.Parity | None = None) -> Choice:
    return Choice(SklearnEngine.name, reason[:REASON_LENGTH], parity=verdict)
