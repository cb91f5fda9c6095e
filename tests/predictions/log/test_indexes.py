"""The log's indexes become ascending while the log is read and written; they serve both directions."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection
from uuid_utils import uuid7

from predictions.log import partitions
from tests.conftest import Post
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
COLUMNS = "registered_model_id, version_id, inputs, prediction, warnings, request_id"
INSERT = (
    f"INSERT INTO predictions_prediction (id, {COLUMNS}) "
    f"SELECT %s::uuid, {COLUMNS} FROM predictions_prediction LIMIT 1"
)
migration: Any = importlib.import_module("predictions.migrations.0015_ascending_indexes")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def descending(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> Iterator[ModelVersion]:
    """Makes the indexes descending, as they were, on a log with rows."""
    assert post(CHURN, [{**customer, "_key": f"k{n}"} for n in range(20)]).status_code == 200
    replace_indexes("DESC")
    assert all("id DESC)" in each for each in definitions().values())
    yield churn
    replace_indexes("ASC")


def replace_indexes(order: str) -> None:
    with connection.schema_editor(atomic=False) as editor:
        migration.build_all(order)(None, editor)


def queried(statement: str, *parameters: object) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def definitions() -> dict[str, str]:
    """Returns the definitions of all valid indexes of the log and its partitions but those of the ids."""
    return dict(
        queried(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indisvalid AND NOT indisprimary AND indrelid IN "
            "(SELECT relid FROM pg_partition_tree('predictions_prediction'))"
        )
    )


def are_ascending() -> bool:
    found = definitions()
    tables = len(partitions.names()) + 1
    return len(found) == 3 * tables and not any("DESC" in each for each in found.values())


@contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_indexes_are_replaced_while_the_log_is_read_and_written(descending: ModelVersion) -> None:
    parameters = connection.get_connection_params()
    address = {name: parameters[name] for name in ("dbname", "user", "password", "host", "port")}
    waits: list[float] = []

    def read(stop: threading.Event) -> None:
        with psycopg.connect(**address) as reader:
            while not stop.is_set():
                reader.execute("SELECT count(*) FROM predictions_prediction")
                stop.wait(0.8)  # longer than a change of the log waits for its lock
                reader.commit()
                stop.wait(0.2)

    def write(stop: threading.Event) -> None:
        with psycopg.connect(autocommit=True, **address) as writer:
            while not stop.wait(0.01):
                began = time.monotonic()
                writer.execute(INSERT, [str(uuid7())])
                waits.append(time.monotonic() - began)

    with running(read), running(write):
        replace_indexes("ASC")
    assert are_ascending(), definitions()
    assert len(waits) > 50
    assert max(waits) < 2, "a write waited for the new indexes"


def test_an_interrupted_replacement_resumes(
    descending: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_short, calls = migration.in_short, iter(range(100))

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        in_short(*arguments)

    monkeypatch.setattr(migration, "in_short", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_indexes("ASC")
    monkeypatch.undo()
    assert not are_ascending()
    replace_indexes("ASC")
    assert are_ascending(), definitions()


@pytest.mark.parametrize(
    "condition", ["registered_model_id = %s", "version_id = %s", "key = 'k3' AND registered_model_id = %s"]
)
def test_the_newest_rows_need_no_sorting(
    churn: ModelVersion, post: Post, customer: dict[str, Any], condition: str
) -> None:
    assert post(CHURN, [{**customer, "_key": f"k{n}"} for n in range(20)]).status_code == 200
    value = churn.pk if condition.startswith("version_id") else churn.registered_model_id
    queried(
        "SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false)"
    )
    try:
        plan = queried(
            f"EXPLAIN SELECT id FROM predictions_prediction WHERE {condition} ORDER BY id DESC LIMIT 5", value
        )
    finally:
        queried(
            "SELECT set_config('enable_seqscan', 'on', false), set_config('enable_bitmapscan', 'on', false)"
        )
    text = "\n".join(line for (line,) in plan)
    assert "Backward" in text
    assert "Sort" not in text, text
