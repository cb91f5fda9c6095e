"""What a training run does: rows, fit, engine, gate, and one transaction that makes the version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from core import version
from training import artifacts, catalogue, providers
from training.access import permissions
from training.jobs import leases
from training.jobs.leases import Lease, LeaseLost
from training.models import (
    Activation,
    ModelVersion,
    ReferenceProfile,
    RegisteredModel,
    TrainingRun,
)
from training.providers import BuildResult
from training.registry import activation, answers_check
from training.runs import assembly, evaluation
from vigia_ml import notes
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines.selection import choose
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import hyperparameter_search, parquet
from vigia_ml.fitting.advice import in_words

Status = TrainingRun.Status


class ActiveChanged(Exception):
    """Another version was activated while this one was being compared with the active one."""


@dataclass(frozen=True)
class _Stored:
    """What a run has made, with its bytes in the store."""

    made: BuildResult
    artifact: artifacts.Stored
    compiled: artifacts.Stored | None

    @classmethod
    def of(cls, made: BuildResult) -> _Stored:
        compiled = artifacts.store(made.compiled) if made.compiled is not None else None
        return cls(made, artifacts.store(made.artifact), compiled)

    def ensure(self) -> None:
        """Under `activation.lock_bytes`: what is stored is there, though a version of the same bytes was
        pruned meanwhile."""
        artifacts.ensure(self.artifact, self.made.artifact)
        if self.compiled is not None and self.made.compiled is not None:
            artifacts.ensure(self.compiled, self.made.compiled)


def train(lease: Lease) -> None:
    """Executes a claimed run to its version; see `training.jobs.leases.Work`."""
    related = ("registered_model", "upload", "requested_by")
    run = TrainingRun.objects.select_related(*related).get(pk=lease.job_id)
    maker = providers.find(run.registered_model.name)
    if maker is not None:
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            made = providers.build_of(maker)(run, lease.report, Path(directory))
        _store_and_finish(lease, run, made, run.registered_model.active_version)
        return
    declared = catalogue.get(run.registered_model.name)
    finished = False
    while not finished:
        active = run.registered_model.active_version
        finished = _store_and_finish(lease, run, _fit(lease, run, declared, active), active)


def _fit(
    lease: Lease, run: TrainingRun, declared: ModelDeclaration, active: ModelVersion | None
) -> BuildResult:
    """A model of rows: collected, fitted, compiled, judged."""
    lease.report("collecting rows", 5)
    assembled = assembly.assemble(run, declared.schema, active)
    dataset = assembled.dataset
    lease.report("reading", 10)
    with artifacts.dataset_file(dataset) as path:
        frame = parquet.read_frame(path, declared.schema)
    fitted = fitting.fit(declared, frame, lease.report, search=_search(run), release=True)
    del frame
    artifact = fitting.pickled(declared, fitted)
    lease.report("compiling", 80)
    choice = choose(
        fitted.pipeline,
        fitted.schema,
        declared.task,
        fitted.train_features,
        declared.seed,
        fitted.threshold,
    )
    lease.report("judging", 84)
    with in_words(f"judging {declared.name}'s pipeline"):
        judged = evaluation.judge(run.registered_model, declared, fitted, choice, artifact)
    return BuildResult(
        dataset=dataset,
        artifact=artifact,
        compiled=choice.compiled,
        engine=choice.engine,
        engine_reason=choice.reason,
        parity=choice.parity.to_json() if choice.parity else None,
        schema=fitted.schema,
        metrics=fitted.metrics,
        baseline=fitted.baseline,
        evaluation=judged.evaluation,
        parameters=fitted.search,
        threshold=fitted.threshold,
        train_rows=fitted.train_rows,
        holdout_rows=fitted.holdout_rows,
        seed=declared.seed,
        source_sha256=catalogue.source_sha256(declared.name),
        verdict=partial(evaluation.verdict, declared, fitted, choice, judged),
        reference=judged.reference,
        notes=(*assembled.notes, *fitted.notes),
        nothing_new=assembled.nothing_new,
    )


def _store_and_finish(lease: Lease, run: TrainingRun, made: BuildResult, active: ModelVersion | None) -> bool:
    """Stores, compares and finishes; False when an append must start anew, because another run's rows became
    the active version's meanwhile and would be lost."""
    lease.report("storing", 88)
    stored = _Stored.of(made)
    base = active.dataset_id if active else None
    while True:
        lease.report("comparing with the active version", 90)
        gate = made.verdict(active)
        try:
            leases.retry_on_disconnect(partial(_finish, lease, run, stored, gate, active))
        except ActiveChanged:
            active = run.registered_model.active_version
            if run.mode == TrainingRun.Mode.APPEND and active is not None and active.dataset_id != base:
                return False
            continue
        return True


