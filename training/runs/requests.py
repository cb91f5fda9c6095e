"""Training runs as rows: requested, executed where somebody waits for it. The row is the truth.

What does the work is `training.runs.execution`, which needs pandas and scikit-learn; this module does
not, so that web processes start quickly and stay small until they load a model.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import User

from core.errors import AlreadyTrained, Conflict, NoSearchSpace
from training import artifacts, catalogue, providers
from training.jobs import leases
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.runs import row_sources

Status = TrainingRun.Status

MOST_TRIALS: Final = 1_000
"""Settings that one search may try."""
ASK_AGAIN: Final = "repeat=true adds them again"


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
    """A queued run. The caller enqueues it after the commit.

    Parameters
    ----------
    upload : the rows that came with the request; None with a `source`.
    source : where the rows are taken from when the run begins; see `training.runs.row_sources`.
    search : a search for hyper-parameters instead of one fit; see `vigia_ml.fitting.hyperparameter_search`.
    repeat : append rows although they are in the active version's dataset already.

    Raises
    ------
    NotDeclared : this process knows no file that says how the model is trained.
    NoSearchSpace : a search is asked for, and the catalogue's file declares no space.
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
    """A queued run for a request that brings no rows: on the active version's dataset, or from where the
    application above takes them (`training.providers`). The caller enqueues it after the commit.

    Raises
    ------
    Conflict : no version is active, so there are no rows to train on again.
    """
    maker = providers.find(model.name)
    upload = None if maker is not None else active_rows(model)
    return request(
        model,
        upload,
        mode=TrainingRun.Mode.REPLACE,
        by=by,
        activation_reason=activation_reason,
        source=None if maker is None else maker.source,
    )


def require_declared(model: RegisteredModel) -> None:
    """Raise `NotDeclared` when nothing that this process has read says how the model is trained."""
    if providers.find(model.name) is None:
        catalogue.get(model.name)


def require_new(model: RegisteredModel, source: dict[str, Any]) -> None:
    """Raise `AlreadyTrained` when the active version's dataset holds every row the source has now.

    It is looked at again when the run begins, because the active version may be another one then.
    """
    from vigia_ml.fitting import parquet

    active = model.active_version
    if active is None:
        return
    with artifacts.dataset_file(active.dataset) as path:
        known = set(parquet.predictions(path).to_pylist())
    rows = 0
    for page in row_sources.predictions(model, source) if known else ():
        if not known.issuperset(page):
            return
        rows += len(page)
    if rows:
        raise AlreadyTrained(all_known(rows, active))


def all_known(rows: int, active: ModelVersion) -> str:
    """The refusal of rows that the active version's dataset holds."""
    return f"all {rows:,} rows are in the dataset of {active} already; {ASK_AGAIN}"


def active_rows(model: RegisteredModel) -> Dataset:
    """What the active version was trained on.

    Raises
    ------
    Conflict : no version is active.
    """
    active = model.active_version
    if active is None:
        raise Conflict(
            f"no version of {model.name} is active, so there are no rows to train on again",
            code="no_active_version",
        )
    return active.dataset


def can_search(model: RegisteredModel) -> bool:
    """Whether the catalogue's file declares a space to search."""
    return model.name in catalogue.names() and catalogue.get(model.name).search is not None


def require_space(model: RegisteredModel) -> None:
    """Raise `NoSearchSpace` when there is nothing to search."""
    if not can_search(model):
        raise NoSearchSpace(model.name)


def execute(run_id: int) -> bool:
    """Claims and executes a run in this process; False when it is not there to be claimed."""
    return leases.execute(TrainingRun, run_id)
