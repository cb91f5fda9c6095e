"""Archives and restores models, versions and datasets, and deletes the bytes of what is archived.

An archived model, version or dataset serves no request; its rows, its log and its lineage stay. Deleting
bytes cannot be undone, so only archived things lose them, and every step is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.module_loading import import_string

from core.errors import Conflict
from training import artifacts
from training.models import (
    Archival,
    Comparison,
    Dataset,
    ModelVersion,
    PrunedArtifact,
    RegisteredModel,
    Rollout,
)
from training.models.jobs import Job
from training.registry import activation, artifact_pruning

Target = RegisteredModel | ModelVersion | Dataset
Action = Archival.Action


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows that still refer to a model, a version or a dataset.

    kind : name of the rows in the plural, or a fact. count : their number; None for a fact.
    blocks : whether they prevent archiving.
    """

    kind: str
    count: int | None
    blocks: bool = False

    def __str__(self) -> str:
        return self.kind if self.count is None else f"{self.kind}: {self.count:,}"


FromAbove = Callable[[Target], Iterator[Reference]]
_FROM_ABOVE: list[str] = []


def register(references: str) -> None:
    """Registers the references that rows of an application above hold.

    Parameters
    ----------
    references : dotted path of a `FromAbove`.
    """
    if references not in _FROM_ABOVE:
        _FROM_ABOVE.append(references)


def references(target: Target) -> list[Reference]:
    """Returns the references to a model, a version or a dataset, without empty kinds."""
    rows = [*_own(target)]
    for path in _FROM_ABOVE:
        above: FromAbove = import_string(path)
        rows += above(target)
    return [row for row in rows if row.count is None or row.count]


def _own(target: Target) -> Iterator[Reference]:
    if isinstance(target, ModelVersion):
        running = Rollout.objects.filter(version=target, stopped_at=None).count()
        if _is_active(target):
            yield Reference("it is the active version", None, blocks=True)
        yield Reference("running rollouts", running, blocks=True)
        yield Reference("ended rollouts", Rollout.objects.filter(version=target).count() - running)
        yield Reference("activations", target.activations.count())
        compared = Comparison.objects.filter(Q(before=target) | Q(after=target))
        yield Reference("comparisons", compared.count())
        if _is_rollback_target(target):
            yield Reference("it is the target of a rollback", None)
    elif isinstance(target, Dataset):
        if target.versions.filter(status="active").exists():
            yield Reference("the active version was trained on it", None)
        yield Reference("versions trained on it", target.versions.count())
        yield Reference("training runs with its rows", target.runs.count())
        others = Dataset.objects.filter(registered_model=target.registered_model_id)
        yield Reference("datasets that hold its rows", others.filter(parts__contains=target.sha256).count())
        yield Reference("unfinished training runs", _unfinished_runs(target), blocks=True)
    else:
        yield Reference("versions", target.versions.count())
        yield Reference("datasets", target.datasets.count())
        running = target.rollouts.filter(stopped_at=None).count()
        yield Reference("running rollouts", running, blocks=True)
        unfinished = target.runs.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING]).count()
        yield Reference("unfinished training runs", unfinished, blocks=True)


def _is_active(version: ModelVersion) -> bool:
    return ModelVersion.objects.filter(pk=version.pk, status=ModelVersion.Status.ACTIVE).exists()


def _is_rollback_target(version: ModelVersion) -> bool:
    return activation.rollback_target(version.registered_model) == version


def _unfinished_runs(dataset: Dataset) -> int:
    unfinished = dataset.registered_model.runs.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING])
    return unfinished.filter(Q(upload=dataset) | Q(dataset=dataset)).count()


def archive(target: Target, *, by: User | None, reason: str) -> Archival:
    """Archives a model, a version or a dataset: from the commit on it serves no request.

    Raises
    ------
    Conflict : the reason is empty; it is archived already; something that must end first refers to it, such
        as the active version.
    """
    reason = _checked(reason)
    with transaction.atomic():
        target = _locked(target)
        if target.archived_at is not None:
            raise Conflict(f"{named(target)} is already archived", code="already_archived")
        blocking = [str(row) for row in references(target) if row.blocks]
        if blocking:
            raise Conflict(
                f"cannot archive {named(target)} yet ({', '.join(blocking)}): activate another version, "
                "stop the rollout, or wait for the run",
                code="still_in_use",
            )
        return _record(target, Action.ARCHIVE, by, reason, archived_at=timezone.now())


def restore(target: Target, *, by: User | None, reason: str) -> Archival:
    """Ends archiving: the model, version or dataset serves requests again.

    Raises
    ------
    Conflict : the reason is empty; it is not archived; its bytes were deleted.
    """
    reason = _checked(reason)
    with transaction.atomic():
        target = _locked(target)
        _require_archived(target)
        if has_no_bytes(target):
            raise Conflict(
                f"cannot restore {named(target)}: its bytes were deleted; train or push a new version",
                code="bytes_deleted",
            )
        return _record(target, Action.RESTORE, by, reason, archived_at=None)


