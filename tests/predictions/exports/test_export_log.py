"""`export_log`: the log as Parquet, read back by DuckDB and pandas."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import re
import threading
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions import retention
from predictions.exports import days, rows, window
from predictions.log import partitions
from predictions.log.partitions import Month
from predictions.models import Outcome, Prediction
from predictions.rollups import counting
from predictions.rollups.hours import floor
from tests.conftest import new_ids
from tests.predictions.admin.test_log import answered, cells
from tests.trained import train_sample
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
DAY = floor(timezone.now(), window.DAY) - 10 * window.DAY
HOUR, MILLISECOND = dt.timedelta(hours=1), dt.timedelta(milliseconds=1)
NEXT = DAY + window.DAY


def ids_at(*moments: dt.datetime) -> list[uuid.UUID]:
    """Returns an id for each time; all differ."""
    return [uuid.UUID(int=lowest_at(moment).int | 7 << 76 | uuid.uuid4().int >> 66) for moment in moments]


def logged(version: ModelVersion, *moments: dt.datetime, **fields: Any) -> list[Prediction]:
    return answered(version, ids=ids_at(*moments), **fields)


def record_outcome(row: Prediction, actual: Any) -> None:
    Outcome.objects.create(
        registered_model=row.registered_model, prediction_id=row.pk, actual=actual, observed_at=row.at + HOUR
    )


def erase(*erased: Prediction) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'erase'")
        Prediction.objects.filter(pk__in=[row.pk for row in erased]).delete()


def exported(out: Path, *months: str, **options: Any) -> str:
    text = io.StringIO()
    call_command("export_log", *months, out=out, stdout=text, **options)
    return text.getvalue()


def sql(out: Path, query: str) -> list[tuple[Any, ...]]:
    """Returns the result of a query in DuckDB, in which LOG stands for the dataset."""
    log = f"read_parquet('{out}/model=churn/*/*.parquet', hive_partitioning = true, union_by_name = true)"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        return database.execute(query.replace("LOG", log)).fetchall()


def ids_in(out: Path) -> list[str]:
    return [identifier for (identifier,) in sql(out, "SELECT id FROM LOG ORDER BY id")]


def in_order(*some: Prediction) -> list[str]:
    return sorted(str(row.pk) for row in some)


def folder(out: Path, day: dt.datetime = DAY, model: str = "churn") -> Path:
    return out / f"model={model}" / f"day={day:%F}"


def manifest(out: Path, day: dt.datetime = DAY) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder(out, day) / "_manifest.json").read_text())
    return held


def state_of(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Returns inode, time of change and bytes of each file."""
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_duckdb_reads_typed_columns_outcomes_and_the_sums_of_the_log(
    churn: ModelVersion, tmp_path: Path
) -> None:
    moments = [DAY + 5 * n * HOUR for n in range(10)]
    made = [
        logged(
            churn,
            moment,
            cells=cells(churn, tenure=n, totalcharges=None if n == 3 else 1.5 * n, seniorcitizen=n % 2 == 0),
            prediction=n % 3 == 0,
            probability=n / 10,
            key=f"customer-{n}",
            warnings=[{"field": "tenure", "code": "out_of_range"}] if n == 4 else [],
            batch_id=12 if n < 2 else None,
        )[0]
        for n, moment in enumerate(moments)
    ]  # fmt: skip
    for row in made[:6]:
        record_outcome(row, False)
    record_outcome(made[2], True)  # a correction
    houses = train_sample("houses", rows=150)
    logged(houses, DAY, prediction=125_000.5, probability=None, cells=cells(houses))
    text = exported(tmp_path, since=DAY)
    assert f"{folder(tmp_path)}: 5 rows, 1 file\n" in text
    assert "11 rows; " in text

    types = {name: kind for name, kind, *_ in sql(tmp_path, "DESCRIBE SELECT * FROM LOG")}
    assert types | {
        "id": "VARCHAR", "time": "TIMESTAMP WITH TIME ZONE", "version": "INTEGER", "batch": "BIGINT",
        "prediction": "BOOLEAN", "probability": "DOUBLE",
        "probabilities": "MAP(VARCHAR, DOUBLE)", "warnings": "STRUCT(field VARCHAR, code VARCHAR)[]",
        "actual": "BOOLEAN", "observed_at": "TIMESTAMP WITH TIME ZONE", "day": "DATE", "model": "VARCHAR",
        "input_tenure": "BIGINT", "input_contract": "VARCHAR", "input_totalcharges": "DOUBLE",
        "input_seniorcitizen": "BOOLEAN",
    } == types  # fmt: skip
    assert sql(tmp_path, "SELECT day::text, count(*) FROM LOG GROUP BY day ORDER BY day") == [
        (f"{DAY:%F}", 5),
        (f"{NEXT:%F}", 5),
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), sum(probability), sum((inputs->>4)::int), count(inputs->>18), "
            "sum((inputs->>18)::float), count(*) FILTER (WHERE prediction = 'true') "
            "FROM predictions_prediction WHERE version_id = %s",
            [churn.pk],
        )
        expected = cursor.fetchone()
    found = sql(
        tmp_path,
        "SELECT count(*), sum(probability), sum(input_tenure), count(input_totalcharges), "
        "sum(input_totalcharges), count(*) FILTER (WHERE prediction) FROM LOG",
    )
    assert found == [pytest.approx(expected)]
    assert sql(tmp_path, "SELECT actual, count(*) FROM LOG GROUP BY actual ORDER BY actual") == [
        (False, 5),
        (True, 1),
        (None, 4),
    ]
    row = sql(
        tmp_path,
        "SELECT epoch_ms(time), epoch_ms(observed_at), version, client, key, batch, request_id, "
        "probabilities['false'], probabilities['true'], warnings[1].field, recorded_at IS NOT NULL "
        "FROM LOG WHERE key = 'customer-4'",
    )
    at = int(moments[4].timestamp() * 1000)
    assert row == [(at, at + 3_600_000, 1, None, "customer-4", None, "r-1", 0.6, 0.4, "tenure", True)]
    assert sql(tmp_path, "SELECT key FROM LOG WHERE batch = 12 ORDER BY key") == [
        ("customer-0",),
        ("customer-1",),
    ]
    assert ids_in(tmp_path) == in_order(*made)
    [file] = folder(tmp_path, model="houses").glob("*.parquet")
    assert pq.read_table(file)["prediction"].to_pylist() == [125_000.5]


