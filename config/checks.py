"""System checks that find mistakes of a deployment before the first request. `manage.py check` runs them.

``--deploy`` adds the checks for servers, ``--database default`` those that query PostgreSQL
(`manage.py migrate` runs these too).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import DatabaseError, connections

from core.database import restores

SHORTEST_SECRET = 32
"""Minimum length in characters; 32 hexadecimal digits are 128 bits."""
LIMITS = (
    "PREDICT_MAX_ROWS", "PREDICT_MAX_BYTES", "TRAINING_MAX_BYTES", "HEAD_SECONDS", "BODY_SILENCE_SECONDS",
    "BODY_SECONDS", "ANSWER_SECONDS", "CLIENT_BYTES_PER_SECOND", "LOGIN_ATTEMPTS", "LOGIN_LOCK_MINUTES",
    "TRUSTED_PROXIES", "MAX_WAIT_SECONDS", "LOG_QUEUE_ROWS", "LOG_WAIT_SECONDS", "DATABASE_ANSWER_SECONDS",
    "IDEMPOTENCY_HOURS", "PARTITIONS_AHEAD", "BATCH_MAX_BYTES", "BATCH_CHUNK_ROWS", "BATCH_WORKERS",
)  # fmt: skip
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
"""PostgreSQL's settings for durable commits; "off" breaks "answered means logged"."""
Messages = Iterator[CheckMessage]


@register(Tags.security, deploy=True)
def secrets_are_long(app_configs: Any, **kwargs: Any) -> Messages:
    for name in ("SECRET_KEY", "ARTIFACT_KEY", "METRICS_TOKEN"):
        secret = getattr(settings, name)
        if name == "METRICS_TOKEN" and not secret:  # then no token is accepted
            continue
        if len(secret) < SHORTEST_SECRET:
            yield Error(
                f"{name} has fewer than {SHORTEST_SECRET} characters.",
                hint=f"Set {name} to the output of: openssl rand -hex 32",
                id="vigia.E001",
            )


@register(Tags.security, deploy=True)
def artifacts_have_a_key_of_their_own(app_configs: Any, **kwargs: Any) -> Messages:
    if settings.ARTIFACT_KEY == settings.SECRET_KEY and not settings.LOCAL:
        yield Warning(
            "ARTIFACT_KEY is the same as SECRET_KEY.",
            hint="Set ARTIFACT_KEY: changing SECRET_KEY would make every stored model unusable.",
            id="vigia.W002",
        )


@register(Tags.security, deploy=True)
def https_is_on(app_configs: Any, **kwargs: Any) -> Messages:
    if not settings.HTTPS:
        yield Warning(
            "HTTPS is off: passwords and client keys cross the network readable.",
            hint="Serve loopback only, or run ./setup --domain NAME, or set VIGIA_HTTPS=1 behind a proxy.",
            id="vigia.W022",
        )


@register(Tags.security, deploy=True)
def hosts_are_named(app_configs: Any, **kwargs: Any) -> Messages:
    if "*" in settings.ALLOWED_HOSTS:
        yield Warning(
            "ALLOWED_HOSTS accepts every host name.",
            hint="List the hosts: links in responses contain the host name that the client sent.",
            id="vigia.W003",
        )


@register(Tags.files)
def store_is_writable(app_configs: Any, **kwargs: Any) -> Messages:
    """Checks the directory of artifacts and datasets, or its nearest existing parent."""
    if not isinstance(default_storage, FileSystemStorage):
        return
    directory = location = Path(default_storage.location)
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        yield Error(
            f"The store {location} cannot be written: {directory} is not writable for this user.",
            hint=f"Make {directory} writable for uid {os.geteuid()}, or point VIGIA_VAR elsewhere.",
            id="vigia.E004",
        )


@register(Tags.files)
def locations_are_folders(app_configs: Any, **kwargs: Any) -> Messages:
    for name, folder in settings.BATCH_LOCATIONS.items():
        if not Path(folder).is_dir():
            yield Warning(
                f"The location {name} is no folder here: {folder}.",
                hint="Mount it in web and in the workers, or take it out of BATCH_LOCATIONS.",
                id="vigia.W023",
            )


@register()
def database_is_postgresql(app_configs: Any, **kwargs: Any) -> Messages:
    vendor = connections["default"].vendor
    if vendor != "postgresql":
        yield Error(
            f"The database is {vendor}, not PostgreSQL.",
            hint="Set DATABASE_URL to a postgresql:// URL: Vigía needs partitions, triggers and COPY.",
            id="vigia.E005",
        )


