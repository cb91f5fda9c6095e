"""Sources of training rows that are not uploaded; a run collects their rows when it begins.

Applications above this one (such as the prediction log with its outcomes) register their sources here, so
that training does not import them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from training.models import RegisteredModel
from vigia_ml.schema import DatasetSchema, InvalidRows

if TYPE_CHECKING:
    from vigia_ml.fitting.dataset_file import Written


class Source(Protocol):
    """The functions of a source's module."""

    def check(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Takes the parameters of a requested source, without ``from``, and returns them as they are stored:
        JSON, times in ISO 8601. Raises `InvalidRows`."""

    def collect(
        self, model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path
    ) -> Written:
        """Writes the rows of a stored source as a dataset file of `schema`. If it raises a `VigiaError` or
        `InvalidRows`, the run fails with the error's message."""

    def predictions(self, model: RegisteredModel, source: dict[str, Any]) -> Iterator[list[str]]:
        """Returns the ids of the logged predictions whose rows a stored source holds now, in pages."""


_MODULES: dict[str, str] = {}


def register(name: str, module: str) -> None:
    """Registers the module of a `Source`; a training request names it as ``{"from": name, ...}``."""
    _MODULES[name] = module


def of(source: dict[str, Any]) -> Source:
    """Returns the module that reads the rows of a stored or requested source."""
    return cast("Source", import_module(_MODULES[source["from"]]))


def checked(request: dict[str, Any]) -> dict[str, Any]:
    """Returns a requested source as it is stored with a run.

    Raises
    ------
    InvalidRows : the source is unknown, or its parameters are wrong.
    """
    name = request.get("from")
    if not isinstance(name, str) or name not in _MODULES:
        names = tuple(sorted(_MODULES))
        message = f"from must name a source of rows: {', '.join(names)}"
        raise InvalidRows.single("from", "not_a_level", message, allowed=names)
    parameters = {key: value for key, value in request.items() if key != "from"}
    return {"from": name} | of(request).check(parameters)
