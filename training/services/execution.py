"""What a training run does: rows, fit, engine, gate, and one transaction that makes the version."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from training import artifacts, catalogue, datasets, fitting, searching, version
from training.declaration import ModelDeclaration
from training.engines.choice import Choice, choose
from training.engines.sklearn import SklearnEngine
from training.models import (
    Activation,
    Dataset,
    ModelVersion,
    ReferenceProfile,
    RegisteredModel,
    TrainingRun,
)
from training.schema import DatasetSchema
from training.services import access, jobs, judgement, registry, sources
from training.services import datasets as dataset_services
from training.services.jobs import Lease, LeaseLost

Status = TrainingRun.Status


class ActiveChanged(Exception):
    """Another version was activated while this one was being compared with the active one."""


@dataclass(frozen=True)
class _Made:
    """What a run has made before it becomes a version; the bytes are in the store."""

    fitted: fitting.Fitted
    choice: Choice
    pipeline: bytes
    artifact: artifacts.Stored
    compiled: artifacts.Stored | None
    judged: judgement.Judgement

    @classmethod
    def store(cls, fitted: fitting.Fitted, choice: Choice, judged: judgement.Judgement) -> _Made:
        pipeline = SklearnEngine(fitted.pipeline, fitted.schema).to_bytes()
        compiled = artifacts.store(choice.compiled) if choice.compiled is not None else None
        return cls(fitted, choice, pipeline, artifacts.store(pipeline), compiled, judged)

    def ensure(self) -> None:
        """Under `registry.lock_bytes`: what is stored is still there, though a version of the same bytes was
        pruned meanwhile."""
        artifacts.ensure(self.artifact, self.pipeline)
        if self.compiled is not None and self.choice.compiled is not None:
            artifacts.ensure(self.compiled, self.choice.compiled)


def train(lease: Lease) -> None:
    """Executes a claimed run to its version; see `training.services.jobs.Work`."""
    related = ("registered_model", "upload", "requested_by")
    run = TrainingRun.objects.select_related(*related).get(pk=lease.job_id)
    declared = catalogue.get(run.registered_model.name)
    finished = False
    while not finished:
        finished = _train_on(lease, run, declared, run.registered_model.active_version)


def _train_on(
    lease: Lease, run: TrainingRun, declared: ModelDeclaration, active: ModelVersion | None
) -> bool:
    """Fits and finishes; False when an append must start anew, because another run's rows became the active
    version's meanwhile and would be lost."""
    lease.report("collecting rows", 5)
    dataset = _assemble(run, declared, active)
    lease.report("reading", 10)
    with artifacts.dataset_file(dataset) as path:
        frame = datasets.read_frame(path, declared.schema)
    fitted = fitting.fit(declared, frame, lease.report, search=_search(run), release=True)
    del frame
    lease.report("compiling", 80)
    choice = choose(fitted.pipeline, fitted.schema, declared.task, fitted.train_features, declared.seed)
    lease.report("judging", 84)
    judged = judgement.judge(declared, fitted, choice)
    lease.report("storing", 88)
    made = _Made.store(fitted, choice, judged)
    base = active.dataset_id if active else None
    while True:
        lease.report("comparing with the active version", 90)
        gate = judgement.verdict(declared, fitted, choice, judged, active)
        try:
            finish = partial(_finish, lease, run, dataset, declared, made, gate, active)
            jobs.persistently(finish)
        except ActiveChanged:
            active = run.registered_model.active_version
            if run.mode == TrainingRun.Mode.APPEND and active is not None and active.dataset_id != base:
                return False
            continue
        return True


def _search(run: TrainingRun) -> searching.Search | None:
    if run.search is None:
        return None
    return searching.Search(run.search["n_iter"], settings.DASK_SCHEDULER)


def _assemble(run: TrainingRun, declared: ModelDeclaration, active: ModelVersion | None) -> Dataset:
    """The rows to train on: the upload alone, or the active version's rows and the upload."""
    model, schema = run.registered_model, declared.schema
    upload = run.upload if run.upload is not None else _collected(run, schema)
    appends = run.mode == TrainingRun.Mode.APPEND and active is not None
    parts = [active.dataset, upload] if appends and active is not None else [upload]
    if len(parts) == 1 and upload.schema_sha256 == schema.sha256:
        return upload
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory, _files(parts) as paths:
        sources = [
            (path, part.schema_sha256 == schema.sha256) for path, part in zip(paths, parts, strict=True)
        ]
        written = datasets.join(sources, Path(directory) / "joined.parquet", schema)
        source = " + ".join(part.sha256[:12] for part in parts)
        return dataset_services.register(model, written, schema, source=source, by=run.requested_by)


