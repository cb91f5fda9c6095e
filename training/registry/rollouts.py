"""Trying a version on real requests before anyone activates it: shadow and canary.

A shadow is silently asked what the active version is asked. A canary answers in its stead for a share of the
clients (see `training.serving.canary_assignment`); the unit is the user behind the key, because one request
is answered by one version. Whatever starts or stops one grows the generation at its commit (migration 0007),
so that no process answers by it, or in its stead, from before.

A comparison is with the version that is active: when another is activated (or rolled back to), every
rollout of the model ends in the same transaction, and says so.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction

from core.errors import Conflict, GateNotPassed, SecondPerson
from training import artifacts, providers
from training.access import permissions
from training.models import ModelVersion, RegisteredModel, Rollout
from training.registry import answers_check
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema

LONGEST_REASON = 500
Kind = Rollout.Kind
Status = ModelVersion.Status


def start(
    version: ModelVersion,
    *,
    kind: str,
    by: User | None,
    reason: str,
    percent: float | None = None,
    override: bool = False,
) -> Rollout:
    """Begins a shadow, or a canary for `percent` of the clients: checks and row in one transaction.

    Parameters
    ----------
    override : begin a canary although the gate was not passed; the row says so. A shadow answers nobody and
        needs none.

    Raises
    ------
    Malformed : no such kind, or a percentage that does not go with it.
    Conflict : no reason; one of this kind runs already; the version is active or rejected; nothing is
        active to compare with; its schema refuses what the active version's accepts.
    GateNotPassed : of a canary, with the failed checks, unless overridden.
    SecondPerson : of a canary, as with an activation: the model wants somebody else than who asked for the
        version's training.
    ArtifactError : when the version could not answer. ArtifactPruned : it was removed on purpose.
    """
    reason = _reason(reason)
    _check_percent(kind, percent)
    if kind == Kind.SHADOW:
        providers.require_rows(version.registered_model, "shadow")
    # Before the lock, because it takes time and cannot change.
    artifacts.load(version)
    with transaction.atomic():
        model = _locked(version.registered_model_id)
        version = ModelVersion.objects.select_related("registered_model").get(pk=version.pk)
        _check_version(version)
        artifacts.check_kept(version)  # pruned since it was loaded above
        _check_person(version, kind, by)
        running = model.rollouts.filter(kind=kind, stopped_at=None).select_related("version").first()
        if running is not None:
            said = (
                f"a {kind} of {model.name} runs already, with version {running.version.number}: stop it first"
            )
            raise Conflict(said, code="rollout_running")
        _check_schema(version)
        passed = bool(version.gate.get("passed"))
        answers_check.require_answers(version)
        if kind == Kind.CANARY and not passed and not override:
            failed = [check for check in version.gate.get("checks", []) if not check["passed"]]
            said = "; ".join(check["message"] for check in failed) or "it was not checked"
            raise GateNotPassed(f"the gate of {version} is not passed: {said}", details=failed)
        return Rollout.objects.create(
            registered_model=model,
            version=version,
            kind=kind,
            percent=percent,
            reason=reason,
            overridden=kind == Kind.CANARY and not passed,
            started_by=by,
            started_at=_now(),
        )


def stop(rollout: Rollout, *, by: User | None, reason: str) -> Rollout:
    """Ends a rollout. From its commit on, the active version answers everybody.

    Raises
    ------
    Conflict : no reason given, or it ended before.
    """
    reason = _reason(reason)
    with transaction.atomic():
        return _stop(rollout, by, reason)


def raise_percent(rollout: Rollout, *, percent: float, by: User | None, reason: str) -> Rollout:
    """Gives a running canary more of the clients: its row ends and another begins, in one transaction.

    Those who are in stay in. Each row's figures are about its own time and share, so that a change of the
    share over time cannot pass for a difference between the arms.

    Raises
    ------
    Malformed : not a canary's percentage, or none above the present one.
    Conflict : no reason given, or it ended before.
    SecondPerson : see `start`.
    """
    reason = _reason(reason)
    _check_percent(Kind.CANARY, percent)
    with transaction.atomic():
        ended = _stop(rollout, by, f"raised to {percent:g} %: {reason}"[:LONGEST_REASON])
        if ended.kind != Kind.CANARY or ended.percent is None or percent <= ended.percent:
            raise Malformed("only a canary's percentage can be raised, and only upwards", code="bad_percent")
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
    """Ends what runs for a model whose lock the caller holds; how many."""
    running = model.rollouts.filter(stopped_at=None)
    return running.update(stopped_at=_now(), stopped_by=by, stop_reason=reason[:LONGEST_REASON])


def narrower(active: DatasetSchema, tried: DatasetSchema) -> list[str]:
    """Why rows that `active` accepts might not be accepted, or not be read alike, by `tried`; in words."""
    found = [f"{name} is needed" for name in tried.names if name not in active.by_name]
    for column in active.columns:
        other = tried.by_name.get(column.name)
        if other is not None:
            found += [f"{column.name} {said}" for said in _narrower_column(column, other)]
        elif tried.role(column.name) != "ignored":
            found.append(f"{column.name} is not known")
    others = [name for name in (active.key, *active.key_aliases, *active.ignored) if name]
    found += [f"{name} is not known" for name in others if tried.role(name) == "unknown"]
    if active.fold_names and not tried.fold_names:
        found.append("names have to be written exactly")
    if tried.target.type != active.target.type:
        found.append(f"it answers with a {tried.target.type}, not a {active.target.type}")
    return found


def _narrower_column(active: Column, tried: Column) -> list[str]:
    if tried.type != active.type:
        return [f"is {tried.type}, not {active.type}"]
    found = []
    if active.nullable and not tried.nullable:
        found.append("may not be empty")
    if not set(active.missing) <= set(tried.missing):
        found.append("lacks some of its words for a missing value")
    if not set(active.signs) <= set(tried.signs):
        found.append("lacks some of its signs")
    if tried.levels and not set(active.levels or ("",)) <= set(tried.levels):
        found.append("has not all its levels" if active.levels else "has fixed levels")
    if tried.minimum is not None and (active.minimum is None or tried.minimum > active.minimum):
        found.append(f"must be at least {tried.minimum:g}")
    if tried.maximum is not None and (active.maximum is None or tried.maximum < active.maximum):
        found.append(f"must be at most {tried.maximum:g}")
    if tried.type in ("category", "text") and tried.normalise != active.normalise:
        found.append("is normalised in another way")
    if tried.type in ("category", "text") and tried.max_length < active.max_length:
        found.append(f"has at most {tried.max_length} characters")
    if not set(active.aliases) <= {tried.name, *tried.aliases}:
        found.append("lacks some of its other names")
    return found


def _check_percent(kind: str, percent: float | None) -> None:
    if kind not in Kind.values:
        raise Malformed(f"a rollout is one of: {', '.join(Kind.values)}", code="bad_kind")
    if kind == Kind.SHADOW:
        if percent is not None:
            raise Malformed("a shadow is asked everything: it has no percentage", code="bad_percent")
    elif percent is None or not math.isfinite(percent) or not 0 < percent <= 100:
        raise Malformed("a canary needs a percentage above 0 and at most 100", code="bad_percent")


def _check_version(version: ModelVersion) -> None:
    if version.status == Status.ACTIVE:
        raise Conflict(f"{version} is active already", code="already_active")
    if version.status == Status.REJECTED:
        raise Conflict(f"{version} was rejected", code="rejected")


def _check_person(version: ModelVersion, kind: str, by: User | None) -> None:
    """A canary of every client is as good as an activation, so it needs the same people."""
    if kind == Kind.CANARY and permissions.needs_another(version, by):
        said = f"{by} asked for the training of {version}: somebody else has to let it answer"
        raise SecondPerson(said)


def _check_schema(version: ModelVersion) -> None:
    active = version.registered_model.active_version
    if active is None:
        said = f"no version of {version.registered_model.name} is active, so there is nothing to compare with"
        raise Conflict(said, code="nothing_active")
    found = narrower(active.dataset_schema, version.dataset_schema)
    if found:
        said = f"{version} does not accept all that clients of version {active.number} may send: "
        raise Conflict(said + "; ".join(found[:10]), code="schema_differs")


def _reason(given: str) -> str:
    reason = given.strip()
    if not reason:
        raise Conflict("a rollout needs a reason, to start and to stop", code="reason_missing")
    return reason[:LONGEST_REASON]


def _stop(rollout: Rollout, by: User | None, reason: str) -> Rollout:
    _locked(rollout.registered_model_id)
    found = Rollout.objects.select_related("registered_model", "version").get(pk=rollout.pk)
    if not found.is_running:
        raise Conflict(f"the {found.kind} of {found.version} ended already", code="rollout_ended")
    found.stopped_at, found.stopped_by, found.stop_reason = _now(), by, reason
    found.save(update_fields=["stopped_at", "stopped_by", "stop_reason"])
    return found


def _locked(model_id: int) -> RegisteredModel:
    """The lock at which activations queue, too; see `training.registry.lookup`."""
    return RegisteredModel.objects.select_for_update(no_key=True).get(pk=model_id)


def _now() -> datetime:
    """The database's clock, which all processes share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: Any = cursor.fetchone()[0]
    assert isinstance(moment, datetime)
    return moment
