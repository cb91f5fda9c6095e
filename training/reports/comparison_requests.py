"""Comparisons of two versions as rows: one for each pair, found again. `comparison_job` does the work."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from core.errors import Conflict, NotFound
from training import providers
from training.models import Comparison, ModelVersion, RegisteredModel

Status = Comparison.Status


def of(one: ModelVersion, other: ModelVersion) -> QuerySet[Comparison, Comparison]:
    """The comparisons of two versions, in whichever order they are given, newest first."""
    before, after = sorted((one, other), key=lambda version: version.number)
    return _rows().filter(before=before, after=after).order_by("-id")


def _rows() -> QuerySet[Comparison, Comparison]:
    """With both versions, but for what is long in their rows."""
    rows = Comparison.objects.select_related("registered_model", "before", "after", "requested_by")
    return rows.defer("before__evaluation", "before__schema", "after__evaluation", "after__schema")


def shown(one: ModelVersion, other: ModelVersion) -> Comparison | None:
    """The one whose result counts: the newest that succeeded, else the newest."""
    rows = of(one, other)
    return rows.filter(status=Status.SUCCEEDED).first() or rows.first()


def request(one: ModelVersion, other: ModelVersion, *, by: User | None) -> tuple[Comparison, bool]:
    """A comparison on the later one's hold-out, and whether it is new: then the caller enqueues it.

    Versions are written once, so a comparison that succeeded stays true and is given again.

    Raises
    ------
    Conflict : they are one version, or versions of two models.
    """
    if one.registered_model_id != other.registered_model_id:
        raise Conflict("only versions of one model can be compared")
    if one.pk == other.pk:
        raise Conflict(f"{one} cannot be compared with itself")
    providers.require_rows(one.registered_model, "comparisons on one hold-out")
    before, after = sorted((one, other), key=lambda version: version.number)
    with transaction.atomic():
        # Two requests at once find one comparison: they queue here.
        RegisteredModel.objects.select_for_update(no_key=True).get(pk=one.registered_model_id)
        known = of(one, other).exclude(status__in=[Status.FAILED, Status.CANCELLED])
        found = known.filter(status=Status.SUCCEEDED).first() or known.first()
        if found is not None:
            return found, False
        made = Comparison.objects.create(
            registered_model_id=one.registered_model_id,
            before=before,
            after=after,
            requested_by=by,
            stage="queued",
        )
        return made, True


def get(version: ModelVersion, comparison_id: int) -> Comparison:
    """A comparison this version has a part in, or `NotFound`."""
    found = _rows().filter(pk=comparison_id).first() if comparison_id < 2**63 else None
    if found is None or version.pk not in (found.before_id, found.after_id):
        raise NotFound(f"{version} has no comparison {str(comparison_id)[:20]}")
    return found
