"""Training runs as rows: requested, found waiting. The row is the truth.

What executes them is `training.services.execution`, which needs pandas and scikit-learn; this module does
not, so that web processes start quickly and stay small until they load a model.
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.db.models import Q
from django.db.models.functions import Now

from training.models import Dataset, RegisteredModel, TrainingRun

Status = TrainingRun.Status


def request(
    model: RegisteredModel,
    upload: Dataset,
    *,
    mode: str,
    by: User | None,
    activation_reason: str = "",
) -> TrainingRun:
    """A queued run. The caller enqueues its id after the commit."""
    return TrainingRun.objects.create(
        registered_model=model,
        upload=upload,
        mode=mode,
        requested_by=by,
        activation_reason=activation_reason.strip()[:500],
        stage="queued",
    )


def waiting_run_ids() -> list[int]:
    """Runs that a worker could claim now but none has: their message may have been lost."""
    patience = Now() - timedelta(seconds=20)
    waiting = Q(status=Status.QUEUED, queued_at__lt=patience) | Q(
        status=Status.RUNNING, lease_until__lt=Now()
    )
    return list(TrainingRun.objects.filter(waiting).order_by("id").values_list("id", flat=True))


def execute(run_id: int) -> bool:
    """Claims and executes a run; False when it is not there to be claimed (done, or held by another)."""
    from training.services import execution

    return execution.execute(run_id)
