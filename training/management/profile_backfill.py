"""Backfill of reference profiles: it computes missing profiles from the versions' stored datasets."""

from __future__ import annotations

from django.db.models import QuerySet

from training import artifacts, providers
from training.models import ModelVersion, ReferenceProfile
from training.reports import reproduction
from vigia_ml.errors import VigiaError
from vigia_ml.evaluation import Judged
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.reference_profile import profile


def ensure_profile(version: ModelVersion) -> ReferenceProfile:
    """Returns the stored reference profile of a version, or computes it from its dataset and stores it.

    It splits the dataset as the training did, by the seed on the version's row; the stored pipeline predicts
    the hold-out.

    Raises
    ------
    VigiaError : the dataset or the artifact is missing, or the model's declaration was removed.
    """
    row = ReferenceProfile.objects.filter(version=version).first()
    if row is not None:
        return row
    providers.require_rows(version.registered_model, "reference profiles")
    declared = reproduction.declaration_of(version)
    with artifacts.dataset_file(version.dataset) as path:
        frame = parquet.read_frame(path, declared.schema)
    parts = fitting.split(declared, frame, release=True)
    stored = artifacts.load_pipeline(version)
    judged = Judged(stored.pipeline, stored.schema.names, declared.threshold)
    answers = judged.answers(declared.task, parts.held_x, parts.held_y.to_numpy())
    computed = profile(version.dataset_schema, parts.train_x, answers)
    # Another process may have stored the profile meanwhile; both are equal.
    return ReferenceProfile.objects.get_or_create(version=version, defaults={"bins": computed.to_json()})[0]


def without() -> QuerySet[ModelVersion, ModelVersion]:
    """Returns the versions of models of rows that have no profile."""
    provided = [provider.name for provider in providers.every()]
    return ModelVersion.objects.filter(reference__isnull=True).exclude(registered_model__name__in=provided)


def make_for_active() -> list[tuple[ModelVersion, str]]:
    """Creates the missing profiles of active versions; returns each version with its error message or ""."""
    results = []
    active = without().filter(status=ModelVersion.Status.ACTIVE)
    for version in active.select_related("registered_model", "dataset"):
        try:
            ensure_profile(version)
        except VigiaError as error:
            results.append((version, error.message))
        else:
            results.append((version, ""))
    return results
