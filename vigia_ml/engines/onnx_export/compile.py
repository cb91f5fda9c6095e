"""A fitted pipeline as bytes that ONNX Runtime serves. Needs scikit-learn and onnx; no Django here.

The input is the matrix of `vigia_ml.schema.matrix`, the output a regression's (n, 1) or a classification's
(n, k), all double. The steps are in `vigia_ml.engines.onnx_export`.
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
    """The ONNX model of a fitted pipeline.

    Parameters
    ----------
    pipeline : fitted on a frame of `schema.names` (see `vigia_ml.fitting.frames`).
    schema : with what the training data held (`DatasetSchema.learn`).

    Raises
    ------
    NotConvertible : in words, which step it is and why. Whatever goes wrong is said so: a pipeline that does
        not convert is no failure of its training run.
    """
    try:
        with warnings.catch_warnings():
            # Steps are asked about arrays and unknown levels on purpose; what they warn of is no news.
            warnings.simplefilter("ignore")
            made = _compile(pipeline, schema, task)
        # What ONNX Runtime does not take is better known now than when it is to serve.
        OnnxEngine.from_bytes(made, schema)
    except NotConvertible:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:160]
        raise NotConvertible(f"the compiler failed: {type(error).__name__}: {said}") from error
    return made


def _compile(pipeline: Any, schema: DatasetSchema, task: Task) -> bytes:
    cut = [
        column.name
        for column in schema.columns
        if column.type == "category" and not column.levels and len(levels_of(column)) >= LEVELS_REMEMBERED
    ]
    if cut:
        raise NotConvertible(
            f"{', '.join(cut)} holds more levels than are remembered ({LEVELS_REMEMBERED:,})"
        )
    graph = Graph()
    frame = Frame(schema.columns, tuple(range(len(schema.columns))), INPUT)
    found = answer(pipeline, frame, graph)
    classes = None if task == "regression" else pipeline.classes_.tolist()
    wanted = 1 if classes is None else len(classes)
    if found.width != wanted:
        raise NotConvertible(f"it gives {found.width} numbers a row where {wanted} are needed")
    graph.answer(found.name, OUTPUT)
    words = {CLASSES: json.dumps(classes), CODING: fingerprint(schema)}
    made: bytes = graph.model(INPUT, len(schema.columns), OUTPUT, wanted, words).SerializeToString()
    return made
