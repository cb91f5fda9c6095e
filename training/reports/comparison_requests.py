"""Requests for comparisons of two versions: one row for each pair. `comparison_job` does the work."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet

from core.errors import Conflict
from training import artifacts, providers
from training.models import Comparison, ModelVersion, RegisteredModel
from training.registry import lookup

Status = Comparison.Status


def of(one: ModelVersion, other: ModelVersion) -> QuerySet[Comparison, Comparison]:
    """Returns the comparisons of two versions, newest first; the order of the arguments does not matter."""
    for version in (one, other):
        artifacts.check_kept(version)
    before, after = sorted((one, other), key=lambda version: version.number)
    return _rows().filter(before=before, after=after).order_by("-id")


def _rows() -> QuerySet[Comparison, Comparison]:
    """Returns comparisons joined with both versions, without the versions' large columns."""
    rows = Comparison.objects.select_related("registered_model", "before", "after", "requested_by")
    return rows.defer("before__evaluation", "before__schema", "after__evaluation", "after__schema")


def shown(one: ModelVersion, other: ModelVersion) -> Comparison | None:
    """Returns the newest comparison that succeeded, else the newest one, or None."""
    rows = of(one, other)
    return rows.filter(status=Status.SUCCEEDED).first() or rows.first()


def request(one: ModelVersion, other: ModelVersion, *, by: User | None) -> tuple[Comparison, bool]:
    """Returns a comparison on the later version's hold-out, and whether it is new; the caller enqueues a new
    one.

    Versions never change, so a comparison that succeeded stays valid and is returned again.

    Raises
    ------
    Conflict : both are the same version, or they belong to two models.
    Archived, ArtifactPruned : a version cannot answer.
    """
    if one.registered_model_id != other.registered_model_id:
        raise Conflict("the versions belong to different models; choose two versions of one model")
    if one.pk == other.pk:
        raise Conflict(f"{one} cannot be compared with itself; choose another version")
    providers.require_rows(one.registered_model, "comparisons on one hold-out")
    before, after = sorted((one, other), key=lambda version: version.number)
    with transaction.atomic():
        # Concurrent requests queue here, so that they share one comparison.
        RegisteredModel.locked(one.registered_model_id)
        known = of(one, other).exclude(status__in=[Status.FAILED, Status.CANCELLED])
        row = known.filter(status=Status.SUCCEEDED).first() or known.first()
        if row is not None:
            return row, False
        row = Comparison.objects.create(
            registered_model_id=one.registered_model_id,
            before=before,
            after=after,
            requested_by=by,
            stage="queued",
        )
        return row, True


def get(version: ModelVersion, comparison_id: int) -> Comparison:
    """Returns a comparison of this version with another, or raises `NotFound`."""
    rows = _rows().filter(Q(before=version) | Q(after=version))
    return lookup.get_row(rows, comparison_id, version, "comparison")
