"""The compiled engine: ONNX Runtime on a matrix of codes. It needs only numpy and onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import onnxruntime

from vigia_ml.engines import Scored, Scores, Texts, texts
from vigia_ml.engines.texts import TextNumbers
from vigia_ml.schema import DatasetSchema, Value
from vigia_ml.schema.matrix import Coder, Floats, fingerprint

INPUT = "matrix"
TEXTS = "texts"  # the second input of models that read texts; see `vigia_ml.engines.texts`
# Keys of the model's metadata, which the compiler writes as JSON texts.
CLASSES, CODING, READ = "vigia.classes", "vigia.coding", "vigia.texts"
ROWS_AT_ONCE: Final = 2_000
"""Rows of one run of the graph, whose memory grows with them; a request may have five times as many."""
TEXT_NUMBERS_AT_ONCE = 2_000_000
"""Most numbers of texts in one call of the graph, 16 MB; more rows are predicted in parts."""


class OnnxEngine:
    """Runs a compiled pipeline. Many threads may run a session at once.

    classes : classes in the order of the probabilities; None for a regression.
    rows_at_once : see `ROWS_AT_ONCE`.
    """

    name = "onnx"
    rows_at_once = ROWS_AT_ONCE
    takes_matrix = True

    def __init__(self, session: onnxruntime.InferenceSession, schema: DatasetSchema) -> None:
        self.schema = schema
        self._session = session
        self._coder = Coder(schema)
        self._outputs = [session.get_outputs()[0].name]
        metadata = session.get_modelmeta().custom_metadata_map
        self.classes: tuple[Any, ...] | None = None
        if metadata[CLASSES] != "null":
            self.classes = tuple(json.loads(metadata[CLASSES]))
        self._texts = _text_numbers(metadata[READ], schema) if READ in metadata else None
        self.text_columns = self._texts.columns if self._texts else ()

    @classmethod
    def from_bytes(cls, artifact: bytes, schema: DatasetSchema) -> OnnxEngine:
        """Loads compiled bytes.

        Raises
        ------
        ValueError : when the bytes were compiled for other columns or levels.
        Exception : any error of ONNX Runtime on bytes that are not a model.
        """
        session = onnxruntime.InferenceSession(artifact, _options(), providers=["CPUExecutionProvider"])
        # The session keeps the bytes to change its execution provider later, which never happens here.
        session._model_bytes = None
        if session.get_modelmeta().custom_metadata_map.get(CODING) != fingerprint(schema):
            raise ValueError("the engine was compiled for other columns or levels than the version's schema")
        return cls(session, schema)

    def score(self, matrix: Floats, texts: Texts = ()) -> Scored:
        """Returns the scores of a matrix (n, p) from `vigia_ml.schema.matrix`.

        A row that scikit-learn would reject (e.g. a number that overflows in a step) gets NaN.

        Raises
        ------
        ValueError : when ONNX Runtime rejects the matrix.
        """
        rows = self.rows_at_once
        if self._texts is not None:
            rows = min(rows, max(1, TEXT_NUMBERS_AT_ONCE // self._texts.width))
        if len(matrix) <= rows:
            scores = self._run(matrix, texts)
        else:
            starts = range(0, len(matrix), rows)
            parts = [
                self._run(matrix[start : start + rows], [column[start : start + rows] for column in texts])
                for start in starts
            ]
            scores = np.concatenate(parts)
        if self.classes is None:
            return Scored(values=scores[:, 0])
        return Scored(probabilities=scores, classes=self.classes)

    def _run(self, matrix: Floats, texts: Texts) -> Floats:
        inputs = {INPUT: matrix}
        if self._texts is not None:
            inputs[TEXTS] = self._texts.read(texts)
        try:
            scores: Floats = self._session.run(self._outputs, inputs)[0]
        except Exception as error:  # ONNX Runtime's exceptions share no class
            raise ValueError(f"ONNX Runtime rejected the rows: {error}") from error
        return scores

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        names = [self.schema.names[place] for place in self.text_columns]
        texts = [[cast("str | None", row[name]) for row in rows] for name in names]
        return self.score(self._coder.encode(rows), texts).plain()


def _text_numbers(metadata: str, schema: DatasetSchema) -> TextNumbers:
    numbers = texts.from_json(metadata)
    texts.check(numbers, schema.columns)
    return TextNumbers(numbers)


def _options() -> onnxruntime.SessionOptions:
    """Returns options for one thread per request: the web server already runs as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # The arena keeps the memory of the largest request (100,000 rows: 60 MiB), and memory patterns keep a
    # plan for each number of rows so far (3,000 of them: 600 MiB). One row is as fast without both.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # warnings are about graphs and would go to the server's stderr
    return options
