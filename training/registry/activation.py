"""Activation: the audited switch of the active version, rollback, and what was active when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import connection, transaction

from core.errors import Conflict, GateNotPassed, SecondPerson
from training import artifacts
from training.access import permissions
from training.models import Activation, ModelVersion, RegisteredModel
from training.registry import answers_check, rollouts

Status = ModelVersion.Status


BYTES: Final = 22_123
"""Class of the advisory lock of `lock_bytes`."""


def activate(
    version: ModelVersion,
    *,
    by: User | None,
    reason: str,
    override: bool = False,
    kind: Activation.Kind = Activation.Kind.ACTIVATE,
) -> Activation:
    """Makes `version` the one that answers: lock, gate, switch and audit row in one transaction.

    At its commit the generation grows (a trigger sees to that): no process answers with the old one after.

    Parameters
    ----------
    by : who decided; with ``kind=POLICY`` whoever requested the training run.
    override : activate although the gate was not passed; the audit row says so.

    Raises
    ------
    Conflict : already active, rejected, or no reason given.
    GateNotPassed : with the failed checks, unless overridden; always, when the version cannot answer.
    SecondPerson : the model wants one, and `by` asked for the version's training. Superusers are not exempt.
    ArtifactError, ArtifactPruned : when the version could not be served after the switch.
    """
    reason = reason.strip()
    if not reason:
        raise Conflict("an activation needs a reason", code="reason_missing")
    # Before the lock, because it takes time and cannot change: an artifact that does not load must not be
    # what answers next.
    artifacts.load(version)
    with transaction.atomic():
        lock(version.registered_model_id)
        version = ModelVersion.objects.select_related("registered_model").get(pk=version.pk)
        if version.status == Status.ACTIVE:
            raise Conflict(f"{version} is active already", code="already_active")
        if version.status == Status.REJECTED:
            raise Conflict(f"{version} was rejected", code="rejected")
        artifacts.check_kept(version)  # pruned since it was loaded above
        if kind != Activation.Kind.ROLLBACK and permissions.needs_another(version, by):
            raise SecondPerson(
                f"{by} asked for the training of {version}: somebody else has to activate it",
            )
        passed = bool(version.gate.get("passed"))
        answers_check.require_answers(version)
        if not passed and not override:
            failed = [check for check in version.gate["checks"] if not check["passed"]]
            said = "; ".join(check["message"] for check in failed) or "it was not checked"
            raise GateNotPassed(f"the gate of {version} is not passed: {said}", details=failed)
        rollouts.end_all(version.registered_model, by=by, reason=f"version {version.number} was activated")
        previous = version.registered_model.active_version
        if previous is not None:
            previous.status = Status.RETIRED
            previous.save(update_fields=["status"])
        version.status = Status.ACTIVE
        version.save(update_fields=["status"])
        made = Activation.objects.create(
            registered_model=version.registered_model,
            version=version,
            previous=previous,
            kind=kind,
            actor=by,
            reason=reason[:500],
            gate=version.gate,
            overridden=not passed,
            at=_now(version.registered_model),
        )
        # The database sets the time at the commit: there the old version's answers end.
        transaction.on_commit(lambda: made.refresh_from_db(fields=["at"]))
        return made


def lock(model_id: int) -> None:
    """Concurrent activations queue here and see each other's result. NO KEY: the log's foreign keys need the
    row's key to stay, and predictions must not wait for this lock."""
    RegisteredModel.objects.select_for_update(no_key=True).get(pk=model_id)


def lock_bytes(*, shared: bool) -> None:
    """Until the end of the transaction: who counts on stored bytes shares the lock, who removes some has it
    alone. Bytes are stored by their content, so those of one model may be another's; hence no model's lock
    will do. It is taken after the model's."""
    with connection.cursor() as cursor:
        mode = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        cursor.execute(f"SELECT {mode}(%s, 0)", [BYTES])


def _now(model: RegisteredModel) -> datetime:
    """The database's clock, which all processes share, and always after the model's last activation."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    last = model.activations.values_list("at", flat=True).first()
    return moment if last is None or moment > last else last + timedelta(microseconds=1)


def rollback(model: RegisteredModel, *, by: User | None, reason: str) -> Activation:
    """Goes back to the version that was active before the current one; once more, one further back.

    It needs no second person: it is for emergencies, and what it goes back to was activated before.

    Raises
    ------
    Conflict : when there is nothing to go back to.
    """
    with transaction.atomic():
        lock(model.pk)
        target = rollback_target(model)
        if target is None:
            raise Conflict(f"{model.name} has no earlier active version", code="nothing_to_roll_back_to")
        # It answered before, so its gate does not stand in the way of going back in a hurry.
        return activate(target, by=by, reason=reason, override=True, kind=Activation.Kind.ROLLBACK)


def rollback_target(model: RegisteredModel) -> ModelVersion | None:
    """What `rollback` would activate: activations put versions on a stack, rollbacks take them off."""
    stack: list[int] = []
    for version_id, kind in model.activations.order_by("at", "id").values_list("version_id", "kind"):
        if kind == Activation.Kind.ROLLBACK:
            while stack and stack[-1] != version_id:
                stack.pop()
        elif not stack or stack[-1] != version_id:
            stack.append(version_id)
    while stack:
        stack.pop()
        if stack:
            found = ModelVersion.objects.filter(pk=stack[-1]).exclude(status=Status.ACTIVE)
            usable = found.exclude(status=Status.REJECTED).filter(pruned__isnull=True).first()
            if usable is not None:
                return usable
    return None


def active_at(model: RegisteredModel, moment: datetime | None) -> Activation | None:
    """The activation that was in force at `moment` (None: now); None before the first.

    The log's times and those of activations are whole milliseconds that agree: at the time of a row that the
    active version answered, its activation is in force.
    """
    rows = model.activations.all() if moment is None else model.activations.filter(at__lte=moment)
    return rows.select_related("version", "actor").first()