def test_a_client_is_named(churn: ModelVersion, client_user: Any, tmp_path: Path) -> None:
    logged(churn, DAY, client=client_user)
    exported(tmp_path, since=DAY)
    assert sql(tmp_path, "SELECT client FROM LOG") == [("tester",)]


# -- schemas -------------------------------------------------------------------------------------------


def changed_version(churn: ModelVersion, **changed: dict[str, Any] | None) -> ModelVersion:
    """Returns another version of churn with other columns: None removes a column."""
    schema = churn.dataset_schema.to_json()
    columns = {column["name"]: column for column in schema["columns"]}
    for name, column in changed.items():
        if column is None:
            del columns[name]
        else:
            columns[name] = {"name": name} | column
    new = {"schema": schema | {"columns": list(columns.values())}, "schema_sha256": "0" * 64}
    return train_sample("churn", rows=600, activate=False, **new)


def test_versions_of_one_day_with_other_columns_have_files_of_their_own_and_unite_by_name(
    churn: ModelVersion, tmp_path: Path
) -> None:
    region = {"type": "text", "nullable": True}
    other = changed_version(
        churn, gender=None, tenure={"type": "number"}, contract={"type": "text"}, region=region
    )
    same = changed_version(churn)  # another version with the same columns
    for hour in range(4):
        logged(churn, DAY + hour * HOUR, cells=cells(churn, tenure=hour, contract="one_year", gender="male"))
        logged(
            other, DAY + hour * HOUR, cells=cells(other, tenure=hour + 0.5, contract="weekly", region="Łódź")
        )
        logged(same, DAY + hour * HOUR, cells=cells(same, tenure=100))
    exported(tmp_path, since=DAY)
    files = {tuple(file["versions"]): file for file in manifest(tmp_path)["files"]}
    assert {versions: file["rows"] for versions, file in files.items()} == {(1, 3): 8, (2,): 4}
    assert len({file["name"].split("-")[1] for file in files.values()}) == 2
    for file in files.values():
        path = folder(tmp_path) / file["name"]
        assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (
            file["bytes"],
            file["sha256"],
        )
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        assert ids == sorted(ids)

    assert sql(
        tmp_path,
        "SELECT version, count(*), sum(input_tenure), sum(input_tenure__number), sum(coalesce(input_tenure, "
        "input_tenure__number)), min(input_contract), min(input_gender), max(input_region) FROM LOG "
        "GROUP BY version ORDER BY version",
    ) == [
        (1, 4, 6, None, 6.0, "one_year", "male", None),
        (2, 4, None, 8.0, 8.0, "weekly", None, "Łódź"),
        (3, 4, 400, None, 400.0, None, None, None),
    ]  # fmt: skip
    # As Spark's mergeSchema and the recipe of docs/log-export.md: under a name, no type ever differs.
    log = pads.dataset(tmp_path, partitioning="hive")
    schema = pa.unify_schemas([log.schema, *(each.physical_schema for each in log.get_fragments())])
    frame = pads.dataset(tmp_path, schema=schema, partitioning="hive").to_table().to_pandas()
    assert len(frame) == 12
    assert frame["input_tenure__number"].sum() == 8
    assert set(frame["input_region"].dropna()) == {"Łódź"}
    assert set(frame["model"]) == {"churn"}


