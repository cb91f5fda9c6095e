"""Versions of the samples, really trained once a session, and written again for later tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from training import catalogue
from training.models import (
    Activation,
    Dataset,
    ModelVersion,
    ReferenceProfile,
    RegisteredModel,
    TrainingRun,
)
from training.registry import activation, lookup
from training.runs import requests as run_requests
from training.runs import uploads

SAMPLES = Path(__file__).resolve().parent.parent / "training" / "samples"
REASON = "a test needs it"

Fields = dict[str, Any]
_CATALOGUES: dict[tuple[str, ...], list[Fields]] = {}
_TRAINED: dict[tuple[str, int | None], list[Fields]] = {}
_ACTIVATED: dict[tuple[str, int | None], Fields] = {}


def train_sample(
    name: str, *, rows: int | None = None, activate: bool = True, **changed: Any
) -> ModelVersion:
    """Returns a version of `name`, really trained on (the first rows of) its sample CSV, and activated.

    Training runs once a session: later calls write the same rows again, which refer to the same artifact. The
    same holds for its activation if it is the model's first. `changed` replaces fields of the version (then
    the test must have trained it before).
    """
    if (name, rows) not in _TRAINED:
        assert not changed, "train the version before you change it"
        version = _train(_registered(name), rows)
        if activate:
            _activate(version, rows)
    else:
        with transaction.atomic():
            version = _again(_registered(name), rows, changed)
            if activate:
                _activate(version, rows, again=version.number == 1 and not changed)
    return ModelVersion.objects.select_related("registered_model").get(pk=version.pk)


def _registered(name: str) -> RegisteredModel:
    """Returns the model's row; writes those of all models as `lookup.sync_catalogue` does."""
    declared = catalogue.names()
    if declared not in _CATALOGUES:
        synced = lookup.sync_catalogue()
        _CATALOGUES[declared] = [_fields(row, without=("created_at",)) for row in synced]
    elif not RegisteredModel.objects.exists():
        RegisteredModel.objects.bulk_create(RegisteredModel(**row) for row in _CATALOGUES[declared])
    elif not RegisteredModel.objects.filter(name=name).exists():
        lookup.sync_catalogue()
    return RegisteredModel.objects.get(name=name)


def _train(model: RegisteredModel, rows: int | None) -> ModelVersion:
    text = (SAMPLES / f"{model.name}.csv").read_bytes()
    if rows is not None:
        text = b"".join(text.splitlines(keepends=True)[: rows + 1])
    dataset = uploads.from_csv(model, io.BytesIO(text), by=None, source=f"{model.name}.csv")
    policy, model.policy = model.policy, RegisteredModel.Policy.MANUAL
    model.save()
    run = run_requests.request(model, dataset, mode=TrainingRun.Mode.REPLACE, by=None)
    assert run_requests.execute(run.pk)
    model.policy = policy
    model.save()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    reference = {"bins": run.version.reference.bins}
    _TRAINED[model.name, rows] = [_fields(run.upload), _fields(run), _fields(run.version), reference]
    return run.version


def _again(model: RegisteredModel, rows: int | None, changed: Fields) -> ModelVersion:
    """Writes the rows of `_train` again."""
    upload, run, version, reference = _TRAINED[model.name, rows]
    dataset = model.datasets.filter(sha256=upload["sha256"]).first()
    dataset = dataset or Dataset.objects.create(**upload | {"registered_model": model})
    ran = TrainingRun.objects.create(
        **run | {"registered_model": model, "upload": dataset, "dataset": dataset}
    )
    number = model.versions.count() + 1
    relations = {"registered_model": model, "run": ran, "dataset": dataset, "number": number}
    created = ModelVersion.objects.create(**version | relations | {"status": "candidate"} | changed)
    ReferenceProfile.objects.create(version=created, **reference)
    return created


def _activate(version: ModelVersion, rows: int | None, *, again: bool = False) -> None:
    """Activates by the service, or with `again` writes the rows of an earlier activation."""
    model = version.registered_model
    known = _ACTIVATED.get((model.name, rows))
    if known is None or not again:
        row = activation.activate(version, by=None, reason=REASON)
        if row.previous is None:
            _ACTIVATED[model.name, rows] = _fields(row, without=("at",))
        return
    ModelVersion.objects.filter(pk=version.pk).update(status=ModelVersion.Status.ACTIVE)
    Activation.objects.create(**known, registered_model=model, version=version, at=timezone.now())


def _fields(row: Any, *, without: tuple[str, ...] = ()) -> Fields:
    """Returns a row's plain values; the caller sets relations."""
    return {
        field.name: getattr(row, field.name)
        for field in row._meta.concrete_fields
        if not field.is_relation and field.name not in ("id", *without)
    }
