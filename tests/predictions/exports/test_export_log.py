"""`export_log`: the log as Parquet, read back by DuckDB and pandas."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import call_command
from django.db import connection

from core.uuid7 import lowest_at
from predictions.models import Outcome, Prediction
from tests.predictions.admin.test_log import answered, cells
from tests.trained import train_sample
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
DAY = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


def ids_at(*moments: dt.datetime) -> list[Any]:
    """Ids with these times; equal times get different ids."""
    import uuid

    return [uuid.UUID(int=lowest_at(at).int | 0x7000_8000_0000_0000_0000 | n) for n, at in enumerate(moments)]


def logged(version: ModelVersion, *moments: dt.datetime, **fields: Any) -> list[Prediction]:
    return answered(version, ids=ids_at(*moments), **fields)


def outcome(row: Prediction, actual: Any) -> None:
    Outcome.objects.create(
        registered_model=row.registered_model, prediction_id=row.pk, actual=actual, observed_at=row.at
    )


def exported(out: Path, *arguments: str, **options: Any) -> str:
    from io import StringIO

    text = StringIO()
    call_command("export_log", *arguments, out=out, stdout=text, **options)
    return text.getvalue()


def sql(out: Path, query: str) -> list[tuple[Any, ...]]:
    log = f"read_parquet('{out}/**/*.parquet', hive_partitioning=true, union_by_name=true)"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        return database.execute(query.replace("LOG", log)).fetchall()


def test_first(churn: ModelVersion, tmp_path: Path) -> None:
    rows = logged(churn, *[DAY + dt.timedelta(hours=5 * n) for n in range(12)], key="customer-7")
    outcome(rows[3], False)
    outcome(rows[3], True)
    print(exported(tmp_path, since=DAY))
    print(sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")))
    print(sql(tmp_path, "DESCRIBE SELECT * FROM LOG"))
    print(sql(tmp_path, "SELECT * FROM LOG ORDER BY id LIMIT 5"))
    print(exported(tmp_path, since=DAY))
    assert 0
