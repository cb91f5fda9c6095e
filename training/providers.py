"""Registered models that an application above declares, and how their versions are made.

The catalogue's files declare models of rows: features in, a target out. A recommender is another thing, and
what knows it lies above this app; it registers itself here. Queue, lease, gate, activation, canary, audit and
the store of artifacts are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from django.utils.module_loading import import_string

from core.errors import Conflict
from training import catalogue
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from vigia_ml.notes import Note
from vigia_ml.schema import DatasetSchema

if TYPE_CHECKING:
    from vigia_ml.reference_profile import Profile

Report = Callable[[str, int], None]
"""Called with what is being done and how far it is, in per cent."""
Verdict = Callable[[ModelVersion | None], dict[str, Any]]
"""The gate's verdict beside the active version (None: none is).

See `vigia_ml.evaluation.metrics.check_gate`.
"""


@dataclass(frozen=True)
class BuildResult:
    """What a training run has made, before it becomes a version.

    Parameters
    ----------
    dataset : what it was trained on, stored already.
    artifact : the bytes of the fitted pipeline or of the index. compiled : of the engine compiled from it.
    engine, engine_reason : what serves it, and why.
    schema : what is asked of the version; its columns name the inputs in the log.
    metrics, baseline : on the hold-out. evaluation : what else is known of it, as JSON.
    parameters : what a search chose. reference : see `vigia_ml.reference_profile`; None: its log is not
    reviewed. source_sha256 : of the code that declares and makes it.
    notes : on its rows; see `vigia_ml.notes`. nothing_new : the active version was trained on all of them.
    """

    dataset: Dataset
    artifact: bytes
    engine: str
    engine_reason: str
    schema: DatasetSchema
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    train_rows: int
    holdout_rows: int
    seed: int
    source_sha256: str
    verdict: Verdict
    evaluation: dict[str, Any] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    compiled: bytes | None = None
    parity: dict[str, Any] | None = None
    reference: Profile | None = None
    notes: tuple[Note, ...] = ()
    nothing_new: bool = False


class Build(Protocol):
    """Does the work of a run, up to what is stored.

    Parameters
    ----------
    directory : of the run's own, removed afterwards.

    Raises
    ------
    VigiaError : in words; the run fails with them.
    """

    def __call__(self, run: TrainingRun, report: Report, directory: Path) -> BuildResult: ...


@dataclass(frozen=True, slots=True)
class Remade:
    """What is made of a stored dataset again, to be compared with a version.

    metrics : without those that are times. source_sha256 : of today's code.
    """

    artifact: bytes
    metrics: Mapping[str, float]
    holdout_rows: int
    source_sha256: str


class Remake(Protocol):
    """Makes a version's content again from its dataset's file; stores nothing."""

    def __call__(self, path: Path, report: Report) -> Remade: ...


@dataclass(frozen=True, slots=True)
class ModelProvider:
    """One registered model of an application above.

    Parameters
    ----------
    primary_metrics : what "better" means: the first of them that a version has.
    metrics : in the order in which they are shown. smaller_is_better : of these.
    source : where a run takes its rows from, as `TrainingRun.source` stores it.
    make, remake : dotted paths of a `Build` and of a `Remake`. asked_at : the route that answers for it;
        page : where people ask it; quality_at : what became of its answers. example : of a question.
    judged_on, baseline_is : what its metrics were measured on, and what they are compared with, in sentences.
    """

    name: str
    title: str
    description: str
    policy: str
    primary_metrics: tuple[str, ...]
    metrics: tuple[str, ...]
    smaller_is_better: frozenset[str]
    source: dict[str, Any]
    make: str
    remake: str
    asked_at: str
    example: dict[str, Any]
    page: str
    quality_at: str
    judged_on: str
    baseline_is: str
    task: str = "recommendation"

    @property
    def primary_metric(self) -> str:
        """Where no version says which of them it has."""
        return self.primary_metrics[0]

    def primary_of(self, metrics: Mapping[str, float]) -> str:
        """The primary metric among those of a version."""
        return next((name for name in self.primary_metrics if name in metrics), self.primary_metric)


_MAKERS: dict[str, ModelProvider] = {}


class UnsupportedForModel(Conflict):
    """What is asked for exists for models of rows alone."""

    code = "unsupported_for_model"


def register(maker: ModelProvider) -> None:
    """Adds a registered model; its row is made by `training.registry.lookup.sync_catalogue`."""
    _MAKERS[maker.name] = maker
    catalogue.reserve(maker.name)


def every() -> list[ModelProvider]:
    return [_MAKERS[name] for name in sorted(_MAKERS)]


def find(name: str) -> ModelProvider | None:
    """The maker of a registered model; None for a model of rows."""
    return _MAKERS.get(name)


def page(name: str) -> str:
    """Where people ask a model of an application above; empty for one of rows."""
    maker = _MAKERS.get(name)
    return maker.page if maker else ""


def build_of(maker: ModelProvider) -> Build:
    found: Build = import_string(maker.make)
    return found


def remake_of(maker: ModelProvider) -> Remake:
    found: Remake = import_string(maker.remake)
    return found


def require_rows(model: RegisteredModel, what: str) -> None:
    """Raise `UnsupportedForModel` when `model` is not one of rows.

    Parameters
    ----------
    what : cannot be had of it, in words, such as "outcomes".
    """
    maker = find(model.name)
    if maker is not None:
        raise UnsupportedForModel(f"{model.name} takes no {what}: it answers at {maker.asked_at}")
