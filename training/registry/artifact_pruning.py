"""Artifacts of versions that were retired long ago are removed from the store; their rows stay.

Recorded first, in a transaction that grows the generation: from its commit on no process answers with the
version. Then the files go. Whatever dies in between, the record says what is to be removed, and the next
pruning removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q

from training import artifacts
from training.models import ModelVersion, PrunedArtifact, RegisteredModel, Rollout
from training.registry import activation
from training.serving.routing import FENCE

IsReferredTo = Callable[[ModelVersion], bool]
"""Whether rows of the prediction log still refer to a version; the log lies above this app."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of a version that is old enough.

    freed : bytes in the store that no other version needs. kept : why its artifact was kept, in words; else
    empty.
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
    by: User | None = None,
) -> list[Pruned]:
    """Removes the artifacts of the retired versions of `model` but for the newest `keep`.

    Never the active version's, nor that of what a rollback would go to, nor of one that is being tried in a
    rollout; nor, unless `although_logged`, of one the log refers to.

    Parameters
    ----------
    keep : None for what the model's row says; with neither, nothing new is pruned.
    dry_run : says what would be done, and does nothing.

    Returns
    -------
    What became of each version old enough, in the order of their numbers.
    """
    with transaction.atomic():
        activation.lock(model.pk)
        model = RegisteredModel.objects.get(pk=model.pk)
        keep = model.kept_artifacts if keep is None else keep
        judged = [] if keep is None else list(_judged(model, keep, is_referred_to, although_logged))
        going = [version for version, why in judged if not why]
        freed = _freed(going)
        if not dry_run and going:
            # From here to the commit no row is logged, so none can come to refer to a version after it was
            # asked about.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [FENCE])
            for version in going:
                logged = is_referred_to(version)
                if logged and not although_logged:
                    judged[judged.index((version, ""))] = (version, LOGGED)
                    continue
                PrunedArtifact.objects.create(
                    version=version, by=by, freed=freed[version.pk], although_logged=logged
                )
    if not dry_run:
        _remove_files(model)
    return [Pruned(version, 0 if why else freed[version.pk], why) for version, why in judged]


LOGGED = "rows of the log refer to it"


def _judged(
    model: RegisteredModel, keep: int, is_referred_to: IsReferredTo, although_logged: bool
) -> Iterator[tuple[ModelVersion, str]]:
    """(version, why it is kept; empty when it goes), of those old enough."""
    retired = model.versions.filter(status=ModelVersion.Status.RETIRED, pruned__isnull=True)
    newest = set(retired.order_by("-number").values_list("pk", flat=True)[:keep])
    back = activation.rollback_target(model)
    tried = set(
        Rollout.objects.filter(registered_model=model, stopped_at__isnull=True).values_list(
            "version_id", flat=True
        )
    )
    for version in retired.exclude(pk__in=newest).select_related("registered_model").order_by("number"):
        if version == back:
            yield version, "a rollback would go to it"
        elif version.pk in tried:
            yield version, "it is being tried in a rollout"
        elif not although_logged and is_referred_to(version):
            yield version, LOGGED
        else:
            yield version, ""


def _freed(going: list[ModelVersion]) -> dict[int, int]:
    """Of each version, the bytes no version that stays needs; shared ones are counted once."""
    leaving, counted, found = [version.pk for version in going], set[str](), {}
    for version in going:
        found[version.pk] = 0
        for digest, size in _parts(version):
            if digest not in counted and not _needed(digest, besides=leaving):
                counted.add(digest)
                found[version.pk] += size
    return found


def _parts(version: ModelVersion) -> list[tuple[str, int]]:
    parts = [(version.artifact_sha256, version.artifact_size)]
    if version.compiled_sha256:
        parts.append((version.compiled_sha256, version.compiled_size or 0))
    return parts


def _needed(digest: str, *, besides: list[int]) -> bool:
    """Whether a version that was not pruned has these bytes; artifacts are stored by their content."""
    holds: Any = Q(artifact_sha256=digest) | Q(compiled_sha256=digest)
    return ModelVersion.objects.filter(holds, pruned__isnull=True).exclude(pk__in=besides).exists()


def _remove_files(model: RegisteredModel) -> None:
    """Removes what is recorded as pruned and still there, be it from an earlier pruning that was interrupted.

    Under the lock of bytes: a run that is about to make a version of the very same ones looks under that lock
    whether they are still there (see `training.artifacts.ensure`). One version at a time, because a store can
    be slow and others must not wait for all of it.
    """
    for version in model.versions.filter(pruned__isnull=False):
        with transaction.atomic():
            activation.lock_bytes(shared=False)
            for digest, _ in _parts(version):
                if not _needed(digest, besides=[]):
                    artifacts.remove(digest)
