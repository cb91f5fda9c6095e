"""Rollouts: a candidate is tried on real requests before its activation, as a shadow or a canary.

A shadow predicts the rows that the active version answers; no client sees its answers. A canary answers a
share of the clients instead of the active version (see `training.serving.canary_assignment`); the unit is the
user behind the key, because one version answers a whole request. Every start and stop increments the
generation at its commit (migration 0007), so that no process routes by an older state.

A rollout compares with the active version: an activation or rollback ends every rollout of the model in the
same transaction and records the reason.
"""

from __future__ import annotations

import math
from datetime import datetime

from django.contrib.auth.models import User
from django.db import connection, transaction

from core.errors import Conflict, SecondPerson
from training import artifacts, providers
from training.access import permissions
from training.models import ModelVersion, RegisteredModel, Rollout
from training.registry import answers_check, lookup
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema

LONGEST_REASON = 500
Kind = Rollout.Kind


def start(
    version: ModelVersion,
    *,
    kind: str,
    by: User | None,
    reason: str,
    percent: float | None = None,
    override: bool = False,
) -> Rollout:
    """Starts a shadow, or a canary for `percent` of the clients: checks and row in one transaction.

    Parameters
    ----------
    override : start a canary although the version did not pass its gate; the row records it. A shadow answers
        no client and needs no override.

    Raises
    ------
    Malformed : unknown kind, or a percentage that does not fit the kind.
    Conflict : no reason; a rollout of this kind is running; the version is active or rejected; no version is
        active; the version's schema rejects rows that the active version's schema accepts.
    GateNotPassed : a canary did not pass its gate and there is no override; lists the failed checks.
    SecondPerson : the model requires a second approver, and `by` requested the canary's training run.
    NotCompiled, ArtifactError : the version cannot be loaded. ArtifactPruned : its artifact was pruned.
    """
    reason = _reason(reason)
    _check_percent(kind, percent)
    if kind == Kind.SHADOW:
        providers.require_rows(version.registered_model, "shadows")
    answers_check.require_served(version)
    # Loading takes time and its result cannot change, so it comes before the lock.
    artifacts.load(version)
    with transaction.atomic():
        version = lookup.lock_candidate(version)
        model = version.registered_model
        _check_person(version, kind, by)
        running = model.rollouts.filter(kind=kind, stopped_at=None).select_related("version").first()
        if running is not None:
            message = (
                f"a {kind} of {model.name} is already running with version {running.version.number}: "
                "stop it first"
            )
            raise Conflict(message, code="rollout_running")
        _check_schema(version)
        passed = answers_check.require_gate(version, override=override or kind == Kind.SHADOW)
        return Rollout.objects.create(
            registered_model=model,
            version=version,
            kind=kind,
            percent=percent,
            reason=reason,
            overridden=kind == Kind.CANARY and not passed,
            started_by=by,
            started_at=database_time(),
        )


def stop(rollout: Rollout, *, by: User | None, reason: str) -> Rollout:
    """Stops a rollout; after the commit the active version answers all clients.

    Raises
    ------
    Conflict : no reason, or the rollout has ended.
    """
    reason = _reason(reason)
    with transaction.atomic():
        return _stop(rollout, by, reason)


def raise_percent(rollout: Rollout, *, percent: float, by: User | None, reason: str) -> Rollout:
    """Raises a running canary's percentage: its row ends and a new row begins, in one transaction.

    Clients of the canary stay with it. Each row's figures cover its own time and share, so that a change of
    the share over time cannot look like a difference between the arms.

    Raises
    ------
    Malformed : the rollout is not a canary, or the percentage is not above the present one.
    Conflict : no reason, or the rollout has ended.
    SecondPerson : see `start`.
    """
    reason = _reason(reason)
    _check_percent(Kind.CANARY, percent)
    with transaction.atomic():
        ended = _stop(rollout, by, f"raised to {percent:g} %: {reason}"[:LONGEST_REASON])
        if ended.kind != Kind.CANARY or ended.percent is None or percent <= ended.percent:
            raise Malformed(
                "only a canary has a percentage, and it can only grow: send a larger one", code="bad_percent"
            )
        _check_person(ended.version, Kind.CANARY, by)
        assert ended.stopped_at is not None
        return Rollout.objects.create(
            registered_model=ended.registered_model,
            version=ended.version,
            kind=Kind.CANARY,
            percent=percent,
            reason=reason,
            overridden=ended.overridden,
            started_by=by,
            started_at=ended.stopped_at,
        )


def end_all(model: RegisteredModel, *, by: User | None, reason: str) -> int:
    """Ends the running rollouts of a model whose lock the caller holds; returns how many."""
    running = model.rollouts.filter(stopped_at=None)
    return running.update(stopped_at=database_time(), stopped_by=by, stop_reason=reason[:LONGEST_REASON])