def delete_bytes(target: Target, *, by: User | None, reason: str) -> Archival:
    """Deletes the stored bytes of an archived model, version or dataset; its rows stay.

    Bytes that another version or dataset needs stay in the store. If the process dies after the commit, the
    next deletion or pruning of the model deletes what is recorded.

    Raises
    ------
    Conflict : the reason is empty; it is not archived; its bytes were deleted already.
    StoreUnavailable : the store refuses the deletion; the record stays, and a second call deletes the files.
    """
    reason = _checked(reason)
    with transaction.atomic():
        target = _locked(target)
        _require_archived(target)
        row = _record_deletion(target, by, reason)
    _remove(target)  # also what an interrupted deletion has left
    if row is None:
        raise Conflict(f"the bytes of {named(target)} were already deleted", code="bytes_deleted")
    return row


def _record_deletion(target: Target, by: User | None, reason: str) -> Archival | None:
    """Records the deletion of what is stored; returns None when nothing is."""
    versions, datasets = _with_bytes(target)
    if not versions and not datasets:
        return None
    activation.lock_bytes(shared=False)
    freed = artifact_pruning.freed(versions)
    for version in versions:
        PrunedArtifact.objects.create(version=version, by=by, freed=freed[version.pk], although_logged=True)
    now, total = timezone.now(), sum(freed.values())
    for dataset in datasets:
        total += 0 if _shared(dataset) else dataset.size
        Dataset.objects.filter(pk=dataset.pk).update(deleted_at=now, archived_at=dataset.archived_at or now)
    return _record(target, Action.DELETE_BYTES, by, reason, freed=total)


def _with_bytes(target: Target) -> tuple[list[ModelVersion], list[Dataset]]:
    """Returns the versions and datasets of a target whose bytes are stored."""
    if isinstance(target, Dataset):
        return [], [target] if target.deleted_at is None else []
    versions = ModelVersion.objects.filter(pruned=None).defer("evaluation", "schema", "parity")
    if isinstance(target, ModelVersion):
        return list(versions.filter(pk=target.pk)), []
    return list(versions.filter(registered_model=target)), list(target.datasets.filter(deleted_at=None))


def has_no_bytes(target: Target) -> bool:
    """Returns whether the bytes of a target were deleted."""
    if isinstance(target, RegisteredModel):
        versions, datasets = _with_bytes(target)
        return not versions and not datasets and target.versions.exists()
    if isinstance(target, Dataset):
        return target.deleted_at is not None
    return PrunedArtifact.objects.filter(version=target).exists()


def _remove(target: Target) -> None:
    """Deletes the files that are recorded as deleted; each in a transaction, because stores may be slow."""
    model = target if isinstance(target, RegisteredModel) else target.registered_model
    artifact_pruning.remove_files(model)
    for dataset in model.datasets.filter(deleted_at__isnull=False):
        with transaction.atomic():
            activation.lock_bytes(shared=False)
            dataset.refresh_from_db(fields=["deleted_at"])
            if dataset.deleted_at is not None and not _shared(dataset):
                artifacts.remove_dataset(dataset)


def _shared(dataset: Dataset) -> bool:
    """Returns whether a dataset of another model has the same bytes."""
    return Dataset.objects.filter(sha256=dataset.sha256, deleted_at=None).exclude(pk=dataset.pk).exists()


def _locked(target: Target) -> Any:
    """Locks the model of a target and returns the target as it is now."""
    model_id = target.pk if isinstance(target, RegisteredModel) else target.registered_model_id
    model = RegisteredModel.locked(model_id)
    if isinstance(target, RegisteredModel):
        return model
    if isinstance(target, ModelVersion):
        return ModelVersion.objects.select_related("registered_model").get(pk=target.pk)
    return (
        Dataset.objects.select_related("registered_model")
        .select_for_update(of=["self"], no_key=True)
        .get(pk=target.pk)
    )


def _record(
    target: Target, action: Archival.Action, by: User | None, reason: str, *, freed: int = 0, **fields: Any
) -> Archival:
    if fields:
        type(target)._default_manager.filter(pk=target.pk).update(**fields)
    owner = target if isinstance(target, RegisteredModel) else target.registered_model
    return Archival.objects.create(
        registered_model=owner,
        version=target if isinstance(target, ModelVersion) else None,
        dataset=target if isinstance(target, Dataset) else None,
        action=action,
        reason=reason[:500],
        freed=freed,
        by=by,
    )


def named(target: Target) -> str:
    """Returns a target's name for a message: ``churn``, ``churn 3``, ``dataset 0123456789ab``."""
    return f"dataset {target.sha256[:12]}" if isinstance(target, Dataset) else str(target)


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise Conflict("archiving needs a reason: it is recorded", code="reason_missing")
    return reason


def _require_archived(target: Target) -> None:
    if target.archived_at is None:
        raise Conflict(f"{named(target)} is not archived: archive it first", code="not_archived")
