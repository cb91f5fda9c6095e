"""Training rows that are not uploaded: they are taken from elsewhere when the run begins.

What knows such rows lies above this app (the log with its outcomes, say) and registers itself here, so that
training need not know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from django.utils.module_loading import import_string

from training.models import RegisteredModel
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows

if TYPE_CHECKING:
    from vigia_ml.fitting.parquet import Written


class Collect(Protocol):
    """Writes the rows of a source as a dataset file of `schema`.

    Raises
    ------
    VigiaError, InvalidRows : in words; the run fails with them.
    """

    def __call__(
        self, model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path
    ) -> Written: ...


Check = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes a source as it was asked for, without ``from``, and returns it as it is stored: JSON, times in ISO
8601. Raises `InvalidRows`."""

Predictions = Callable[[RegisteredModel, dict[str, Any]], Iterator[list[str]]]
"""The ids of the logged predictions whose rows a stored source holds now, in pages."""

_SOURCES: dict[str, tuple[str, str, str]] = {}


def register(name: str, *, check: str, collect: str, predictions: str) -> None:
    """Makes ``{"from": name, ...}`` a way to ask for a training run.

    Parameters
    ----------
    check, collect, predictions : dotted paths of a `Check`, a `Collect` and a `Predictions`.
    """
    _SOURCES[name] = (check, collect, predictions)


def names() -> list[str]:
    return sorted(_SOURCES)


def checked(asked: dict[str, Any]) -> dict[str, Any]:
    """A source as it is stored with a run.

    Raises
    ------
    InvalidRows : it is none, or its parameters are wrong.
    """
    name = asked.get("from")
    if not isinstance(name, str) or name not in _SOURCES:
        fault = Fault("from", "not_a_level", "rows cannot be taken from there", allowed=tuple(names()))
        raise InvalidRows([fault], message=fault.message)
    check: Check = import_string(_SOURCES[name][0])
    rest = {key: value for key, value in asked.items() if key != "from"}
    return {"from": name} | check(rest)


def collect(model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path) -> Written:
    """The rows of a stored source, in a file at `path`; see `Collect`."""
    found: Collect = import_string(_SOURCES[source["from"]][1])
    return found(model, schema, source, path)


def predictions(model: RegisteredModel, source: dict[str, Any]) -> Iterator[list[str]]:
    """The ids of the predictions a stored source takes its rows from; see `Predictions`."""
    found: Predictions = import_string(_SOURCES[source["from"]][2])
    return found(model, source)
