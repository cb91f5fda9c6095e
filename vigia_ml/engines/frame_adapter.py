"""A compiled engine with the interface of a fitted estimator, which takes frames. No Django here.

Computations over many frames, such as importances, use it: the engine gives the pipeline's answers (see
`vigia_ml.engines.parity`) much faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vigia_ml.engines import MatrixEngine, Scored
from vigia_ml.schema import DatasetSchema, moment_arrays
from vigia_ml.schema.matrix import Floats, encode_columns


class AskedByFrame:
    """`predict`, `predict_proba` and `classes_` of a compiled engine."""

    def __init__(self, engine: MatrixEngine, schema: DatasetSchema) -> None:
        self._engine, self._schema = engine, schema
        if engine.classes is not None:
            self.classes_: npt.NDArray[Any] = np.array(engine.classes)

    def predict(self, frame: Any) -> Floats:
        """Returns the predictions (n,) for a frame (n, p) from `vigia_ml.fitting.frames`."""
        values = self._score(frame).values
        assert values is not None
        return values

    def predict_proba(self, frame: Any) -> Floats:
        """Returns probabilities (n, k) in the order of `classes_`."""
        probabilities = self._score(frame).probabilities
        assert probabilities is not None
        return probabilities

    def _score(self, frame: Any) -> Scored:
        columns: dict[str, Any] = {
            column.name: (
                moment_arrays.codes(frame[column.name].to_numpy(), column.moment_type)
                if column.is_temporal
                else frame[column.name].tolist()
            )
            for column in self._schema.columns
        }
        texts = [columns[self._schema.names[place]] for place in self._engine.text_columns]
        return self._engine.score(encode_columns(self._schema, columns), texts)
