"""Everything between an empty database and a service that answers; harmless to repeat."""

from __future__ import annotations

import io
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from knox.models import AuthToken

from config import env
from predictions import partitions
from recommender.models import Movie
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.schema import InvalidRows
from training.services import comparison, datasets, keys, makers, registry, runs

SAMPLES = Path(settings.BASE_DIR) / "training" / "samples"
MOVIES = Path(settings.BASE_DIR) / "recommender" / "samples"
CLIENT = "newcomer"
LONGEST_FIT = 600.0  # seconds


class Command(BaseCommand):
    help = "Migrates, trains first versions from sample data, makes an admin and a key once."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-models", action="store_true", help="train nothing")
        parser.add_argument("--no-accounts", action="store_true", help="make no admin and no key")

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        self._collect_static()
        partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)
        rows = registry.sync_catalogue()
        if not options["no_models"]:
            missing = [row for row in rows if not row.versions.exists()]
            for position, row in enumerate(missing, 1):
                self._train_first(row, f"[{position}/{len(missing)}]")
        self._profile_active()
        if not options["no_accounts"]:
            settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
            password = self._admin()
            key = self._client_key()
            write_private(settings.VAR_DIR / "welcome.txt", self._welcome(password, key))

    def _profile_active(self) -> None:
        """Active versions from before reference profiles get theirs, so that their log can be reviewed."""
        others = [maker.name for maker in makers.every()]
        active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE, reference__isnull=True)
        if active.exclude(registered_model__name__in=others).exists():
            from training.services import profiles

            for version, wrong in profiles.make_for_active():
                made = f"{version}: its reference profile was made from its dataset"
                self._say(f"{version} has no reference profile: {wrong}" if wrong else made)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _collect_static(self) -> None:
        """Copies the admin's and the API's static files, when the installed packages changed."""
        stamp = Path(settings.STATIC_ROOT) / ".collected"
        wanted = json.dumps(
            [[str(p.relative_to(settings.BASE_DIR)), p.stat().st_mtime_ns] for p in self._sources()]
        )
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return
        self._say("Collecting static files …")
        call_command("collectstatic", interactive=False, verbosity=0, clear=True)
        stamp.write_text(wanted, encoding="utf-8")

    @staticmethod
    def _sources() -> list[Path]:
        own = sorted((Path(settings.BASE_DIR) / "config" / "static").rglob("*"))
        return [Path(settings.BASE_DIR) / "requirements.txt", *(path for path in own if path.is_file())]

    def _train_first(self, row: RegisteredModel, count: str) -> None:
        if makers.find(row.name) is not None:
            self._index_first(row, count)
            return
        given = settings.VAR_DIR / "first-data" / f"{row.name}.csv"
        path = given if given.exists() else SAMPLES / f"{row.name}.csv"
        if not path.exists():
            how = f"manage.py load_dataset {row.name} FILE --train --activate"
            self._say(f"{count} {row.name}: no data yet; load some with {how}")
            return
        started = time.monotonic()
        self._say(f"{count} {row.name}: training a first version from {path.name} …")
        try:
            with path.open("rb") as stream, transaction.atomic():
                dataset = datasets.from_csv(row, stream, by=None, source=path.name)
                reason = f"first version, trained from {path.name}"
                run = runs.request(
                    row, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason=reason
                )
        except InvalidRows as error:
            self._not_trained(row, path, error.message)
            return
        self._execute_first(run, path, started)

    def _index_first(self, row: RegisteredModel, count: str) -> None:
        """Of a catalogue that is empty, the shipped one is loaded first; one that is not stays as it is."""
        started = time.monotonic()
        given = settings.VAR_DIR / "first-data" / f"{row.name}.csv"
        path = given if given.exists() else MOVIES / f"{row.name}.jsonl"
        if Movie.objects.exists():
            path = Path("the catalogue")
        else:
            try:
                call_command("load_movies", str(path), verbosity=0, stdout=io.StringIO())
                if path.parent == MOVIES:
                    people = str(MOVIES / "interactions.csv")
                    call_command("load_interactions", people, verbosity=0, stdout=io.StringIO())
            except CommandError as error:
                self._not_trained(row, path, str(error))
                return
        self._say(f"{count} {row.name}: building a first index from {path.name} …")
        reason = f"first version, built from {path.name}"
        self._execute_first(runs.request_again(row, by=None, activation_reason=reason), path, started)

    def _execute_first(self, run: TrainingRun, path: Path, started: float) -> None:
        if not runs.execute(run.pk):  # a worker was quicker
            while not run.is_finished and time.monotonic() - started < LONGEST_FIT:
                time.sleep(0.5)
                run.refresh_from_db()
        run.refresh_from_db()
        row = run.registered_model
        if run.status != TrainingRun.Status.SUCCEEDED:
            self._not_trained(row, path, run.error)
            return
        made: ModelVersion = run.version
        metric = comparison.primary_metric(row)
        assert metric is not None
        said = "active" if made.activations.exists() else "NOT active: its gate is not passed"
        seconds = time.monotonic() - started
        value = made.metrics.get(metric)
        shown = "–" if value is None else f"{value:.3f}"
        self._say(f"      version {made.number} is {said}; {metric} {shown}; {seconds:.1f} s")

    def _not_trained(self, row: RegisteredModel, path: Path, why: str) -> None:
        """One model that cannot be trained does not keep the others from being served."""
        self.stderr.write(f"      {row.name} could NOT be trained from {path}: {why}")

    def _admin(self) -> str:
        """The admin's password where this command made it, else a hint; written once, never changed."""
        note = settings.VAR_DIR / "admin-password"
        if User.objects.filter(is_superuser=True).exists():
            return note.read_text(encoding="utf-8").strip() if note.exists() else "(as you set it)"
        password = env.text("ADMIN_PASSWORD", "") or secrets.token_urlsafe(9)
        User.objects.create_superuser("admin", "", password)
        write_private(note, password)
        return password

    def _client_key(self) -> str:
        """A key with every right, made once and kept in ``$VIGIA_VAR/client-key``."""
        note = settings.VAR_DIR / "client-key"
        client = keys.client_with_every_right(CLIENT)
        if note.exists() and AuthToken.objects.filter(user=client).exists():
            return note.read_text(encoding="utf-8").strip()
        key = keys.issue(client)
        write_private(note, key)
        return key

    def _welcome(self, password: str, key: str) -> str:
        address = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
        lines = [
            "",
            f"Vigía is up: {address}/",
            f"  admin          {address}/admin/   user admin, password {password}",
            f"  browsable API  {address}/api/v1/models/   (log in through the admin)",
            f"  movies         {address}/movies/   (the same login)",
            f"  documentation  {address}/api/docs/",
            f"  client key     {settings.VAR_DIR / 'client-key'}   (every right; keep it to yourself)",
        ]
        others = [maker.name for maker in makers.every()]
        active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE)
        first = active.exclude(registered_model__name__in=others).order_by("registered_model__name")
        version = first.filter(registered_model__name="churn").first() or first.first()
        if version is not None:
            body = json.dumps(version.dataset_schema.example, ensure_ascii=False).replace("'", "'\\''")
            lines += [
                "",
                "A first prediction:",
                "",
                f"curl -s {address}/api/v1/models/{version.registered_model.name}/predictions/ \\",
                f"  -H 'Authorization: Token {key}' -H 'Content-Type: application/json' \\",
                f"  -d '{body}'",
            ]
        return "\n".join([*lines, "", "Ctrl-C stops everything.", ""])


def write_private(path: Path, text: str) -> None:
    """Writes a secret that only its owner can read, from its first byte on."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(f"{text}\n")