def _collected(run: TrainingRun, schema: DatasetSchema) -> Dataset:
    """The rows of the run's source, as a dataset; see `training.services.sources`."""
    assert run.source is not None
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        path = Path(directory) / "collected.parquet"
        written = sources.collect(run.registered_model, schema, run.source, path)
        said = " ".join(f"{name} {value}" for name, value in run.source.items())
        return dataset_services.register(
            run.registered_model, written, schema, source=said, by=run.requested_by
        )


@contextmanager
def _files(parts: list[Dataset]) -> Iterator[list[Path]]:
    if not parts:
        yield []
        return
    with artifacts.dataset_file(parts[0]) as first, _files(parts[1:]) as rest:
        yield [first, *rest]


def _finish(
    lease: Lease,
    run: TrainingRun,
    dataset: Dataset,
    declared: ModelDeclaration,
    made: _Made,
    gate: dict[str, Any],
    compared: ModelVersion | None,
) -> None:
    """Version, its possible activation and the end of the run, in one transaction."""
    fitted, choice, stored, compiled = made.fitted, made.choice, made.artifact, made.compiled
    with transaction.atomic():
        model = RegisteredModel.objects.select_for_update(no_key=True).get(pk=run.registered_model_id)
        held = lease.held().select_for_update()
        if not held:  # evaluates, and so locks
            raise LeaseLost
        active = model.active_version
        if active != compared:
            raise ActiveChanged
        registry.lock_bytes(shared=True)
        made.ensure()
        last = model.versions.order_by("-number").values_list("number", flat=True).first()
        created = ModelVersion.objects.create(
            registered_model=model,
            number=(last or 0) + 1,
            run=run,
            dataset=dataset,
            metrics=fitted.metrics,
            baseline=fitted.baseline,
            gate=gate,
            evaluation=made.judged.evaluation,
            parameters=fitted.search,
            threshold=fitted.threshold,
            schema=fitted.schema.to_json(),
            schema_sha256=fitted.schema.sha256,
            train_rows=fitted.train_rows,
            holdout_rows=fitted.holdout_rows,
            engine=choice.engine,
            engine_reason=choice.reason,
            artifact_sha256=stored.sha256,
            artifact_hmac=stored.hmac,
            artifact_size=stored.size,
            compiled_sha256=compiled.sha256 if compiled else "",
            compiled_hmac=compiled.hmac if compiled else "",
            compiled_size=compiled.size if compiled else None,
            parity=choice.parity.to_json() if choice.parity else None,
            libraries=artifacts.libraries(),
            seed=declared.seed,
            code_version=version.code_version(catalogue.source_sha256(declared.name)),
            created_by=run.requested_by,
        )
        ReferenceProfile.objects.create(version=created, bins=made.judged.reference.to_json())
        waits = _activate_by_policy(model, created, run)
        held.update(
            status=Status.SUCCEEDED,
            dataset=dataset,
            stage=f"finished; {waits}" if waits else "finished",
            percent=100,
            finished_at=timezone.now(),
        )


def _activate_by_policy(model: RegisteredModel, made: ModelVersion, run: TrainingRun) -> str:
    """Activates what is to be activated without further ado; why it was not, where it would have been."""
    passed = bool(made.gate["passed"])
    policy = model.policy
    by_request = bool(run.activation_reason) and passed
    by_policy = policy == RegisteredModel.Policy.ALWAYS or (
        policy == RegisteredModel.Policy.IF_BETTER and passed
    )
    if not (by_request or by_policy):
        return ""
    made.registered_model = model  # locked, as it is now
    if access.needs_another(made, run.requested_by):
        return "waits for a second person to activate it"
    if by_request:
        registry.activate(made, by=run.requested_by, reason=run.activation_reason)
        return ""
    reason = f"policy {policy}: " + "; ".join(check["message"] for check in made.gate["checks"])
    registry.activate(
        made, by=run.requested_by, reason=reason, override=not passed, kind=Activation.Kind.POLICY
    )
    return ""