def narrower(active: DatasetSchema, tried: DatasetSchema) -> list[str]:
    """Returns the reasons why `tried` might reject a row that `active` accepts, or read it differently."""
    reasons = [f"{name} is required" for name in tried.names if name not in active.by_name]
    for column in active.columns:
        other = tried.by_name.get(column.name)
        if other is not None:
            reasons += [f"{column.name} {reason}" for reason in _narrower_column(column, other)]
        elif tried.role(column.name) != "ignored":
            reasons.append(f"{column.name} is unknown")
    others = [name for name in (active.key, *active.key_aliases, *active.ignored) if name]
    reasons += [f"{name} is unknown" for name in others if tried.role(name) == "unknown"]
    if active.fold_names and not tried.fold_names:
        reasons.append("column names must be written exactly")
    if tried.target.type != active.target.type:
        reasons.append(f"the target is a {tried.target.type}, not a {active.target.type}")
    return reasons


def _narrower_column(active: Column, tried: Column) -> list[str]:
    if tried.type != active.type:
        return [f"is {tried.type}, not {active.type}"]
    reasons = []
    if active.nullable and not tried.nullable:
        reasons.append("may not be empty")
    if not set(active.missing) <= set(tried.missing):
        reasons.append("lacks some words for a missing value")
    if not set(active.signs) <= set(tried.signs):
        reasons.append("lacks some signs")
    if tried.levels and not set(active.levels or ("",)) <= set(tried.levels):
        reasons.append("lacks some levels" if active.levels else "has fixed levels")
    (low, high), (least, most) = tried.limits, active.limits
    if low is not None and (least is None or low > least):
        reasons.append(f"must be at least {_bound(tried.minimum)}")
    if high is not None and (most is None or high < most):
        reasons.append(f"must be at most {_bound(tried.maximum)}")
    if active.format and tried.format != active.format:
        reasons.append(f"does not read {active.format}")
    if tried.type in ("category", "text") and tried.normalise != active.normalise:
        reasons.append("is normalised differently")
    if tried.type in ("category", "text") and tried.max_length < active.max_length:
        reasons.append(f"has at most {tried.max_length} characters")
    if not set(active.aliases) <= {tried.name, *tried.aliases}:
        reasons.append("lacks some aliases")
    return reasons


def _bound(bound: float | str | None) -> str:
    return bound if isinstance(bound, str) else f"{bound:g}"


def _check_percent(kind: str, percent: float | None) -> None:
    if kind not in Kind.values:
        raise Malformed(f"a rollout is one of: {', '.join(Kind.values)}", code="bad_kind")
    if kind == Kind.SHADOW:
        if percent is not None:
            raise Malformed("a shadow predicts all rows: leave out the percentage", code="bad_percent")
    elif percent is None or not math.isfinite(percent) or not 0 < percent <= 100:
        raise Malformed("a canary needs a percentage above 0 and at most 100", code="bad_percent")


def _check_person(version: ModelVersion, kind: str, by: User | None) -> None:
    """Raises `SecondPerson`: a canary with all clients equals an activation and needs the same approval."""
    if kind == Kind.CANARY and permissions.needs_another(version, by):
        raise SecondPerson(f"{by} requested the training of {version}: another user must start its canary")


def _check_schema(version: ModelVersion) -> None:
    active = version.registered_model.active_version
    if active is None:
        name = version.registered_model.name
        message = f"no version of {name} is active, so a rollout has nothing to compare with: activate one"
        raise Conflict(message, code="nothing_active")
    reasons = narrower(active.dataset_schema, version.dataset_schema)
    if reasons:
        message = f"{version} does not accept every row that clients of version {active.number} may send: "
        raise Conflict(message + "; ".join(reasons[:10]), code="schema_differs")


def _reason(text: str) -> str:
    reason = text.strip()
    if not reason:
        raise Conflict("a rollout needs a reason, to start and to stop", code="reason_missing")
    return reason[:LONGEST_REASON]


def _stop(rollout: Rollout, by: User | None, reason: str) -> Rollout:
    RegisteredModel.locked(rollout.registered_model_id)
    row = Rollout.objects.select_related("registered_model", "version").get(pk=rollout.pk)
    if not row.is_running:
        raise Conflict(f"the {row.kind} of {row.version} has already ended", code="rollout_ended")
    row.stopped_at, row.stopped_by, row.stop_reason = database_time(), by, reason
    row.save(update_fields=["stopped_at", "stopped_by", "stop_reason"])
    return row


def database_time() -> datetime:
    """Returns the time by the database's clock, which all processes share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment
