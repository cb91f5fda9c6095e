"""Fitted pipeline -> something that answers. No Django here.

An engine is built from the verified bytes of a version and is then asked for `Scores`. Every version has its
fitted scikit-learn pipeline; where that pipeline can be compiled and the compiled one gives the same answers
(see `vigia_ml.engines.parity`), ONNX Runtime serves the version, without scikit-learn in the process.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from vigia_ml.schema import DatasetSchema, Value

if TYPE_CHECKING:  # what asks for no answer needs no numpy
    from vigia_ml.schema.matrix import Floats


PARITY_PROTOCOL: Final = 2
"""Number of the rows by which a compiled engine is compared with scikit-learn, see `vigia_ml.engines.parity`.
Under an older one neither the edges of steps were asked about nor the decisions compared."""
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
        """The same as lists, with the most probable class of each row."""
        if self.probabilities is None:
            assert self.values is not None
            return Scores(self.values.tolist())
        likeliest = [self.classes[place] for place in self.probabilities.argmax(axis=1).tolist()]
        return Scores(likeliest, self.probabilities.tolist(), self.classes)


class Engine(Protocol):
    """What the inference path needs to know of a model.

    takes_matrix : whether it also has `score` (see `MatrixEngine`).
    """

    name: str
    takes_matrix: bool

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> Scores:
        """Scores for valid rows (see `DatasetSchema.read`), same number, same order."""
        ...


@runtime_checkable
class MatrixEngine(Engine, Protocol):
    """An engine that is spared the rows: who has the matrix of `vigia_ml.schema.matrix` hands that in.

    text_columns : places in the schema of the texts it reads besides; mostly none.
    """

    text_columns: tuple[int, ...]

    def score(self, matrix: Floats, texts: Texts = ()) -> Scored:
        """Scores for a matrix (n, p), float64, C-contiguous, as `matrix.encode` makes it.

        Parameters
        ----------
        texts : n texts (or None) of each of `text_columns`.
        """
        ...


class UnknownEngine(LookupError):
    """The version names an engine this code does not have."""


_MORE: dict[str, str] = {}


def register(name: str, loader: str) -> None:
    """Adds an engine of an application above.

    Parameters
    ----------
    loader : ``module:function`` that takes verified bytes and gives an `Engine`. It unpickles nothing, and
        what it gives does not depend on the scikit-learn that made the bytes.
    """
    _MORE[name] = loader


def stands_alone(name: str) -> bool:
    """Whether an engine is loaded from an artifact that is no pickle."""
    return name in _MORE


def load(name: str, artifact: bytes, schema: DatasetSchema) -> Engine:
    """The engine `name` from bytes that were VERIFIED before (see `training.artifacts`)."""
    if name == "sklearn":
        from vigia_ml.engines.sklearn import SklearnEngine

        return SklearnEngine.from_bytes(artifact, schema)
    if name == "onnx":
        from vigia_ml.engines.onnx import OnnxEngine

        return OnnxEngine.from_bytes(artifact, schema)
    if name in _MORE:
        module, _, function = _MORE[name].partition(":")
        made: Engine = attrgetter(function)(importlib.import_module(module))(artifact)
        return made
    raise UnknownEngine(f"this code has no engine {name!r}")
