"""Engines: what computes a version's predictions. No Django here.

An engine is built from the verified bytes of a version and returns `Scores`. Every version has its fitted
scikit-learn pipeline. Where that pipeline can be compiled and the compiled engine gives the same answers (see
`vigia_ml.engines.parity`), ONNX Runtime serves the version, without scikit-learn in the process.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from vigia_ml.schema import DatasetSchema, Value

if TYPE_CHECKING:  # a process without predictions needs no numpy
    from vigia_ml.schema.matrix import Floats


PARITY_PROTOCOL: Final = 2
"""Version of the comparison of a compiled engine with scikit-learn, see `vigia_ml.engines.parity`. Older ones
compared neither the edges of steps nor the decisions."""
Texts = Sequence[Sequence["str | None"]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw results for n rows.

    values : n numbers for a regression (target's unit), else n class labels (the most probable one).
    probabilities : n rows of k class probabilities in the order of `classes`; None for a regression.
    """

    values: Sequence[Any]
    probabilities: Sequence[Sequence[float]] | None = None
    classes: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Raw results for n rows as arrays.

    values : (n,) for a regression, in the target's unit; None for a classification.
    probabilities : (n, k) in the order of `classes`; None for a regression.
    """

    values: Floats | None = None
    probabilities: Floats | None = None
    classes: tuple[Any, ...] = ()

    def plain(self) -> Scores:
        """Returns the scores as lists, with the most probable class of each row."""
        if self.probabilities is None:
            assert self.values is not None
            return Scores(self.values.tolist())
        likeliest = [self.classes[place] for place in self.probabilities.argmax(axis=1).tolist()]
        return Scores(likeliest, self.probabilities.tolist(), self.classes)


class Engine(Protocol):
    """The interface of an engine to the inference path.

    takes_matrix : whether the engine also has `score` (see `MatrixEngine`).
    """

    name: str
    takes_matrix: bool

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The classes in the order of the probabilities; None without classes."""
        ...

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        """Returns the scores of valid rows (see `DatasetSchema.read`), in the same number and order."""
        ...


@runtime_checkable
class MatrixEngine(Engine, Protocol):
    """An engine that takes the matrix of `vigia_ml.schema.matrix` instead of rows.

    text_columns : positions in the schema of the texts that it also reads; mostly none.
    """

    text_columns: tuple[int, ...]

    def score(self, matrix: Floats, texts: Texts = ()) -> Scored:
        """Returns the scores of a matrix (n, p), float64, C-contiguous, from its `Coder.encode`.

        Parameters
        ----------
        texts : n texts (or None) of each of `text_columns`.
        """
        ...


def class_name(label: Any) -> str:
    """Returns a class as the key of its probability in an answer: the text itself, or true, false, a number
    as in JSON."""
    return label if isinstance(label, str) else json.dumps(label)


class UnknownEngine(LookupError):
    """Raised when a version names an engine that this code does not have."""


_MORE: dict[str, str] = {}


def register(name: str, loader: str) -> None:
    """Adds the engine of an application on a higher floor.

    Parameters
    ----------
    loader : ``module:function`` that takes verified bytes and returns an `Engine`. It unpickles nothing, and
        the engine does not depend on the release of scikit-learn that wrote the bytes.
    """
    _MORE[name] = loader


def stands_alone(name: str) -> bool:
    """Returns whether the engine's artifact is not a pickle."""
    return name in _MORE


def load(name: str, artifact: bytes, schema: DatasetSchema) -> Engine:
    """Loads the engine `name` from bytes that are already VERIFIED (see `training.artifacts`)."""
    if name == "sklearn":
        from vigia_ml.engines.sklearn import SklearnEngine

        return SklearnEngine.from_bytes(artifact, schema)
    if name == "onnx":
        from vigia_ml.engines.onnx import OnnxEngine

        return OnnxEngine.from_bytes(artifact, schema)
    if name in _MORE:
        module, _, function = _MORE[name].partition(":")
        engine: Engine = attrgetter(function)(importlib.import_module(module))(artifact)
        return engine
    raise UnknownEngine(f"this code has no engine {name!r}")
