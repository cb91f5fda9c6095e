"""Prepares an empty database for the service; safe to repeat."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.utils import timezone
from knox.models import AuthToken

from config import first_versions, welcome
from core import env
from core.database import restores
from core.version import VERSION
from predictions.log import partitions
from training import providers
from training.access import client_keys
from training.models import ModelVersion, RegisteredModel, serving_versions
from training.registry import lookup
from training.serving import engine_cache

CLIENT = "newcomer"


class Command(BaseCommand):
    help = "Migrates, trains first versions from sample data, creates an admin and a client key."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-models", action="store_true", help="train no models")
        parser.add_argument("--no-accounts", action="store_true", help="create no admin and no client key")
        parser.add_argument(
            "--nothing-else-runs",
            action="store_true",
            help="no other process uses this database: requeue interrupted jobs at once",
        )
        parser.add_argument(
            "--web-may-start",
            type=Path,
            metavar="FILE",
            help="file to create as soon as web processes can start, which is before the first trainings",
        )
        parser.add_argument(
            "--compose",
            action="store_true",
            help="the compose file runs this: collect no static files, print no secret",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        first_versions.stop_when_told()
        if restores.unfinished():
            raise CommandError(restores.MESSAGE)
        with self._step("database migrated"):
            call_command("migrate", verbosity=0)
            partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)
        # `./upgrade` reads the file: the version that it starts from.
        settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
        (settings.VAR_DIR / "version").write_text(f"{VERSION}\n", encoding="utf-8")
        rows = lookup.sync_catalogue()
        if options["nothing_else_runs"]:
            interrupted = first_versions.requeue_interrupted()
            if interrupted:
                self._say(f"  {interrupted} interrupted job(s) requeued")
        missing = [row for row in rows if not options["no_models"] and _lacks_version(row)]
        tasks: list[Callable[[], object]] = []
        if missing:
            self._say(f"Training first versions of {', '.join(row.name for row in missing)} …")
            first_versions.import_training_modules()
        if not options["compose"]:  # the image holds its static files
            tasks.append(partial(self._prepare_web, options["web_may_start"]))
        tasks += [first_versions.FirstVersion(row, self._say, self._complain).train for row in missing]
        if not options["no_accounts"]:
            tasks.append(self._create_accounts)
        first_versions.run_parallel(tasks)
        self._profile_active()
        unusable = self._unusable()
        if options["compose"]:
            self._write_public_welcome(unusable)
        elif not options["no_accounts"]:
            accounts = self._create_accounts()
            text = welcome.local(settings.VAR_DIR, *accounts, unusable, _first_to_try(unusable))
            write_private(settings.VAR_DIR / "welcome.txt", text)

    def _prepare_web(self, announcement: Path | None) -> None:
        """Collects the static files, for which web looks once; then announces that web may start."""
        stamp = Path(settings.STATIC_ROOT) / ".collected"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != static_sources():
            self._collect_static()
        if announcement is not None:
            announcement.touch()

    def _create_accounts(self) -> tuple[str, str]:
        """Creates the admin and the client key if they are missing; returns the password and the key."""
        return self._admin(), self._client_key()

    def _profile_active(self) -> None:
        """Builds missing reference profiles of active versions, so that drift reviews cover them."""
        if _active_versions_of_rows().filter(reference__isnull=True).exists():
            from training.management import profile_backfill

            for version, error in profile_backfill.make_for_active():
                success = f"{version}: reference profile built from its dataset"
                self._say(f"{version} has no reference profile: {error}" if error else success)

    def _unusable(self) -> dict[int, str]:
        """Returns and prints why active versions cannot answer; the service runs without them."""
        reasons = engine_cache.unusable()
        for reason in reasons.values():
            self.stderr.write(self.style.ERROR(f"CANNOT ANSWER: {reason}"))
        if any("ARTIFACT_KEY" in reason for reason in reasons.values()):
            self.stderr.write(
                "The artifact key has changed. Restore the old key (ARTIFACT_KEY, or the file "
                f"{settings.VAR_DIR / 'artifact-key'}), or retrain these models: "
                "manage.py load_dataset MODEL FILE --train --activate"
            )
        return reasons

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _complain(self, text: str) -> None:
        self.stderr.write(text)
        self.stderr.flush()

    @contextmanager
    def _step(self, result: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._say(f"  {result} ({time.monotonic() - started:.1f} s)")

    def _collect_static(self) -> None:
        """Copies the admin's and the API's static files."""
        with self._step("static files collected"):
            call_command("collectstatic", interactive=False, verbosity=0, clear=True)
            stamp = Path(settings.STATIC_ROOT) / ".collected"
            stamp.write_text(static_sources(), encoding="utf-8")

    def _admin(self) -> str:
        """Returns the admin's password if this command created it, else a hint."""
        file = settings.VAR_DIR / "admin-password"
        if User.objects.filter(is_superuser=True).exists():
            return file.read_text(encoding="utf-8").strip() if file.exists() else "(as you set it)"
        password = env.text("ADMIN_PASSWORD", "") or secrets.token_urlsafe(9)
        User.objects.create_superuser("admin", "", password)
        write_private(file, password)
        return password

    def _client_key(self) -> str:
        """Returns a key with every right, issued once and kept in ``$VIGIA_VAR/client-key``."""
        file = settings.VAR_DIR / "client-key"
        client = client_keys.client_with_every_right(CLIENT)
        if file.exists() and AuthToken.objects.filter(user=client).exists():
            return file.read_text(encoding="utf-8").strip()
        key = client_keys.issue(client)
        write_private(file, key)
        return key

    def _write_public_welcome(self, unusable: dict[int, str]) -> None:
        """Writes the text that the proxy prints: it runs as another user and mounts this directory alone."""
        public = settings.VAR_DIR / "public"
        public.mkdir(exist_ok=True)
        public.chmod(0o755)
        text = public / "welcome.txt"
        content = welcome.compose(settings.VAR_DIR, unusable, _first_to_try(unusable))
        text.write_text(content, encoding="utf-8")
        text.chmod(0o644)


def static_sources() -> str:
    """Returns a text that changes with the installed packages and with our own static files."""
    root = Path(settings.BASE_DIR)
    own = sorted(path for app in ("web", "recommender") for path in (root / app / "static").rglob("*"))
    paths = [root / "requirements.txt", *(path for path in own if path.is_file())]
    return json.dumps([[str(path.relative_to(root)), path.stat().st_mtime_ns] for path in paths])


def _lacks_version(row: RegisteredModel) -> bool:
    return row.archived_at is None and not row.versions.exists()


def _active_versions_of_rows() -> QuerySet[ModelVersion, ModelVersion]:
    provided = [provider.name for provider in providers.every()]
    return serving_versions().exclude(registered_model__name__in=provided)


def _first_to_try(unusable: dict[int, str]) -> ModelVersion | None:
    """Returns the version of the welcome text's prediction; None without a usable version."""
    usable = _active_versions_of_rows().exclude(pk__in=unusable).order_by("registered_model__name")
    return usable.filter(registered_model__name="churn").first() or usable.first()


def write_private(path: Path, text: str) -> None:
    """Writes a secret to a file that only its owner can ever read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(f"{text}\n")