@register(Tags.database)
def commits_are_durable(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """Checks the settings of our own session: a role or a database may have its own."""
    if "default" not in (databases or ()):
        return
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(DURABILITY)])
            yield from durability_errors(dict(cursor.fetchall()))
    except DatabaseError as error:
        yield Error(
            f"The settings of PostgreSQL cannot be read: {error}".strip(),
            hint="Check DATABASE_URL and the server.",
            id="vigia.E007",
        )


def durability_errors(values: Mapping[str, str]) -> list[CheckMessage]:
    """Returns one error for each PostgreSQL setting with which a committed row can be lost."""
    return [
        Error(
            f"PostgreSQL runs with {name}={values[name]}: a committed prediction may be lost in a crash.",
            hint=f"Set {name} to on. Every prediction is logged before it is sent; this needs durable "
            "commits.",
            id="vigia.E006",
        )
        for name in DURABILITY
        if values.get(name) == "off"
    ]


@register(Tags.database)
def restore_is_finished(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """Refuses a database whose restore was interrupted: erased rows may be back, or migrations missing."""
    if "default" in (databases or ()) and restores.unfinished():
        yield Error(f"{restores.MESSAGE.capitalize()}.", id="vigia.E012")


@register()
def rate_limit_is_valid(app_configs: Any, **kwargs: Any) -> Messages:
    """Checks RATE_LIMIT, because DRF reads it at the first request and answers 500 on an error."""
    if not settings.RATE_LIMIT:
        return
    from rest_framework.throttling import SimpleRateThrottle  # its import reads the settings

    try:
        requests, seconds = SimpleRateThrottle.parse_rate(None, settings.RATE_LIMIT)  # type: ignore[arg-type]
    except (ValueError, KeyError, IndexError):
        requests = seconds = None
    if not (requests and seconds):
        yield Error(
            f"RATE_LIMIT {settings.RATE_LIMIT!r} is not a number of requests per period.",
            hint="Use a form such as 100/s, 1000/min, 10000/hour or 100000/day.",
            id="vigia.E008",
        )


@register(Tags.database)
def compiled_versions_were_compared_at_thresholds(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> Messages:
    """Warns about active versions whose parity check did not cover thresholds."""
    if "default" not in (databases or ()):
        return
    from training.models import serving_versions

    rows = serving_versions().filter(engine="onnx")
    rows = rows.select_related("registered_model").only(
        "registered_model__name", "number", "engine", "parity"
    )
    try:
        names = [str(version) for version in rows if not version.was_compared_at_edges]
    except DatabaseError:  # not migrated yet
        return
    for name in names:
        yield Warning(
            f"{name} was compiled before the parity check covered every threshold of its steps: at such a "
            "value its answer may differ from scikit-learn's.",
            hint="Retrain the model; the parity check of the new version covers thresholds.",
            id="vigia.W020",
        )


@register(Tags.database)
def active_versions_are_compiled(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> Messages:
    """Checks an installation with COMPILED_ONLY, whose web processes may lack scikit-learn."""
    if "default" not in (databases or ()) or not settings.COMPILED_ONLY:
        return
    from training import artifacts
    from training.models import serving_versions

    rows = serving_versions()
    rows = rows.select_related("registered_model").only("registered_model__name", "number", "engine")
    try:
        names = [str(version) for version in rows if artifacts.needs_scikit_learn(version)]
    except DatabaseError:  # not migrated yet
        return
    for name in names:
        yield Error(
            f"{name} is active and only scikit-learn can serve it, but COMPILED_ONLY is set.",
            hint="Activate a compiled version first, or remove COMPILED_ONLY and the slim web image.",
            id="vigia.E021",
        )


@register()
def limits_are_positive(app_configs: Any, **kwargs: Any) -> Messages:
    for name in LIMITS:
        value = getattr(settings, name)
        if value < 1:
            yield Error(f"{name} is {value}; it must be at least 1.", id="vigia.E009")


@register()
def models_have_usable_names(app_configs: Any, **kwargs: Any) -> Messages:
    """Checks the names of catalogue files: a reserved name would break the service or another model."""
    from training import catalogue

    for name in catalogue.unusable_names():
        yield Error(
            f"training/catalogue/{name}.py cannot declare a model: {catalogue.reserved(name)}.",
            hint=f"Rename the file and its MODEL, for example to {name}_model.",
            id="vigia.E010",
        )


@register()
def declarations_can_be_imported(app_configs: Any, **kwargs: Any) -> Messages:
    """Imports each file of the catalogue, as the service does when it starts."""
    from training import catalogue

    for name in catalogue.names():
        try:
            catalogue.get(name)
        except catalogue.BrokenDeclaration as error:
            hint = "Correct the file, or move it out of training/catalogue/."
            yield Error(f"{error.message}.", hint=hint, id="vigia.E011")
