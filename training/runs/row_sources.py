"""Sources of training rows that are not uploaded; a run collects their rows when it begins.

Applications above this one (such as the prediction log with its outcomes) register their sources here, so
that training does not import them.
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
    VigiaError, InvalidRows : the run fails with the error's message.
    """

    def __call__(
        self, model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path
    ) -> Written: ...


Check = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the parameters of a requested source, without ``from``, and returns them as they are stored: JSON,
times in ISO 8601. Raises `InvalidRows`."""

Predictions = Callable[[RegisteredModel, dict[str, Any]], Iterator[list[str]]]
"""Returns the ids of the logged predictions whose rows a stored source holds now, in pages."""

_SOURCES: dict[str, tuple[str, str, str]] = {}


def register(name: str, *, check: str, collect: str, predictions: str) -> None:
    """Registers a source; a training request names it as ``{"from": name, ...}``.

    Parameters
    ----------
    check, collect, predictions : dotted paths of a `Check`, a `Collect` and a `Predictions`.
    """
    _SOURCES[name] = (check, collect, predictions)


def checked(request: dict[str, Any]) -> dict[str, Any]:
    """Returns a requested source as it is stored with a run.

    Raises
    ------
    InvalidRows : the source is unknown, or its parameters are wrong.
    """
    name = request.get("from")
    if not isinstance(name, str) or name not in _SOURCES:
        names = tuple(sorted(_SOURCES))
        message = f"from must name a source of rows: {', '.join(names)}"
        fault = Fault("from", "not_a_level", message, allowed=names)
        raise InvalidRows([fault], message=fault.message)
    check: Check = import_string(_SOURCES[name][0])
    parameters = {key: value for key, value in request.items() if key != "from"}
    return {"from": name} | check(parameters)


def collect(model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path) -> Written:
    """Writes the rows of a stored source to a file at `path`; see `Collect`."""
    function: Collect = import_string(_SOURCES[source["from"]][1])
    return function(model, schema, source, path)


def predictions(model: RegisteredModel, source: dict[str, Any]) -> Iterator[list[str]]:
    """Returns the ids of the predictions from which a stored source takes its rows; see `Predictions`."""
    function: Predictions = import_string(_SOURCES[source["from"]][2])
    return function(model, source)
