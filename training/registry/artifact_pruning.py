"""Pruning: removes the artifacts of versions that were retired long ago from the store; their rows stay.

A transaction records the pruning and increments the generation: after its commit no process answers with the
version. Then the files are deleted. If the process dies in between, the next pruning deletes what is
recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from training import artifacts
from training.models import ModelVersion, PrunedArtifact, RegisteredModel, Rollout
from training.registry import activation
from training.serving.routing import FENCE

IsReferredTo = Callable[[ModelVersion], bool]
"""Returns whether rows of the prediction log refer to a version; the log belongs to an application above."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result for one version that is old enough to be pruned.

    freed : bytes in the store that no other version needs. kept : reason for keeping the artifact; empty when
    it is removed.
    """

    version: ModelVersion
    freed: int
    kept: str = ""


def prune(
    model: RegisteredModel,
    *,
    is_referred_to: IsReferredTo,
    keep: int | None = None,
    although_logged: bool = False,
    dry_run: bool = False,
) -> list[Pruned]:
    """Removes the artifacts of the retired versions of `model` but for the newest `keep`.

    Pruning keeps the active version, the target of a rollback, versions in a running rollout and, unless
    `although_logged`, versions to which the log refers.

    Parameters
    ----------
    keep : None for the setting of the model's row; without either, no further version is pruned.
    dry_run : return the results and remove nothing.

    Returns
    -------
    The result for each version old enough, in the order of their numbers.
    """
    with transaction.atomic():
        model = RegisteredModel.locked(model.pk)
        keep = model.kept_artifacts if keep is None else keep
        judged = {} if keep is None else dict(_judged(model, keep, is_referred_to, although_logged))
        pruned = [version for version, reason in judged.items() if not reason]
        bytes_freed = freed(pruned)
        if not dry_run and pruned:
            # From here to the commit no row is logged, so no row can refer to a version after its check.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [FENCE])
            for version in pruned:
                logged = is_referred_to(version)
                if logged and not although_logged:
                    judged[version] = LOGGED
                    continue
                PrunedArtifact.objects.create(
                    version=version, freed=bytes_freed[version.pk], although_logged=logged
                )
    if not dry_run:
        remove_files(model)
    return [
        Pruned(version, 0 if reason else bytes_freed[version.pk], reason)
        for version, reason in judged.items()
    ]


LOGGED = "rows of the log refer to it"


def _judged(
    model: RegisteredModel, keep: int, is_referred_to: IsReferredTo, although_logged: bool
) -> Iterator[tuple[ModelVersion, str]]:
    """Yields (version, reason for keeping it; empty when it is pruned) for each version old enough."""
    retired = model.versions.filter(status=ModelVersion.Status.RETIRED, pruned__isnull=True)
    newest = set(retired.order_by("-number").values_list("pk", flat=True)[:keep])
    rollback_target = activation.rollback_target(model)
    tried = set(
        Rollout.objects.filter(registered_model=model, stopped_at__isnull=True).values_list(
            "version_id", flat=True
        )
    )
    for version in retired.exclude(pk__in=newest).select_related("registered_model").order_by("number"):
        if version == rollback_target:
            yield version, "it is the target of a rollback"
        elif version.pk in tried:
            yield version, "it is in a running rollout"
        elif not although_logged and is_referred_to(version):
            yield version, LOGGED
        else:
            yield version, ""


def freed(pruned: list[ModelVersion]) -> dict[int, int]:
    """Returns the bytes of each pruned version that no other version needs; shared bytes count once."""
    leaving, counted = [version.pk for version in pruned], set[str]()
    sizes: dict[int, int] = {}
    for version in pruned:
        sizes[version.pk] = 0
        for digest, size in _parts(version):
            if digest not in counted and not _needed(digest, besides=leaving):
                counted.add(digest)
                sizes[version.pk] += size
    return sizes


def _parts(version: ModelVersion) -> list[tuple[str, int]]:
    parts = [(version.artifact_sha256, version.artifact_size)]
    if version.compiled_sha256:
        parts.append((version.compiled_sha256, version.compiled_size or 0))
    return parts


def _needed(digest: str, *, besides: list[int]) -> bool:
    """Returns whether a version that was not pruned has these bytes: equal bytes are stored once."""
    holds: Any = Q(artifact_sha256=digest) | Q(compiled_sha256=digest)
    return ModelVersion.objects.filter(holds, pruned__isnull=True).exclude(pk__in=besides).exists()


def remove_files(model: RegisteredModel) -> None:
    """Deletes the recorded artifacts that are still stored, including those of an interrupted earlier
    pruning.

    It holds the lock of bytes: a run that is about to create a version with equal bytes checks under that
    lock whether they still exist (see `training.artifacts.ensure`). Each version has its own transaction,
    because a store can be slow and runs must not wait for all deletions.
    """
    for version in model.versions.filter(pruned__isnull=False):
        with transaction.atomic():
            activation.lock_bytes(shared=False)
            for digest, _ in _parts(version):
                if not _needed(digest, besides=[]):
                    artifacts.remove(digest)
