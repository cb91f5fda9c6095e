"""Reference profiles of versions that were trained before there were any, made from their stored datasets."""

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


def make(version: ModelVersion) -> ReferenceProfile:
    """The reference profile of a version: the stored one, or else made from its dataset and stored.

    The dataset is divided as it was then, by the seed on the version's row; the stored pipeline answers the
    hold-out.

    Raises
    ------
    VigiaError : its dataset or its artifact is not there, or its model is declared no longer.
    """
    found = ReferenceProfile.objects.filter(version=version).first()
    if found is not None:
        return found
    providers.require_rows(version.registered_model, "reference profile")
    declared = reproduction.declared_then(version)
    with artifacts.dataset_file(version.dataset) as path:
        frame = parquet.read_frame(path, declared.schema)
    parts = fitting.split(declared, frame, release=True)
    stored = artifacts.load_pipeline(version)
    judged = Judged(stored.pipeline, stored.schema.names, declared.threshold)
    answers = judged.answers(declared.task, parts.held_x, parts.held_y.to_numpy())
    made = profile(version.dataset_schema, parts.train_x, answers)
    # Somebody else may have made it meanwhile; both are the same.
    return ReferenceProfile.objects.get_or_create(version=version, defaults={"bins": made.to_json()})[0]


def without() -> QuerySet[ModelVersion, ModelVersion]:
    """Versions that could have a profile, and have none: those of models of rows."""
    theirs = [provider.name for provider in providers.every()]
    return ModelVersion.objects.filter(reference__isnull=True).exclude(registered_model__name__in=theirs)


def make_for_active() -> list[tuple[ModelVersion, str]]:
    """Gives active versions without a profile theirs; each with what went wrong, in words, or nothing."""
    found = []
    active = without().filter(status=ModelVersion.Status.ACTIVE)
    for version in active.select_related("registered_model", "dataset"):
        try:
            make(version)
        except VigiaError as error:
            found.append((version, error.message))
        else:
            found.append((version, ""))
    return found
