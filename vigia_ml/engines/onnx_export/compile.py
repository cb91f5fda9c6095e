"""Compiles a fitted pipeline to bytes for ONNX Runtime. Needs scikit-learn and onnx; no Django here.

The input is the matrix of `vigia_ml.schema.matrix`, the output a regression's (n, 1) or a classification's
(n, k), all double. The modules of `vigia_ml.engines.onnx_export` convert the steps.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

from vigia_ml.declaration import Task
from vigia_ml.engines.onnx import CLASSES, CODING, INPUT, OnnxEngine
from vigia_ml.engines.onnx_export.estimators import answer
from vigia_ml.engines.onnx_export.graph import Frame, Graph, NotConvertible
from vigia_ml.fitting.fit import LEVELS_REMEMBERED
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import fingerprint, levels_of

OUTPUT = "answer"

__all__ = ["NotConvertible", "compile_pipeline"]


def compile_pipeline(pipeline: Any, schema: DatasetSchema, task: Task) -> bytes:
    """Compiles a fitted pipeline to an ONNX model.

    Parameters
    ----------
    pipeline : fitted on a frame of `schema.names` (see `vigia_ml.fitting.frames`).
    schema : with the training data's ranges and levels (`DatasetSchema.learn`).

    Raises
    ------
    NotConvertible : names the step and the reason. All errors become this one, because a training run does
        not fail when its pipeline does not convert.
    """
    try:
        with warnings.catch_warnings():
            # The compiler calls steps with arrays and unknown levels on purpose, so their warnings are
            # expected.
            warnings.simplefilter("ignore")
            model = _compile(pipeline, schema, task)
        # Loads the model now, so that a model that ONNX Runtime rejects never serves.
        OnnxEngine.from_bytes(model, schema)
    except NotConvertible:
        raise
    except Exception as error:
        message = (str(error).splitlines() or [""])[0][:160]
        raise NotConvertible(f"the compiler failed: {type(error).__name__}: {message}") from error
    return model


def _compile(pipeline: Any, schema: DatasetSchema, task: Task) -> bytes:
    cut = [
        column.name
        for column in schema.columns
        if column.type == "category" and not column.levels and len(levels_of(column)) >= LEVELS_REMEMBERED
    ]
    if cut:
        raise NotConvertible(
            f"{', '.join(cut)} has more levels than a version stores ({LEVELS_REMEMBERED:,})"
        )
    graph = Graph()
    frame = Frame(schema.columns, tuple(range(len(schema.columns))), INPUT)
    result = answer(pipeline, frame, graph)
    classes = None if task == "regression" else pipeline.classes_.tolist()
    width = 1 if classes is None else len(classes)
    if result.width != width:
        raise NotConvertible(f"the pipeline returns {result.width} numbers per row instead of {width}")
    graph.answer(result.name, OUTPUT)
    metadata = {CLASSES: json.dumps(classes), CODING: fingerprint(schema)}
    model: bytes = graph.model(INPUT, len(schema.columns), OUTPUT, width, metadata).SerializeToString()
    return model