def _search(run: TrainingRun) -> hyperparameter_search.Search | None:
    if run.search is None:
        return None
    return hyperparameter_search.Search(run.search["n_iter"], settings.DASK_SCHEDULER)


def _finish(
    lease: Lease,
    run: TrainingRun,
    stored: _Stored,
    gate: dict[str, Any],
    compared: ModelVersion | None,
) -> None:
    """Version, its possible activation and the end of the run, in one transaction."""
    made, artifact, compiled = stored.made, stored.artifact, stored.compiled
    with transaction.atomic():
        model = RegisteredModel.objects.select_for_update(no_key=True).get(pk=run.registered_model_id)
        held = lease.held().select_for_update()
        if not held:  # evaluates, and so locks
            raise LeaseLost
        active = model.active_version
        if active != compared:
            raise ActiveChanged
        activation.lock_bytes(shared=True)
        stored.ensure()
        last = model.versions.order_by("-number").values_list("number", flat=True).first()
        created = ModelVersion.objects.create(
            registered_model=model,
            number=(last or 0) + 1,
            run=run,
            dataset=made.dataset,
            metrics=dict(made.metrics),
            baseline=dict(made.baseline),
            gate=gate,
            evaluation=made.evaluation,
            parameters=made.parameters,
            threshold=made.threshold,
            schema=made.schema.to_json(),
            schema_sha256=made.schema.sha256,
            train_rows=made.train_rows,
            holdout_rows=made.holdout_rows,
            engine=made.engine,
            engine_reason=made.engine_reason,
            artifact_sha256=artifact.sha256,
            artifact_hmac=artifact.hmac,
            artifact_size=artifact.size,
            compiled_sha256=compiled.sha256 if compiled else "",
            compiled_hmac=compiled.hmac if compiled else "",
            compiled_size=compiled.size if compiled else None,
            parity=made.parity,
            libraries=artifacts.libraries(),
            seed=made.seed,
            code_version=version.code_version(made.source_sha256),
            created_by=run.requested_by,
        )
        if made.reference is not None:
            ReferenceProfile.objects.create(version=created, bins=made.reference.to_json())
        waits = _activate_by_policy(model, created, run, held_back=_held_back(run, made, created, active))
        held.update(
            status=Status.SUCCEEDED,
            dataset=made.dataset,
            stage=f"finished; {waits}" if waits else "finished",
            notes=[note.to_json() for note in (*made.notes, *notes.of_gate(gate))],
            percent=100,
            finished_at=timezone.now(),
        )


def _held_back(
    run: TrainingRun, made: BuildResult, created: ModelVersion, active: ModelVersion | None
) -> str:
    """Why `if_better` makes no new active version of it; empty where nothing speaks against it.

    Without new rows, another file, other libraries or a search it can be no better than the active version.
    """
    if active is None or not made.nothing_new or run.search is not None:
        return ""
    if (created.code_version, created.libraries) != (active.code_version, active.libraries):
        return ""
    return f"not activated: version {active.number} was trained on these rows"


def _activate_by_policy(
    model: RegisteredModel, made: ModelVersion, run: TrainingRun, *, held_back: str
) -> str:
    """Activates what is to be activated without further ado; why it was not, where it would have been."""
    passed = bool(made.gate["passed"])
    policy = model.policy
    by_request = bool(run.activation_reason) and passed
    by_policy = policy == RegisteredModel.Policy.ALWAYS or (
        policy == RegisteredModel.Policy.IF_BETTER and passed
    )
    if not (by_request or by_policy) or answers_check.cannot_answer(made):
        return "" if passed else "its gate is not passed"
    if held_back and not by_request and policy == RegisteredModel.Policy.IF_BETTER:
        return held_back
    made.registered_model = model  # locked, as it is now
    if permissions.needs_another(made, run.requested_by):
        return "waits for a second person to activate it"
    if by_request:
        activation.activate(made, by=run.requested_by, reason=run.activation_reason)
        return ""
    checks = sorted(made.gate["checks"], key=lambda check: not check.get("warning"))
    reason = f"policy {policy}: " + "; ".join(check["message"] for check in checks)
    activation.activate(
        made, by=run.requested_by, reason=reason, override=not passed, kind=Activation.Kind.POLICY
    )
    return ""