def test_a_version_that_comes_later_changes_no_name_of_earlier_files(
    churn: ModelVersion, tmp_path: Path
) -> None:
    logged(churn, DAY, cells=cells(churn, tenure=3))
    exported(tmp_path / "before", since=DAY)
    other = changed_version(churn, tenure={"type": "category"})
    renamed = changed_version(churn, tenure=None, TENURE={"type": "integer"})
    logged(other, NEXT, cells=cells(other, tenure="long"))
    logged(renamed, NEXT + HOUR, cells=cells(renamed, TENURE=7))
    exported(tmp_path / "after", since=DAY)
    before, after = (state_of(folder(tmp_path / each)) for each in ("before", "after"))
    assert {name: content for name, (*_, content) in before.items()} == {
        name: content for name, (*_, content) in after.items()
    }
    # Engines compare names without case, so TENURE is no second input_tenure.
    query = "SELECT input_tenure, input_tenure__text, input_TENURE__integer FROM LOG ORDER BY id"
    assert sql(tmp_path / "after", query) == [(3, None, None), (None, "long", None), (None, None, 7)]


def test_values_of_the_wild_are_exact(churn: ModelVersion, tmp_path: Path) -> None:
    odd, name = "NUL \x00, quote ', “ünï”, \n, 😀, \u202e, \ufeff", 'a.b "c"\n日本'
    version = changed_version(
        churn,
        **{
            "since": {"type": "date", "nullable": True},
            "seen at": {"type": "datetime", "nullable": True},
            "id": {"type": "category", "levels": ["1", "01", "1e3", "true", "NULL"]},
            "count": {"type": "integer", "nullable": True},
            name: {"type": "text", "nullable": True},
        },
    )
    inputs: list[dict[str, Any]] = [
        {"id": "01", "count": 2**53, "since": "0001-01-01", "seen at": "9999-12-31T23:59:59.999999Z"},
        {"id": "1e3", "count": -(2**53), "monthlycharges": 1, "totalcharges": 2**60},
        {"id": "NULL", "since": "2026-02-28", "seen at": "1969-12-31T23:59:59Z", name: odd},
        {"id": "true"},
    ]
    keys = ["='x", "ключ 😀\n\t", None, "\u200b"]
    ids = ids_at(*(DAY + n * HOUR for n in range(4)))
    with connection.cursor() as cursor:  # as the log's writer does: a JSON text, not through jsonb
        for identifier, key, values in zip(ids, keys, inputs, strict=True):
            cursor.execute(
                "INSERT INTO predictions_prediction (id, registered_model_id, version_id, key, inputs, "
                "prediction, warnings, request_id) VALUES (%s, %s, %s, %s, %s::json, 'true', '[]', '')",
                [
                    identifier,
                    version.registered_model_id,
                    version.pk,
                    key,
                    json.dumps(cells(version, **values)),
                ],
            )
    exported(tmp_path, since=DAY)
    found = sql(
        tmp_path,
        'SELECT input_id, input_count, key, input_since::text, "input_seen at"::text, input_monthlycharges, '
        "input_totalcharges FROM LOG ORDER BY id",
    )
    assert found == [
        ("01", 2**53, keys[0], "0001-01-01", "9999-12-31 23:59:59.999999+00", None, None),
        ("1e3", -(2**53), keys[1], None, None, 1.0, float(2**60)),
        ("NULL", None, None, "2026-02-28", "1969-12-31 23:59:59+00", None, None),
        ("true", None, keys[3], None, None, None, None),
    ]
    [file] = folder(tmp_path).glob("*.parquet")
    table = pq.read_table(file)
    assert table[f"input_{name}"].to_pylist() == [None, None, odd, None]
    assert table.schema.field("input_id").type == pa.string()


