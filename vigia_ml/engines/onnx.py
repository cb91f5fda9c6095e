"""The compiled engine: ONNX Runtime on a matrix of codes. Needs numpy and onnxruntime, nothing else."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

import onnxruntime

from vigia_ml.engines import Scored, Scores, Texts, texts
from vigia_ml.engines.texts import TextNumbers
from vigia_ml.schema import DatasetSchema, Value
from vigia_ml.schema.matrix import Coder, Floats, fingerprint

INPUT = "matrix"
TEXTS = "texts"  # the second input, of models that read texts; see `vigia_ml.engines.texts`
# What the compiler writes into the model's metadata, as JSON texts.
CLASSES, CODING, READ = "vigia.classes", "vigia.coding", "vigia.texts"


class OnnxEngine:
    """Asks a compiled pipeline. A session may be run by many threads at once."""

    name = "onnx"
    takes_matrix = True

    def __init__(self, session: onnxruntime.InferenceSession, schema: DatasetSchema) -> None:
        self.schema = schema
        self._session = session
        self._coder = Coder(schema)
        self._outputs = [session.get_outputs()[0].name]
        words = session.get_modelmeta().custom_metadata_map
        self._classes = None if words[CLASSES] == "null" else tuple(json.loads(words[CLASSES]))
        self._texts = TextNumbers(texts.from_json(words[READ])) if READ in words else None
        self.text_columns = self._texts.columns if self._texts else ()

    @classmethod
    def from_bytes(cls, artifact: bytes, schema: DatasetSchema) -> OnnxEngine:
        """A session on compiled bytes.

        Raises
        ------
        ValueError : when they were compiled for other columns or levels.
        Exception : whatever ONNX Runtime raises at bytes that are no model.
        """
        session = onnxruntime.InferenceSession(artifact, _options(), providers=["CPUExecutionProvider"])
        _give_back()
        if session.get_modelmeta().custom_metadata_map.get(CODING) != fingerprint(schema):
            raise ValueError("it was compiled for other columns or levels than the version's schema")
        return cls(session, schema)

    def score(self, matrix: Floats, texts: Texts = ()) -> Scored:
        """Scores for a matrix (n, p) as `vigia_ml.schema.matrix` defines it, and the texts of
        `text_columns`, one sequence of n a column.

        A row that scikit-learn would refuse (say, a number that overflows on the way) is answered with NaN.

        Raises
        ------
        ValueError : when ONNX Runtime refuses the matrix.
        """
        given = {INPUT: matrix}
        if self._texts is not None:
            given[TEXTS] = self._texts.read(texts)
        try:
            found: Floats = self._session.run(self._outputs, given)[0]
        except Exception as error:  # its exceptions have no class of their own that could be named here
            raise ValueError(f"ONNX Runtime refused the rows: {error}") from error
        if self._classes is None:
            return Scored(values=found[:, 0])
        return Scored(probabilities=found, classes=self._classes)

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        names = [self.schema.names[place] for place in self.text_columns]
        texts = [[cast("str | None", row[name]) for row in rows] for name in names]
        return self.score(self._coder.encode(rows), texts).plain()


def _give_back() -> None:
    """Returns to the system what reading the model took and the allocator would keep: two thirds of all that
    a forest takes (of 500,000 nodes 110 MiB, and 55 stay)."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _options() -> onnxruntime.SessionOptions:
    """One request is one thread: the web server already runs as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # The arena keeps for good what the largest request took (100,000 rows: 60 MiB), memory patterns a plan
    # for every number of rows ever asked for (3,000 of them: 600 MiB). Without both, one row is as fast.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # its warnings are about graphs; they would go to the server's stderr
    return options
