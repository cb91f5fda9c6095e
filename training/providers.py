"""Providers: registered models that an application above declares, and the functions that build their
versions.

The catalogue's files declare models of rows: features in, a target out. A recommender is a different kind of
model; its application lies above this one and registers a provider here. Queue, lease, gate, activation,
canary, audit and the store of artifacts are the same for all models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import Conflict
from training import catalogue
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from vigia_ml.notes import Note
from vigia_ml.schema import DatasetSchema

if TYPE_CHECKING:
    from vigia_ml.reference_profile import Profile

Report = Callable[[str, int], None]
"""Called with the name of the stage and the progress in percent."""
Verdict = Callable[[ModelVersion | None], dict[str, Any]]
"""Returns the gate's verdict against the active version (None: no version is active); see
`vigia_ml.evaluation.metrics.check_gate`."""


@dataclass(frozen=True)
class BuildResult:
    """The result of a training run, before it becomes a version.

    Parameters
    ----------
    dataset : the stored dataset of the training.
    artifact : bytes of the fitted pipeline or of the index. compiled : bytes of the engine compiled from it.
    engine, engine_reason : the engine that serves the version, and the reason for it.
    schema : schema of the version's inputs; its columns name the inputs in the log.
    metrics, baseline : metrics on the hold-out. evaluation : further results of the evaluation, as JSON.
    parameters : hyper-parameters that a search chose. reference : see `vigia_ml.reference_profile`; None: the
    version has no drift reviews. source_sha256 : digest of the code that declares and builds the model.
    classes : classes in the order of the engine's probabilities; None for a regression.
    code_version, libraries : the code and the libraries that built the version; empty: this process's.
    notes : notes on the rows; see `vigia_ml.notes`. nothing_new : the active version was trained on all rows.
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
    classes: Sequence[Any] | None = None
    code_version: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    compiled: bytes | None = None
    parity: dict[str, Any] | None = None
    reference: Profile | None = None
    notes: tuple[Note, ...] = ()
    nothing_new: bool = False


class Build(Protocol):
    """Does the work of a run up to its result; the caller stores the result.

    Parameters
    ----------
    directory : temporary directory of the run, removed afterwards.

    Raises
    ------
    VigiaError : the run fails with the error's message.
    """

    def __call__(self, run: TrainingRun, report: Report, directory: Path) -> BuildResult: ...


@dataclass(frozen=True, slots=True)
class Remade:
    """The result of a second build from a stored dataset, for a comparison with a version.

    metrics : metrics without durations. source_sha256 : digest of today's code.
    """

    artifact: bytes
    metrics: Mapping[str, float]
    holdout_rows: int
    source_sha256: str


class Remake(Protocol):
    """Builds a version's content again from its dataset's file; stores nothing."""

    def __call__(self, path: Path, report: Report) -> Remade: ...


@dataclass(frozen=True, slots=True)
class ModelProvider:
    """One registered model of an application above.

    Parameters
    ----------
    primary_metrics : the first of them that a version has decides which version is better.
    metrics : metrics in display order. smaller_is_better : the metrics of which smaller values are better.
    source : source of a run's rows, as `TrainingRun.source` stores it.
    make, remake : dotted paths of a `Build` and of a `Remake`. asked_at : route of the model's answers.
    page : page on which people use the model. quality_at : route of its realised quality.
    example : example request.
    judged_on, baseline_is : sentences about the data of its metrics and about its baseline.
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
        """The primary metric when no version's metrics are known."""
        return self.primary_metrics[0]

    def primary_of(self, metrics: Mapping[str, float]) -> str:
        """Returns the primary metric among a version's metrics."""
        return next((name for name in self.primary_metrics if name in metrics), self.primary_metric)


_PROVIDERS: dict[str, ModelProvider] = {}


class UnsupportedForModel(Conflict):
    """The requested feature exists only for models of rows."""

    code = "unsupported_for_model"


def register(provider: ModelProvider) -> None:
    """Registers a provider; `training.registry.lookup.sync_catalogue` creates the model's row."""
    _PROVIDERS[provider.name] = provider
    catalogue.reserve(provider.name)


def every() -> list[ModelProvider]:
    return [_PROVIDERS[name] for name in sorted(_PROVIDERS)]


def find(name: str) -> ModelProvider | None:
    """Returns the provider of a registered model; None for a model of rows."""
    return _PROVIDERS.get(name)


def page(name: str) -> str:
    """Returns the page on which people use a provider's model; empty for a model of rows."""
    provider = _PROVIDERS.get(name)
    return provider.page if provider else ""


def require_rows(model: RegisteredModel, feature: str) -> None:
    """Raises `UnsupportedForModel` when `model` is not a model of rows.

    Parameters
    ----------
    feature : name of the feature in the plural, such as "outcomes"; the message quotes it.
    """
    provider = find(model.name)
    if provider is not None:
        raise UnsupportedForModel(f"{model.name} does not support {feature}; use {provider.asked_at}")
