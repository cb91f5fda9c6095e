"""Backfill of reference profiles: it computes missing profiles from the versions' stored datasets."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet

from training import providers
from training.models import ModelVersion, ReferenceProfile
from training.reports import reproduction
from training.runs import evaluation
from vigia_ml.errors import VigiaError
from vigia_ml.reference_profile import profile

Versions = QuerySet[ModelVersion, ModelVersion]


def without_profile() -> Versions:
    """Returns the versions of models of rows that have no profile."""
    provided = [provider.name for provider in providers.every()]
    rows = ModelVersion.objects.filter(reference__isnull=True).exclude(registered_model__name__in=provided)
    return rows.select_related("registered_model", "dataset")


def create_missing(versions: Versions) -> Iterator[tuple[ModelVersion, str]]:
    """Creates the profile of each version; yields the version with its error message or ""."""
    for version in versions.order_by("pk"):
        try:
            _create(version)
        except VigiaError as error:
            yield version, error.message
        else:
            yield version, ""


def _create(version: ModelVersion) -> None:
    """Divides the dataset as the training did; the stored pipeline predicts the hold-out.

    Raises
    ------
    VigiaError : the dataset or the artifact is missing, or the model's declaration was removed.
    """
    declared = reproduction.declaration_of(version)
    parts = reproduction.divided(version)
    judged = evaluation.judged_by(version, declared)
    answers = judged.answers(declared.task, parts.held_x, parts.held_y)
    computed = profile(version.dataset_schema, parts.train_x, answers)
    # Another process may have stored the profile meanwhile; both are equal.
    ReferenceProfile.objects.get_or_create(version=version, defaults={"bins": computed.to_json()})


def make_for_active() -> list[tuple[ModelVersion, str]]:
    """Creates the missing profiles of active versions; returns each version with its error message or ""."""
    return list(create_missing(without_profile().filter(status=ModelVersion.Status.ACTIVE)))