def test_labels_keep_their_type(churn: ModelVersion, tmp_path: Path) -> None:
    """Labels that look like numbers are texts; a version with other labels has a column of its own."""
    schema = churn.dataset_schema.to_json()
    levels = ["0", "1", "true"]
    schema |= {"target": {"name": "churn", "type": "category", "levels": levels}}
    graded = train_sample("churn", rows=600, activate=False, schema=schema, classes=levels, threshold=None)
    [first] = logged(churn, DAY, prediction=True)
    [second] = logged(graded, DAY + HOUR, prediction="1", probability=0.5, by_class=[0.25, 0.5, 0.25])
    logged(graded, DAY + 2 * HOUR, prediction="true", probability=0.5)
    record_outcome(first, False)
    record_outcome(second, "true")
    exported(tmp_path, since=DAY)
    assert sql(
        tmp_path,
        "SELECT prediction, prediction__text, actual, actual__text, probabilities['1'] FROM LOG ORDER BY id",
    ) == [(True, None, False, None, None), (None, "1", None, "true", 0.5), (None, "true", None, None, None)]


def test_a_value_that_no_column_takes_is_named(churn: ModelVersion, tmp_path: Path) -> None:
    logged(churn, DAY, cells=cells(churn, tenure=1))
    [bad] = logged(churn, DAY + HOUR, cells=cells(churn, tenure="many"))
    with pytest.raises(CommandError, match=f"prediction {bad.pk} of churn 1 cannot be exported: its tenure"):
        exported(tmp_path, since=DAY)
    assert not list(tmp_path.rglob("*.parquet"))
    erase(bad)
    [short] = logged(churn, DAY + HOUR, cells=[])
    with pytest.raises(CommandError, match=f"prediction {short.pk} .*0 values for 19 columns"):
        exported(tmp_path, since=DAY)


# -- the window ----------------------------------------------------------------------------------------


def test_the_window_is_half_open_to_the_millisecond(churn: ModelVersion, tmp_path: Path) -> None:
    since, until = DAY + HOUR, DAY + 2 * HOUR
    moments = (since - MILLISECOND, since, until - MILLISECOND, until)
    _, first, last, _ = (logged(churn, moment)[0] for moment in moments)
    exported(tmp_path, since=since, until=until)
    assert ids_in(tmp_path) == in_order(first, last)
    assert not manifest(tmp_path)["complete"]
    assert not (folder(tmp_path) / "_SUCCESS").exists()


