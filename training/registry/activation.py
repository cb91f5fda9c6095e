"""Activation: the audited switch of the active version, rollback, and the history of active versions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import connection, transaction

from core.errors import Conflict, SecondPerson
from core.events import emit
from training import artifacts
from training.access import permissions
from training.models import Activation, ModelVersion, RegisteredModel
from training.registry import answers_check, lookup, rollouts

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
    """Makes `version` the active one: lock, gate, switch and audit row in one transaction.

    A trigger increments the generation at the commit: after it no process answers with the old version.

    Parameters
    ----------
    by : the user who decided; with ``kind=POLICY`` the user who requested the training run.
    override : activate although the version did not pass its gate; the audit row records it.

    Raises
    ------
    Conflict : the version is active or rejected, or the reason is empty.
    GateNotPassed : lists the failed checks. `override` prevents it, unless the version cannot answer.
    SecondPerson : the model requires a second approver, and `by` requested the version's training run.
        Superusers are not exempt.
    NotCompiled, ArtifactError, ArtifactPruned : the version could not be served after the switch.
    """
    reason = reason.strip()
    if not reason:
        raise Conflict("an activation needs a reason", code="reason_missing")
    answers_check.require_served(version)
    # An artifact that does not load must not become active. Loading takes time and its result cannot change,
    # so it comes before the lock.
    artifacts.load(version)
    with transaction.atomic():
        version = lookup.lock_candidate(version)
        if kind != Activation.Kind.ROLLBACK and permissions.needs_another(version, by):
            raise SecondPerson(f"{by} requested the training of {version}: another user must activate it")
        passed = answers_check.require_gate(version, override=override)
        rollouts.end_all(version.registered_model, by=by, reason=f"version {version.number} was activated")
        previous = version.registered_model.active_version
        if previous is not None:
            previous.status = Status.RETIRED
            previous.save(update_fields=["status"])
        version.status = Status.ACTIVE
        version.save(update_fields=["status"])
        created = Activation.objects.create(
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
        # The database sets the time at the commit, when the old version's answers end.
        transaction.on_commit(lambda: created.refresh_from_db(fields=["at"]))
        _emit(created)
        return created


def _emit(activation: Activation) -> None:
    is_rollback = activation.kind == Activation.Kind.ROLLBACK
    emit(
        "version.rolled_back" if is_rollback else "version.activated",
        model=activation.registered_model.name,
        subject=f"version {activation.version.number}",
        data={
            "version": activation.version.number,
            "previous": activation.previous.number if activation.previous else None,
            "actor": activation.actor.get_username() if activation.actor else None,
            "reason": activation.reason,
            "by_policy": activation.kind == Activation.Kind.POLICY,
            "overridden": activation.overridden,
        },
    )


def lock_bytes(*, shared: bool) -> None:
    """Locks the stored bytes until the end of the transaction: shared to rely on bytes, exclusive to remove
    some.

    Bytes are stored by their content, so two models may share them and a model's lock is not enough. Take
    this lock after the model's.
    """
    with connection.cursor() as cursor:
        mode = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        cursor.execute(f"SELECT {mode}(%s, 0)", [BYTES])


def _now(model: RegisteredModel) -> datetime:
    """Returns the time by the database's clock, always after the model's last activation."""
    moment = rollouts.database_time()
    last = model.activations.values_list("at", flat=True).first()
    return moment if last is None or moment > last else last + timedelta(microseconds=1)


def rollback(model: RegisteredModel, *, by: User | None, reason: str) -> Activation:
    """Activates the version that was active before the current one; a second rollback goes one further back.

    A rollback needs no second approver: it is for emergencies, and its target was activated before.

    Raises
    ------
    Conflict : there is no version to go back to.
    """
    with transaction.atomic():
        RegisteredModel.locked(model.pk)
        target = rollback_target(model)
        if target is None:
            raise Conflict(f"{model.name} has no earlier active version", code="nothing_to_roll_back_to")
        # The target answered before, so its gate does not block an emergency.
        return activate(target, by=by, reason=reason, override=True, kind=Activation.Kind.ROLLBACK)


def rollback_target(model: RegisteredModel) -> ModelVersion | None:
    """Returns the target of `rollback`: activations push versions on a stack, rollbacks pop them."""
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
            rows = ModelVersion.objects.filter(pk=stack[-1]).exclude(status=Status.ACTIVE)
            usable = rows.exclude(status=Status.REJECTED).filter(pruned=None, archived_at=None).first()
            if usable is not None:
                return usable
    return None


def active_at(model: RegisteredModel, moment: datetime | None) -> Activation | None:
    """Returns the activation that was in force at `moment` (None: now); None before the first activation.

    Times of the log and of activations are whole milliseconds of one clock: at the time of a row that the
    active version answered, its activation is in force.
    """
    rows = model.activations.all() if moment is None else model.activations.filter(at__lte=moment)
    return rows.select_related("version", "actor").first()
