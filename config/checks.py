"""System checks: mistakes of a deployment, found before the first request. `manage.py check` runs them.

With ``--deploy`` come those that only matter off one's own machine, with ``--database default`` those that
ask PostgreSQL (`manage.py migrate` runs these, too).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import DatabaseError, connections

SHORTEST_SECRET = 32
"""Characters; 32 of hex are 128 bits."""
LIMITS = (
    "PREDICT_MAX_ROWS",
    "PREDICT_MAX_BYTES",
    "TRAINING_MAX_BYTES",
    "HEAD_SECONDS",
    "BODY_SILENCE_SECONDS",
    "BODY_SECONDS",
    "ANSWER_SECONDS",
    "CLIENT_BYTES_PER_SECOND",
    "LOGIN_ATTEMPTS",
    "LOGIN_LOCK_MINUTES",
    "TRUSTED_PROXIES",
    "MAX_WAIT_SECONDS",
    "LOG_QUEUE_ROWS",
    "LOG_WAIT_SECONDS",
    "DATABASE_ANSWER_SECONDS",
    "IDEMPOTENCY_HOURS",
    "PARTITIONS_AHEAD",
)
# What makes "answered means logged" true; each setting with the values that break it.
DURABILITY: Mapping[str, Sequence[str]] = {
    "fsync": ("off",),
    "full_page_writes": ("off",),
    "synchronous_commit": ("off",),
}


@register(Tags.security, deploy=True)
def secrets_are_long(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"{name} has fewer than {SHORTEST_SECRET} characters.",
            hint=f"Set {name} to the output of: openssl rand -hex 32",
            id="vigia.E001",
        )
        for name in ("SECRET_KEY", "ARTIFACT_KEY", "METRICS_TOKEN")
        if len(getattr(settings, name)) < SHORTEST_SECRET
        and (name != "METRICS_TOKEN" or settings.METRICS_TOKEN)  # without one, nobody can use it
    ]


@register(Tags.security, deploy=True)
def artifacts_have_a_key_of_their_own(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.LOCAL or settings.ARTIFACT_KEY != settings.SECRET_KEY:
        return []
    return [
        Warning(
            "ARTIFACT_KEY is the same as SECRET_KEY.",
            hint="Set ARTIFACT_KEY: changing SECRET_KEY would make every stored model unusable.",
            id="vigia.W002",
        )
    ]


@register(Tags.security, deploy=True)
def hosts_are_named(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    return [
        Warning(
            "ALLOWED_HOSTS lets every host name through.",
            hint="Name the hosts: links in answers are built from the name the client sent.",
            id="vigia.W003",
        )
    ]


@register(Tags.files)
def store_is_writable(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The directory of artifacts and datasets, or the one it will be made in."""
    if not isinstance(default_storage, FileSystemStorage):
        return []
    place = wanted = Path(default_storage.location)
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return []
    return [
        Error(
            f"The store {wanted} cannot be written: {place} is not writable for this user.",
            hint=f"Make {place} writable for uid {os.geteuid()}, or point VIGIA_VAR elsewhere.",
            id="vigia.E004",
        )
    ]


@register()
def database_is_postgresql(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    vendor = connections["default"].vendor
    if vendor == "postgresql":
        return []
    return [
        Error(
            f"The database is {vendor}, not PostgreSQL.",
            hint="DATABASE_URL must begin with postgresql://: partitions, triggers and COPY are needed.",
            id="vigia.E005",
        )
    ]


@register(Tags.database)
def commits_are_durable(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Asked of our own session: a role or a database may have settings of its own."""
    if "default" not in (databases or ()):
        return []
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(DURABILITY)])
            return what_is_lost(dict(cursor.fetchall()))
    except DatabaseError as error:
        return [
            Error(
                f"PostgreSQL cannot be asked for its settings: {error}".strip(),
                hint="Check DATABASE_URL, and that the server is up.",
                id="vigia.E007",
            )
        ]


def what_is_lost(found: Mapping[str, str]) -> list[CheckMessage]:
    """One error for each PostgreSQL setting under which a committed row can be lost."""
    return [
        Error(
            f"PostgreSQL runs with {name}={found[name]}: a committed prediction may be lost in a crash.",
            hint=f"Set {name} to on. Every answer is logged before it is given; that holds only for durable "
            "commits.",
            id="vigia.E006",
        )
        for name, breaking in DURABILITY.items()
        if found.get(name) in breaking
    ]


@register()
def rate_limit_can_be_read(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """DRF would find out at the first request, and answer 500."""
    if not settings.RATE_LIMIT:
        return []
    from rest_framework.throttling import SimpleRateThrottle  # reads the settings when it is imported

    try:
        requests, seconds = SimpleRateThrottle.parse_rate(None, settings.RATE_LIMIT)  # type: ignore[arg-type]
    except (ValueError, KeyError, IndexError):
        requests = seconds = None
    if requests and seconds:
        return []
    return [
        Error(
            f"RATE_LIMIT {settings.RATE_LIMIT!r} is not a number of requests per time.",
            hint="Write it as 100/s, 1000/min, 10000/hour or 100000/day.",
            id="vigia.E008",
        )
    ]


@register(Tags.database)
def compiled_versions_were_asked_at_their_edges(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Active versions that were compared with scikit-learn by an older protocol of rows."""
    if "default" not in (databases or ()):
        return []
    from training.models import ModelVersion

    rows = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE, engine="onnx")
    rows = rows.select_related("registered_model").only(
        "registered_model__name", "number", "engine", "parity"
    )
    try:
        names = [str(version) for version in rows if not version.was_compared_at_edges]
    except DatabaseError:  # not migrated yet
        return []
    return [
        Warning(
            f"{name} was compiled before both engines were compared at every threshold of its steps: at such "
            "a value it may answer otherwise than scikit-learn.",
            hint="Train the model again; its next version is compared there.",
            id="vigia.W020",
        )
        for name in names
    ]


@register()
def limits_are_positive(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{name} is {getattr(settings, name)}, it must be at least 1.", id="vigia.E009")
        for name in LIMITS
        if getattr(settings, name) < 1
    ]


@register()
def models_have_usable_names(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A file of the catalogue whose name is taken would break the service, or another model."""
    from training import catalogue

    return [
        Error(
            f"training/catalogue/{name}.py cannot declare a model: {catalogue.reserved(name)}.",
            hint=f"Rename the file and its MODEL, say to {name}_model.",
            id="vigia.E010",
        )
        for name in catalogue.unusable_names()
    ]


@register()
def models_can_be_read(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Each file of the catalogue is imported, as the service does at its start."""
    from training import catalogue

    found: list[CheckMessage] = []
    for name in catalogue.names():
        try:
            catalogue.get(name)
        except catalogue.BrokenDeclaration as error:
            hint = "Correct the file, or move it out of training/catalogue/."
            found.append(Error(f"{error.message}.", hint=hint, id="vigia.E011"))
    return found
