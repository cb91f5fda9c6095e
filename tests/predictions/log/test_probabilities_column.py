"""The log gets its column of every class's probability while it is read and written."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from uuid_utils import uuid7

from predictions.log import partitions
from predictions.models import Prediction
from tests.conftest import Post
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
migration: Any = importlib.import_module("predictions.migrations.0017_probabilities")
pytestmark = pytest.mark.django_db(transaction=True)
COLUMNS = "registered_model_id, version_id, inputs, prediction, warnings, request_id"
INSERT = (  # as the previous release writes
    f"INSERT INTO predictions_prediction (id, {COLUMNS}) "
    f"SELECT %s::uuid, {COLUMNS} FROM predictions_prediction LIMIT 1"
)
ADD = "ALTER TABLE predictions_prediction ADD COLUMN IF NOT EXISTS probabilities json NULL"
DROP = "ALTER TABLE predictions_prediction DROP COLUMN IF EXISTS probabilities"


def tables_with_column() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attrelid::regclass::text FROM pg_attribute "
            "WHERE attname = 'probabilities' AND NOT attisdropped "
            "AND attrelid IN (SELECT relid FROM pg_partition_tree('predictions_prediction'))"
        )
        return {name for (name,) in cursor.fetchall()}


def test_every_partition_gets_the_column_and_no_write_waits_for_a_long_reader(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    assert post(CHURN, customer).status_code == 200
    partitions.ensure(timezone.now(), 2)
    every = tables_with_column()
    assert len(every) > 2, "the parent, the default partition and those of months"
    migration.in_short(DROP)(None, connection.schema_editor())
    assert tables_with_column() == set()
    parameters = connection.get_connection_params()
    address = {name: parameters[name] for name in ("dbname", "user", "password", "host", "port")}
    with psycopg.connect(**address) as reader, psycopg.connect(autocommit=True, **address) as other:
        reader.execute("SELECT count(*) FROM predictions_prediction")  # a transaction that stays open
        ended = threading.Event()

        def migrate() -> None:
            try:
                migration.in_short(ADD)(None, connection.schema_editor())
            finally:
                connection.close()
                ended.set()

        thread = threading.Thread(target=migrate)
        thread.start()
        longest = 0.0
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            began = time.monotonic()
            other.execute(INSERT, [str(uuid7())])
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.02)
        assert not ended.is_set(), "the reader holds the table"
        assert longest < 1.5, "a statement waits for one try of the migration at most"
        reader.rollback()
        thread.join(20)
    assert tables_with_column() == every
    migration.in_short(ADD)(None, connection.schema_editor())  # an interrupted migration runs again
    assert post(CHURN, customer).status_code == 200
    assert not any(Prediction.objects.values_list("by_class", flat=True))