def test_a_month_is_exported_to_its_last_row(churn: ModelVersion, tmp_path: Path) -> None:
    month = Month.of(DAY.replace(day=1) - window.DAY)
    start, end = month.start, month.next.start
    _, first, last, _ = (logged(churn, at)[0] for at in (start - MILLISECOND, start, end - MILLISECOND, end))
    exported(tmp_path, f"{start:%Y-%m}")
    assert ids_in(tmp_path) == in_order(first, last)
    days_of_month = (end - start).days
    assert (
        len(list(tmp_path.rglob("_SUCCESS"))) == len(list(tmp_path.rglob("_manifest.json"))) == days_of_month
    )
    assert manifest(tmp_path, start + window.DAY)["rows"] == 0
    for arguments, options, message in (
        (["2026-13"], {}, "is not a month"),
        (["2026-11"], {"since": DAY}, "not both"),
        ([], {"since": timezone.now() + HOUR}, "is empty"),
        ([], {"model": ["chrun"]}, "no registered model"),
    ):
        with pytest.raises(CommandError, match=message):
            exported(tmp_path, *arguments, **options)


def test_the_present_day_is_not_complete(churn: ModelVersion, tmp_path: Path) -> None:
    [row] = logged(churn, counting.database_now() - counting.lag() - HOUR / 60)
    exported(tmp_path, since=DAY, until=timezone.now() + 1000 * HOUR)
    assert ids_in(tmp_path) == in_order(row)
    last = max(tmp_path.glob("model=churn/day=*"))
    assert not json.loads((last / "_manifest.json").read_text())["complete"]
    assert not (last / "_SUCCESS").exists()


