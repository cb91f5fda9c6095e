"""Requests for training runs. The row is the truth.

`training.runs.execution` does the work and needs pandas and scikit-learn. This module imports neither, so
that web processes start quickly and stay small until they load a model.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import User

from core.errors import AlreadyTrained, Conflict, NoSearchSpace
from training import artifacts, providers
from training.jobs import leases
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.registry import declarations
from training.runs import parquet_process, row_sources, uploads

MOST_TRIALS: Final = 1_000
"""Largest number of combinations of hyper-parameters that one search may try."""
REPEAT_HINT: Final = "repeat=true adds them again"


def request(
    model: RegisteredModel,
    upload: Dataset | None,
    *,
    mode: str,
    by: User | None,
    activation_reason: str = "",
    source: dict[str, Any] | None = None,
    search: dict[str, Any] | None = None,
    repeat: bool = False,
) -> TrainingRun:
    """Creates a queued run. The caller enqueues it after the commit.

    Parameters
    ----------
    upload : the rows that came with the request; None with a `source`.
    source : the source from which the run takes its rows when it begins; see `training.runs.row_sources`.
    search : settings of a hyper-parameter search (None: one fit); see
        `vigia_ml.fitting.hyperparameter_search`.
    repeat : append rows that the active version's dataset already holds.

    Raises
    ------
    NotDeclared : no file in the catalogue declares how the model is trained. NotTrainable : its versions were
        pushed or imported.
    NoSearchSpace : the request has a search, and the declaration has no search space.
    """
    require_declared(model)
    if search is not None:
        require_space(model)
    return TrainingRun.objects.create(
        registered_model=model,
        upload=upload,
        source=source,
        search=search,
        repeat=repeat,
        mode=mode,
        requested_by=by,
        activation_reason=activation_reason.strip()[:500],
        stage="queued",
    )


def request_again(model: RegisteredModel, *, by: User | None, activation_reason: str = "") -> TrainingRun:
    """Creates a queued run for a request without rows. The caller enqueues it after the commit.

    The run trains on the active version's dataset, or on the source of the model's provider
    (`training.providers`).

    Raises
    ------
    Conflict : no version is active, so there are no rows to train on again.
    NotDeclared, NotTrainable : see `request`.
    """
    require_declared(model)
    provider = providers.find(model.name)
    upload = None if provider is not None else active_rows(model)
    return request(
        model,
        upload,
        mode=TrainingRun.Mode.REPLACE,
        by=by,
        activation_reason=activation_reason,
        source=None if provider is None else provider.source,
    )


def require_declared(model: RegisteredModel) -> None:
    """Raises `NotDeclared` when neither a provider nor the catalogue declares how the model is trained, and
    `NotTrainable` when the model's versions were pushed or imported."""
    if providers.find(model.name) is None:
        declarations.require_trainable(model)


def require_new(model: RegisteredModel, source: dict[str, Any]) -> None:
    """Raises `AlreadyTrained` when the active version's dataset holds every row of the source.

    The run checks again when it begins, because another version may be active then. It alone checks if this
    process cannot read files of rows.
    """
    if not uploads.can_store():
        return
    active = model.active_version
    if active is None:
        return
    rows = 0
    with (
        artifacts.dataset_file(active.dataset) as path,
        parquet_process.logged_predictions(path) as known,
    ):
        for page in row_sources.of(source).predictions(model, source) if known.any else ():
            if not known.include_all(page):
                return
            rows += len(page)
    if rows:
        raise AlreadyTrained(all_known_message(rows, active))


def all_known_message(rows: int, active: ModelVersion) -> str:
    return f"all {rows:,} rows are already in the dataset of {active}; {REPEAT_HINT}"


def active_rows(model: RegisteredModel) -> Dataset:
    """Returns the dataset of the active version.

    Raises
    ------
    Conflict : no version is active.
    """
    active = model.active_version
    if active is None:
        raise Conflict(
            f"no version of {model.name} is active, so there are no rows to train on again: send rows",
            code="no_active_version",
        )
    return active.dataset


def can_search(model: RegisteredModel) -> bool:
    return declarations.is_trainable(model) and declarations.of(model).search is not None


def require_space(model: RegisteredModel) -> None:
    """Raises `NoSearchSpace` when the model's declaration has no search space."""
    if not can_search(model):
        raise NoSearchSpace(model.name)


def execute(run_id: int) -> bool:
    """Claims and executes a run in this process; returns False when the run cannot be claimed."""
    return leases.execute(TrainingRun, run_id)
