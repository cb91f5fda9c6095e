"""Execution of a training run: rows, fit, engine, gate, and one transaction that creates the version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from core import version
from core.events import emit
from training import artifacts, catalogue, providers
from training.access import permissions
from training.jobs import leases
from training.jobs.leases import Lease, LeaseLost
from training.models import Activation, ModelVersion, Origin, ReferenceProfile, RegisteredModel, TrainingRun
from training.providers import Build, BuildResult
from training.registry import activation, answers_check, declarations
from training.runs import assembly, evaluation, pushed_execution
from vigia_ml import notes
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines.selection import choose
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.fitting.advice import in_words
from vigia_ml.fitting.hyperparameter_search import Search

MOST_CLASSES_ANSWERED: Final = 100
"""A first version with more classes turns `RegisteredModel.answers_probabilities` of its model off: an answer
to one row, and the row in the log, would take kilobytes."""


class ActiveChanged(Exception):
    """Another version was activated while this version was compared with the active one."""


@dataclass(frozen=True)
class _Stored:
    """The result of a run whose bytes are in the store."""

    result: BuildResult
    artifact: artifacts.Stored
    compiled: artifacts.Stored | None

    @classmethod
    def of(cls, result: BuildResult) -> _Stored:
        if result.artifact is result.compiled:  # a graph from outside, the only bytes of its version
            graph = artifacts.store(result.artifact, artifacts.GRAPHS)
            return cls(result, graph, graph)
        compiled = artifacts.store(result.compiled) if result.compiled is not None else None
        return cls(result, artifacts.store(result.artifact), compiled)

    def ensure(self) -> None:
        """Stores bytes again that a concurrent pruning removed; the caller holds `activation.lock_bytes`."""
        artifacts.ensure(self.artifact, self.result.artifact)
        if self.compiled is not None and self.result.compiled is not None:
            artifacts.ensure(self.compiled, self.result.compiled)


def train(lease: Lease) -> None:
    """Executes a claimed run and creates its version; see `training.jobs.leases.Work`."""
    related = ("registered_model", "upload", "requested_by")
    run = TrainingRun.objects.select_related(*related).get(pk=lease.job_id)
    if run.origin != Origin.TRAINED:
        _store_and_finish(lease, run, pushed_execution.build(lease, run), run.registered_model.active_version)
        return
    provider = providers.find(run.registered_model.name)
    if provider is not None:
        build: Build = import_string(provider.make)
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            result = build(run, lease.report, Path(directory))
        _store_and_finish(lease, run, result, run.registered_model.active_version)
        return
    declared = declarations.require_trainable(run.registered_model)
    finished = False
    while not finished:
        active = run.registered_model.active_version
        finished = _store_and_finish(lease, run, _fit(lease, run, declared, active), active)


def _fit(
    lease: Lease, run: TrainingRun, declared: ModelDeclaration, active: ModelVersion | None
) -> BuildResult:
    """Collects the rows, fits the declared pipeline, compiles and evaluates it."""
    lease.report("collecting rows", 5)
    assembled = assembly.assemble(run, declared.schema, active)
    dataset = assembled.dataset
    lease.report("reading", 10)
    with artifacts.dataset_file(dataset) as path:
        frame = parquet.read_frame(path, declared.schema)
    search = Search(run.search["n_iter"], settings.DASK_SCHEDULER) if run.search else None
    fitted = fitting.fit(declared, frame, lease.report, search=search, release=True)
    del frame
    artifact = fitting.pickled(declared, fitted)
    lease.report("compiling", 80)
    task, features = declared.task, fitted.train_features
    choice = choose(fitted.pipeline, fitted.schema, task, features, declared.seed, fitted.threshold)
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
        classes=SklearnEngine(fitted.pipeline, fitted.schema).classes,
        train_rows=fitted.train_rows,
        holdout_rows=fitted.holdout_rows,
        seed=declared.seed,
        source_sha256=catalogue.source_sha256(declared.name),
        verdict=partial(evaluation.verdict, declared, fitted, choice, judged),
        reference=judged.reference,
        notes=(*assembled.notes, *fitted.notes),
        nothing_new=assembled.nothing_new,
    )


def _store_and_finish(
    lease: Lease, run: TrainingRun, result: BuildResult, active: ModelVersion | None
) -> bool:
    """Stores the result, compares it with the active version and finishes the run.

    Returns False when an append must start again: another run's rows became the active version's meanwhile
    and would be lost.
    """
    lease.report("storing", 88)
    stored = _Stored.of(result)
    base = active.dataset_id if active else None
    while True:
        lease.report("comparing with the active version", 90)
        gate = result.verdict(active)
        try:
            leases.retry_on_disconnect(partial(_finish, lease, run, stored, gate, active))
        except ActiveChanged:
            active = run.registered_model.active_version
            if run.mode == TrainingRun.Mode.APPEND and active is not None and active.dataset_id != base:
                return False
            continue
        return True


def _finish(
    lease: Lease,
    run: TrainingRun,
    stored: _Stored,
    gate: dict[str, Any],
    compared: ModelVersion | None,
) -> None:
    """Creates the version, activates it if the policy says so, and ends the run, in one transaction."""
    result, artifact, compiled = stored.result, stored.artifact, stored.compiled
    with transaction.atomic():
        model = RegisteredModel.locked(run.registered_model_id)
        held = lease.held().select_for_update()
        if not held:  # evaluates the queryset and so locks the row
            raise LeaseLost
        active = model.active_version
        if active != compared:
            raise ActiveChanged
        activation.lock_bytes(shared=True)
        stored.ensure()
        last = model.versions.order_by("-number").values_list("number", flat=True).first()
        if last is None and len(result.classes or ()) > MOST_CLASSES_ANSWERED:
            model.answers_probabilities = False
            model.save(update_fields=["answers_probabilities"])
        created = ModelVersion.objects.create(
            registered_model=model,
            number=(last or 0) + 1,
            origin=run.origin,
            run=run,
            dataset=result.dataset,
            metrics=dict(result.metrics),
            baseline=dict(result.baseline),
            gate=gate,
            evaluation=result.evaluation,
            parameters=result.parameters,
            threshold=result.threshold,
            classes=None if result.classes is None else list(result.classes),
            schema=result.schema.to_json(),
            schema_sha256=result.schema.sha256,
            train_rows=result.train_rows,
            holdout_rows=result.holdout_rows,
            engine=result.engine,
            engine_reason=result.engine_reason,
            artifact_sha256=artifact.sha256,
            artifact_hmac=artifact.hmac,
            artifact_size=artifact.size,
            compiled_sha256=compiled.sha256 if compiled else "",
            compiled_hmac=compiled.hmac if compiled else "",
            compiled_size=compiled.size if compiled else None,
            parity=result.parity,
            libraries=dict(result.libraries) or artifacts.libraries(),
            seed=result.seed,
            code_version=result.code_version or version.code_version(result.source_sha256),
            created_by=run.requested_by,
        )
        if result.reference is not None:
            ReferenceProfile.objects.create(version=created, bins=result.reference.to_json())
        remark = _activate_by_policy(model, created, run, held_back=_held_back(run, result, created, active))
        held.update(
            status=TrainingRun.Status.SUCCEEDED,
            dataset=result.dataset,
            stage=f"finished; {remark}" if remark else "finished",
            notes=[note.to_json() for note in (*result.notes, *notes.of_gate(gate))],
            percent=100,
            finished_at=timezone.now(),
        )
        if not gate["passed"]:
            _emit_refusal(created, run)
        leases.emit_end(TrainingRun, run.pk)


def _emit_refusal(version: ModelVersion, run: TrainingRun) -> None:
    failed = [each for each in version.gate.get("checks", []) if not each["passed"]]
    emit(
        "gate.refused",
        model=version.registered_model.name,
        subject=f"version {version.number}",
        data={
            "version": version.number,
            "run": run.pk,
            "checks": [{"name": each["name"], "message": each["message"]} for each in failed],
        },
    )


def _held_back(
    run: TrainingRun, result: BuildResult, created: ModelVersion, active: ModelVersion | None
) -> str:
    """Returns the reason why policy `if_better` must not activate the version; empty when there is none.

    Without new rows, other code, other libraries or a search the version cannot be better than the active
    one.
    """
    if active is None or not result.nothing_new or run.search is not None:
        return ""
    if (created.code_version, created.libraries) != (active.code_version, active.libraries):
        return ""
    return f"not activated: version {active.number} was trained on these rows"


def _may_activate(run: TrainingRun, model: RegisteredModel) -> bool:
    """Returns whether a policy may activate the run's version: a client chooses the graph of a push and the
    rows of its gate, so that the right to push must not become the right to activate."""
    by = run.requested_by
    return run.origin != Origin.PUSHED or by is None or permissions.may(by, "activate", model)


def _activate_by_policy(
    model: RegisteredModel, version: ModelVersion, run: TrainingRun, *, held_back: str
) -> str:
    """Activates the version if the request or the policy says so; else returns the reason."""
    passed = bool(version.gate["passed"])
    policy = model.policy
    by_request = bool(run.activation_reason) and passed
    by_policy = policy == RegisteredModel.Policy.ALWAYS or (
        policy == RegisteredModel.Policy.IF_BETTER and passed
    )
    if not (by_request or by_policy) or answers_check.cannot_answer(version):
        return "" if passed else "the version did not pass its gate"
    if held_back and not by_request and policy == RegisteredModel.Policy.IF_BETTER:
        return held_back
    if answers_check.refused_by_installation(version):
        return "not activated: it is not compiled, and COMPILED_ONLY is set"
    if not _may_activate(run, model):  # asked again: the right may have been withdrawn meanwhile
        return "not activated: the user who pushed it does not have the right to activate"
    version.registered_model = model  # the locked row
    if permissions.needs_another(version, run.requested_by):
        return "waits for a second approver to activate it"
    if by_request:
        activation.activate(version, by=run.requested_by, reason=run.activation_reason)
        return ""
    checks = sorted(version.gate["checks"], key=lambda check: not check.get("warning"))
    reason = f"policy {policy}: " + "; ".join(check["message"] for check in checks)
    activation.activate(
        version, by=run.requested_by, reason=reason, override=not passed, kind=Activation.Kind.POLICY
    )
    return ""