def test_no_row_is_missed_that_commits_after_its_id_was_drawn(
    churn: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row gets its id first. One whose transaction is open at the export lies beyond the export's end, and
    the next export has it."""
    [settled] = logged(churn, counting.database_now() - counting.lag() - HOUR / 3600)
    began, finish = threading.Event(), threading.Event()
    late = new_ids(1)

    def write() -> None:
        with transaction.atomic():
            answered(churn, ids=late)
            began.set()
            finish.wait(30)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert began.wait(30)
    # A row with a later id is committed already: an export up to its id would miss the open one for ever.
    [later] = answered(churn, ids=new_ids(1))
    exported(tmp_path, since=DAY)
    assert ids_in(tmp_path) == in_order(settled)
    end = dt.datetime.fromisoformat(manifest(tmp_path, settled.at)["until"])
    assert lowest_at(end) < late[0]
    finish.set()
    writer.join()
    with monkeypatch.context() as patch:  # as if the lag had passed
        patch.setattr(window, "latest_end", lambda: counting.database_now() + HOUR)
        exported(tmp_path, since=DAY)
    assert ids_in(tmp_path) == sorted([str(settled.pk), str(late[0]), str(later.pk)])


def test_a_row_that_comes_even_later_is_in_the_next_export(churn: ModelVersion, tmp_path: Path) -> None:
    early = logged(churn, DAY, DAY + 2 * HOUR)
    exported(tmp_path, since=DAY)
    [late] = logged(churn, DAY + HOUR)
    text = exported(tmp_path, since=DAY)
    assert f"{folder(tmp_path)}: 3 rows, 1 file" in text
    assert ids_in(tmp_path) == in_order(*early, late)
    assert (folder(tmp_path) / "_SUCCESS").exists()


# -- again ---------------------------------------------------------------------------------------------


def test_an_export_again_gives_the_same_bytes_and_leaves_unchanged_days_alone(
    churn: ModelVersion, tmp_path: Path
) -> None:
    made = logged(churn, *(DAY + n * HOUR for n in range(40)), cells=cells(churn, tenure=5))
    record_outcome(made[0], True)
    exported(tmp_path / "one", since=DAY, until=NEXT + 24 * HOUR)
    exported(tmp_path / "two", since=DAY, until=NEXT + 24 * HOUR)
    one, two = (state_of(tmp_path / each) for each in ("one", "two"))
    assert {name: content for name, (*_, content) in one.items()} == {
        name: content for name, (*_, content) in two.items()
    }
    assert "0 days written" in exported(tmp_path / "one", since=DAY, until=NEXT + 24 * HOUR)
    assert state_of(tmp_path / "one") == one


def test_a_later_outcome_and_a_lost_file_write_their_day_again(churn: ModelVersion, tmp_path: Path) -> None:
    made = logged(churn, DAY, NEXT)
    exported(tmp_path, since=DAY)
    record_outcome(made[0], True)
    text = exported(tmp_path, since=DAY)
    assert f"{folder(tmp_path)}: 1 rows, 1 file\n" in text
    assert f"{folder(tmp_path, NEXT)}: 1 rows, unchanged\n" in text
    record_outcome(made[0], False)
    exported(tmp_path, since=DAY)
    assert sql(tmp_path, "SELECT actual FROM LOG ORDER BY id") == [(False,), (None,)]
    next(folder(tmp_path, NEXT).glob("*.parquet")).unlink()
    exported(tmp_path, since=DAY)
    assert len(ids_in(tmp_path)) == 2


def test_erased_rows_are_in_no_later_export(churn: ModelVersion, tmp_path: Path) -> None:
    gone, kept, alone = logged(churn, NEXT, NEXT + HOUR, DAY)
    exported(tmp_path, since=DAY)
    erase(gone, alone)  # of the first day, every row
    exported(tmp_path, since=DAY)
    assert ids_in(tmp_path) == in_order(kept)
    assert manifest(tmp_path)["files"] == []
    erase(kept)
    exported(tmp_path, since=DAY)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_month_that_retention_removed_keeps_its_files(churn: ModelVersion, tmp_path: Path) -> None:
    old = DAY.replace(day=1) - window.DAY
    partitions.ensure(old, 0)
    made = logged(churn, old)
    exported(tmp_path, since=old)
    assert retention.remove_month(Month.of(old)) is not None
    assert not Prediction.objects.exists()
    exported(tmp_path, since=old)
    assert ids_in(tmp_path) == in_order(*made)


def test_a_month_that_is_removed_during_an_export_replaces_no_file(
    churn: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = DAY.replace(day=1) - window.DAY
    partitions.ensure(old, 0)
    made = logged(churn, *(old + n * HOUR for n in range(6)))
    exported(tmp_path, since=old, until=old + window.DAY)
    record_outcome(made[0], True)  # the day is to be written again
    read = rows.pieces

    def removed_between(*arguments: Any) -> Any:
        for piece in read(*arguments):
            yield piece
            if Prediction.objects.exists():
                assert retention.remove_month(Month.of(old)) is not None

    monkeypatch.setattr(rows, "PIECE", 3)
    monkeypatch.setattr(rows, "pieces", removed_between)
    with pytest.raises(CommandError, match=r"retention removed .* during the export"):
        exported(tmp_path, since=old, until=old + window.DAY)
    assert ids_in(tmp_path) == in_order(*made)
    assert (folder(tmp_path, old) / "_SUCCESS").exists()


def test_a_part_never_replaces_a_larger_part_of_a_day(churn: ModelVersion, tmp_path: Path) -> None:
    made = logged(churn, DAY, DAY + 2 * HOUR, NEXT)
    exported(tmp_path, since=DAY, until=NEXT + HOUR)
    before = state_of(tmp_path)
    with pytest.raises(CommandError, match="widen the window, or choose another folder"):
        exported(tmp_path, since=DAY + HOUR, until=NEXT + HOUR)
    assert state_of(tmp_path) == before
    exported(tmp_path, since=DAY, until=NEXT + 24 * HOUR)  # wider
    assert ids_in(tmp_path) == in_order(*made)
    assert (folder(tmp_path, NEXT) / "_SUCCESS").exists()


def test_a_failure_leaves_the_earlier_files_and_nothing_half_written(
    churn: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = logged(churn, *(DAY + n * HOUR for n in range(20)))
    exported(tmp_path, since=DAY)
    before = state_of(tmp_path)
    logged(churn, DAY + HOUR / 2)
    monkeypatch.setattr(rows, "PIECE", 7)
    monkeypatch.setattr(days, "GROUP_ROWS", 7)
    checks: list[int] = []

    def full(directory: str, size: int) -> None:
        """The disk fills up at the second row group."""
        checks.append(size)
        if len(checks) == 2:
            raise OSError(28, "No space left on device", directory)

    with monkeypatch.context() as patch:
        patch.setattr(days.disk, "check_reserve", full)
        with pytest.raises(CommandError, match="No space left on device"):
            exported(tmp_path, since=DAY)
    assert state_of(tmp_path) == before
    (tmp_path / ".partial-left").mkdir()  # of a killed process
    (tmp_path / ".partial-left" / "part-0-000.parquet.partial").write_bytes(b"half")
    exported(tmp_path, since=DAY)
    assert len(ids_in(tmp_path)) == len(made) + 1
    assert not list(tmp_path.glob(".partial-*"))


def test_one_export_at_a_time_writes_to_a_folder(churn: ModelVersion, tmp_path: Path) -> None:
    from predictions.exports import folders

    logged(churn, DAY)
    running = folders.export(churn.registered_model, window.Window(DAY, NEXT), tmp_path)
    next(running)
    with pytest.raises(CommandError, match="another export writes to"):
        exported(tmp_path, since=DAY)
    running.close()
    exported(tmp_path, since=DAY)


def test_pieces_groups_and_files_lose_no_row(
    churn: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = changed_version(churn, tenure={"type": "number"})
    made = [
        row
        for n in range(60)
        for row in logged(churn if n % 3 else other, DAY + n * HOUR / 60, cells=cells(churn, tenure=n))
    ]
    for row in made[::4]:
        record_outcome(row, True)
    for name, value in (("PIECE", 7), ("FETCHED", 3), ("LONGEST_PIECE", 400)):
        monkeypatch.setattr(rows, name, value)
    monkeypatch.setattr(days, "GROUP_ROWS", 6)
    monkeypatch.setattr(days, "FILE_ROWS", 15)
    exported(tmp_path, since=DAY)
    assert ids_in(tmp_path) == in_order(*made)
    assert sql(
        tmp_path, "SELECT count(*), sum(coalesce(input_tenure, input_tenure__number)) FROM LOG WHERE actual"
    ) == [(15, sum(range(0, 60, 4)))]
    files = manifest(tmp_path)["files"]
    assert len(files) == 5
    assert sum(file["rows"] for file in files) == 60
    assert (manifest(tmp_path)["rows"], manifest(tmp_path)["outcomes"]) == (60, 15)


def test_the_examples_of_the_documentation_work(
    churn: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, row in enumerate(
        logged(churn, *(DAY + n * HOUR for n in range(6)), cells=cells(churn, tenure=30))
    ):
        record_outcome(row, n % 2 == 0)
    exported(tmp_path / "log", since=DAY)
    page = (settings.BASE_DIR / "docs" / "log-export.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [statements] = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with duckdb.connect() as database:
        view, by_day, by_tenure = filter(str.strip, statements.replace("2026-11-01", f"{DAY:%F}").split(";"))
        database.execute(view)
        assert database.execute(by_day).fetchall() == [(DAY.date(), 1, 6, 0.75, 1.0, 0.5)]
        assert database.execute(by_tenure).fetchall() == [(2, 0.75)]
    [code] = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "pyarrow" in each]
    exec(compile(code.replace("2026-11-01", f"{DAY:%F}"), "log-export.md", "exec"), {})
    assert "0.75" in capsys.readouterr().out
