"""Training runs as rows: requested, executed where somebody waits for it. The row is the truth.

What does the work is `training.services.execution`, which needs pandas and scikit-learn; this module does
not, so that web processes start quickly and stay small until they load a model.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import User

from training import catalogue
from training.errors import Conflict, NoSearchSpace
from training.models import Dataset, RegisteredModel, TrainingRun
from training.services import jobs, makers

Status = TrainingRun.Status

MOST_TRIALS: Final = 1_000
"""Settings that one search may try."""


def request(
    model: RegisteredModel,
    upload: Dataset | None,
    *,
    mode: str,
    by: User | None,
    activation_reason: str = "",
    source: dict[str, Any] | None = None,
    search: dict[str, Any] | None = None,
) -> TrainingRun:
    """A queued run. The caller enqueues it after the commit.

    Parameters
    ----------
    upload : the rows that came with the request; None with a `source`.
    source : where the rows are taken from when the run begins; see `training.services.sources`.
    search : a search for hyper-parameters instead of one fit; see `training.searching`.

    Raises
    ------
    NoSearchSpace : a search is asked for, and the catalogue's file declares no space.
    """
    if search is not None:
        require_space(model)
    return TrainingRun.objects.create(
        registered_model=model,
        upload=upload,
        source=source,
        search=search,
        mode=mode,
        requested_by=by,
        activation_reason=activation_reason.strip()[:500],
        stage="queued",
    )


def request_again(model: RegisteredModel, *, by: User | None, activation_reason: str = "") -> TrainingRun:
    """A queued run for a request that brings no rows: on the active version's dataset, or from where the
    application above takes them (`training.services.makers`). The caller enqueues it after the commit.

    Raises
    ------
    Conflict : no version is active, so there are no rows to train on again.
    """
    maker = makers.find(model.name)
    upload = None if maker is not None else active_rows(model)
    return request(
        model,
        upload,
        mode=TrainingRun.Mode.REPLACE,
        by=by,
        activation_reason=activation_reason,
        source=None if maker is None else maker.source,
    )


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
    return jobs.execute(TrainingRun, run_id)
