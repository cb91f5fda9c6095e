"""The engine of every pipeline: scikit-learn itself, on a pandas frame."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import joblib
from joblib.numpy_pickle import NumpyUnpickler
from joblib.numpy_pickle_utils import _validate_fileobject_and_memmap

from vigia_ml import moved
from vigia_ml.engines import Scores
from vigia_ml.fitting import frames
from vigia_ml.schema import DatasetSchema, Value

COMPRESSION = 3


class _Unpickler(NumpyUnpickler):  # type: ignore[misc]
    """joblib's unpickler, which also reads artifacts with older module names."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(moved.today(module), name)


def _unpickled(artifact: bytes) -> Any:
    """Unpickles as `joblib.load` does, which accepts no other unpickler."""
    with _validate_fileobject_and_memmap(io.BytesIO(artifact), "", None) as (stream, _):
        return _Unpickler("", stream, ensure_native_byte_order=True).load()


class SklearnEngine:
    """Runs the fitted pipeline. `pipeline` is read-only after fitting, so threads may share it."""

    name = "sklearn"
    takes_matrix = False

    def __init__(self, pipeline: Any, schema: DatasetSchema) -> None:
        self.pipeline, self.schema = pipeline, schema

    @property
    def classes(self) -> tuple[Any, ...] | None:
        classes = getattr(self.pipeline, "classes_", None)
        return None if classes is None else tuple(classes.tolist())

    @classmethod
    def from_bytes(cls, artifact: bytes, schema: DatasetSchema) -> SklearnEngine:
        """Unpickles the artifact; the caller has checked its digest and HMAC."""
        return cls(_unpickled(artifact), schema)

    def to_bytes(self) -> bytes:
        """Returns the pipeline as an artifact."""
        buffer = io.BytesIO()
        joblib.dump(self.pipeline, buffer, compress=COMPRESSION)
        return buffer.getvalue()

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        frame = frames.from_values(self.schema, rows)
        if not hasattr(self.pipeline, "classes_"):
            return Scores(self.pipeline.predict(frame).tolist())
        probabilities = self.pipeline.predict_proba(frame)
        classes = self.pipeline.classes_
        return Scores(
            classes[probabilities.argmax(axis=1)].tolist(), probabilities.tolist(), classes.tolist()
        )
