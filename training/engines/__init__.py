"""Fitted pipeline -> something that answers. No Django here.

An engine is built from the verified bytes of a version's artifact and is then asked for `Scores`. The
scikit-learn engine is the one every model can have; a faster one only has to keep this interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from training.schema import DatasetSchema, Value


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw results for n rows.

    values : n numbers for a regression (target's unit), else n class labels (the most probable one).
    probabilities : n rows of k class probabilities in the order of `classes`; None for a regression.
    """

    values: Sequence[Any]
    probabilities: Sequence[Sequence[float]] | None = None
    classes: Sequence[Any] = ()


class Engine(Protocol):
    """What the inference path needs to know of a model."""

    name: str

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        """Scores for valid rows (see `DatasetSchema.read`), same number, same order."""
        ...


class UnknownEngine(LookupError):
    """The version names an engine this code does not have."""


def load(name: str, artifact: bytes, schema: DatasetSchema) -> Engine:
    """The engine `name` from artifact bytes that were VERIFIED before (see `training.artifacts`)."""
    if name == "sklearn":
        from training.engines.sklearn import SklearnEngine

        return SklearnEngine.from_bytes(artifact, schema)
    raise UnknownEngine(f"this code has no engine {name!r}")
