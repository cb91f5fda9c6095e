"""Erasures are recorded where they happen, and are applied to a database that does not know them yet."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from config import erasures
from config.erasures import Record
from core.uuid7 import lowest_at
from predictions.log import partitions
from predictions.models import Erasure, Prediction
from recommender.models import Interaction, Movie
from tests.trained import SAMPLES
from training.access import client_keys
from training.models import ModelVersion
from training.registry import archiving
from training.runs import uploads

pytestmark = pytest.mark.django_db
Kind = Erasure.Kind


def log_row(version: ModelVersion, moment: dt.datetime) -> uuid.UUID:
    identifier = uuid.UUID(int=lowest_at(moment).int + 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO predictions_prediction "
            "(id, registered_model_id, version_id, inputs, prediction, warnings, request_id) "
            "VALUES (%s, %s, %s, '[]', 'true', '[]', '')",
            [identifier, version.registered_model_id, version.pk],
        )
    return identifier


def erase(statement: str, *parameters: Any, how: str = "erase") -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL vigia.maintenance = '{how}'")
        cursor.execute(statement, parameters)


def recorded() -> list[tuple[str, str]]:
    return list(Erasure.objects.values_list("kind", "reference"))


def record(kind: str, reference: object, moment: dt.datetime | None = None) -> Record:
    return Record(str(uuid.uuid4()), kind, str(reference), moment, timezone.now())


@pytest.mark.parametrize("how", ["erase", "move"])
def test_an_erased_row_of_the_log_is_recorded(churn: ModelVersion, how: str) -> None:
    now = timezone.now()
    partitions.ensure(now, 0)
    identifier = log_row(churn, now)
    erase("DELETE FROM predictions_prediction WHERE id = %s", identifier, how=how)
    assert recorded() == [(Kind.PREDICTION, str(identifier))]


def test_a_row_that_moves_into_its_partition_is_not_recorded(churn: ModelVersion) -> None:
    moment = dt.datetime(2031, 5, 7, tzinfo=dt.UTC)
    identifier = log_row(churn, moment)
    partitions.ensure(moment, 0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM predictions_prediction_2031_05")
        assert cursor.fetchall() == [(identifier,)]
    assert recorded() == []


def test_revoked_keys_and_changed_accounts_are_recorded() -> None:
    client, leaver = User.objects.create_user("client"), User.objects.create_user("leaver")
    client_keys.issue(client)
    [token] = client.auth_token_set.all()
    digest = token.digest
    token.delete()
    leaver_id = leaver.pk
    leaver.delete()
    client.is_active = False
    client.save()
    client.is_active = True
    client.save()
    assert recorded() == [
        (Kind.KEY, digest), (Kind.USER_DELETED, str(leaver_id)),
        (Kind.USER_DEACTIVATED, str(client.pk)), (Kind.USER_ACTIVATED, str(client.pk)),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["", "erase", "move"])
def test_records_of_erasures_are_append_only_also_for_who_erases(how: str) -> None:
    User.objects.create_user("leaver").delete()
    for statement in ("DELETE FROM predictions_erasure", "UPDATE predictions_erasure SET kind = 'key'"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            erase(statement, how=how)


def test_applying_records_erases_and_a_repetition_changes_nothing(churn: ModelVersion) -> None:
    identifier, kept = log_row(churn, timezone.now()), log_row(churn, timezone.now() - dt.timedelta(hours=1))
    Movie.objects.create(id=7, title="Vertigo")
    mine = Interaction.objects.create(user="customer-7", movie_id=7, kind="liked", at=timezone.now())
    other = Interaction.objects.create(user="customer-8", movie_id=7, kind="liked", at=timezone.now())
    client = User.objects.create_user("client")
    client_keys.issue(client)
    [token] = client.auth_token_set.all()
    records = [
        record(Kind.PREDICTION, identifier),
        record(Kind.INTERACTION, mine.pk, mine.received_at),
        # The id of another row, which the sequence gave again after an earlier restore.
        record(Kind.INTERACTION, other.pk, other.received_at - dt.timedelta(days=9)),
        record(Kind.KEY, token.digest, token.created),
        record(Kind.USER_DEACTIVATED, client.pk, client.date_joined),
    ]
    done = erasures.apply(records)
    assert (done.records, done.rows) == (5, 4)
    assert list(Prediction.objects.values_list("pk", flat=True)) == [kept]
    assert list(Interaction.objects.all()) == [other]
    client.refresh_from_db()
    assert not client.is_active and not client.auth_token_set.exists()
    assert sorted(map(str, Erasure.objects.values_list("pk", flat=True))) == sorted(
        each.id for each in records
    )
    again = erasures.apply(records)
    assert (again.records, again.rows) == (0, 0)


def test_a_deleted_account_that_rows_name_keeps_only_its_name(churn: ModelVersion) -> None:
    user = User.objects.create_user("leaver", password="a password to forget", is_staff=True)
    client_keys.issue(user)
    Movie.objects.create(id=7, title="Vertigo")
    Interaction.objects.create(user="c", movie_id=7, kind="liked", at=timezone.now(), client=user)
    erasures.apply([record(Kind.USER_DELETED, user.pk, user.date_joined)])
    user.refresh_from_db()
    assert not (user.is_active or user.is_staff or user.has_usable_password())
    assert not user.auth_token_set.exists()


def test_a_removed_month_is_removed_again_also_from_the_default_partition(churn: ModelVersion) -> None:
    start = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
    log_row(churn, start + dt.timedelta(days=3))
    kept = log_row(churn, start + dt.timedelta(days=40))
    erasures.apply([record(Kind.MONTH, "2024-02-01T00:00:00+00:00", start)])
    assert list(Prediction.objects.values_list("pk", flat=True)) == [kept]


def test_a_dataset_whose_file_was_deleted_loses_it_again(churn: ModelVersion) -> None:
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)
    rows = io.BytesIO(b"".join(lines[:38]))
    dataset = uploads.from_csv(churn.registered_model, rows, by=None, source="churn.csv")
    archiving.archive(dataset, by=None, reason="a person asked")
    archiving.delete_bytes(dataset, by=None, reason="a person asked")
    assert recorded() == [(Kind.DATASET, dataset.sha256)]
    rows.seek(0)
    uploads.from_csv(churn.registered_model, rows, by=None, source="churn.csv")  # as an older backup has it
    done = erasures.apply([record(Kind.DATASET, dataset.sha256, timezone.now())])
    assert (done.records, done.rows) == (1, 1)
    dataset.refresh_from_db()
    assert dataset.deleted_at is not None
    assert dataset.archived_at is not None
    assert not default_storage.exists(dataset.storage_name)
    assert len(recorded()) == 2, "applying records nothing a second time"
