"""Benchmark of rollups: the rate of counting a large log and the time of reading a window: `make
bench-rollups`.

The command fills a temporary database with a log of churn by plain SQL: 30 days, three versions, of which the
newer two answer a tenth of the rows each from their first day on. It rolls up the log as beat's task does,
and reads the rollups as a review and the dashboard do. ROLLUP_ROWS (10000000) sets the number of rows;
BENCH_WRITE=0 prints without writing, BENCH_KEEP=1 keeps the data.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import report
from bench.command import number, run, say, starting
from bench.growth import BATCH, BYTES_A_ROW, LOG
from bench.processes import ROOT, Failed, cpu_seconds

if TYPE_CHECKING:
    from training.models import ModelVersion

BEGIN, END = "<!-- rollups:begin -->", "<!-- rollups:end -->"
DAYS = 30
PATTERNS = 5_000
READINGS = 9
TARGET_RATE, TARGET_SECONDS = 1_000, 1.0


@dataclass(frozen=True)
class Cost:
    """The cost of a call. seconds : wall time. cpu : processor seconds of PostgreSQL's process and of this
    one."""

    seconds: float
    cpu: float


def measured(work: Callable[[], object]) -> Cost:
    """Measures the cost of one call, whose statements all use Django's one connection."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    began, ours, theirs = time.monotonic(), time.process_time(), cpu_seconds(pid)
    work()
    cpu = time.process_time() - ours + cpu_seconds(pid) - theirs
    return Cost(time.monotonic() - began, cpu)


# -- filling -------------------------------------------------------------------------------------------


def versions() -> list[ModelVersion]:
    """Returns three versions of churn: the first trained version and two copies of it."""
    from training.models import ModelVersion, ReferenceProfile, TrainingRun

    first = ModelVersion.objects.get(registered_model__name="churn")
    versions = [first]
    for offset in (1, 2):
        run_copy = TrainingRun.objects.get(pk=first.run_id)
        run_copy.pk = None
        run_copy.save()
        copy = ModelVersion.objects.get(pk=first.pk)
        copy.pk, copy.number, copy.run, copy.status = None, first.number + offset, run_copy, "retired"
        copy.save()
        ReferenceProfile.objects.create(version=copy, bins=first.reference.bins)
        versions.append(copy)
    return versions


def patterns(version: ModelVersion) -> Iterator[tuple[int, str, str, float]]:
    """Yields inputs of the sample's customers in the log's format, with generated answers."""
    with (ROOT / "training" / "samples" / "churn.csv").open(encoding="utf-8", newline="") as lines:
        for at, line in enumerate(csv.DictReader(lines)):
            texts = {name.lower(): text for name, text in line.items()}
            cells = [column.from_text(texts[column.name]) for column in version.dataset_schema.columns]
            probability = (at * 7919 % PATTERNS) / PATTERNS
            yield at, json.dumps(cells), json.dumps(probability >= 0.5), probability


def fill(three: list[ModelVersion], rows: int, end: dt.datetime) -> None:
    """Logs rows evenly over the days before `end`."""
    from django.db import connection

    from predictions.log import partitions

    partitions.ensure(end - dt.timedelta(days=DAYS), 1)
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(
            "CREATE TABLE bench_row (at int PRIMARY KEY, inputs json, prediction jsonb, probability float8)"
        )
        cursor.executemany("INSERT INTO bench_row VALUES (%s, %s, %s, %s)", list(patterns(three[0])))
        cursor.execute("ANALYZE bench_row")
        cursor.execute("SELECT count(*) FROM bench_row")
        (kinds,) = cursor.fetchone()
        for first in range(0, rows, BATCH):
            last = min(first + BATCH, rows) - 1
            cursor.execute(
                f"INSERT INTO {LOG} (id, registered_model_id, version_id, inputs, prediction, "  # noqa: S608
                "probability, warnings, request_id) "
                "SELECT uuidv7(make_interval(secs => %(start)s + n * %(step)s "
                "- extract(epoch FROM clock_timestamp())::float8)), %(model)s, "
                "CASE WHEN n %% 10 = 0 AND n > %(rows)s / 3 THEN %(second)s "
                "WHEN n %% 10 = 1 AND n > 2 * %(rows)s / 3 THEN %(third)s ELSE %(first_version)s END, "
                "inputs, prediction, probability, '[]', uuidv7()::text "
                "FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n "
                "JOIN bench_row ON bench_row.at = n %% %(kinds)s",
                {
                    "start": (end - dt.timedelta(days=DAYS)).timestamp(),
                    "step": DAYS * 86_400 / rows,
                    "model": three[0].registered_model_id,
                    "first_version": three[0].pk,
                    "second": three[1].pk,
                    "third": three[2].pk,
                    "rows": rows,
                    "kinds": kinds,
                    "first": first,
                    "last": last,
                },
            )
            if last + 1 == rows or (last + 1) % (4 * BATCH) == 0:
                say(f"  {last + 1:,} of {rows:,} rows")
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(f"VACUUM (ANALYZE) {LOG}")  # as autovacuum would do later


# -- measuring -----------------------------------------------------------------------------------------


def inside(rows: int) -> str:
    """Runs the benchmark in the temporary database; returns the section of the page."""
    import django

    django.setup()
    from django.db import connection

    from predictions.models import Rollup

    three = versions()
    # The last hour must be over long enough for the rollups to close it.
    end = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    end = end.replace(minute=0, second=0, microsecond=0)
    since = end - dt.timedelta(days=DAYS)
    say(f"Logging {rows:,} rows ...")
    fill(three, rows, end)
    say("Rolling up ...")
    rolled = roll_up(three[0], rows, end)
    with connection.cursor() as cursor:
        table = Rollup._meta.db_table
        cursor.execute(f"VACUUM (ANALYZE) {table}")
        cursor.execute("SELECT pg_total_relation_size(%s), pg_database_size(current_database())", [table])
        size, database = cursor.fetchone()
    costs = {
        title: [measured(read) for _ in range(READINGS)]
        for title, read in readings(three[0], rows, since, end).items()
    }
    return section(rows, Rollup.objects.count(), size, database, rolled, costs)


def roll_up(version: ModelVersion, rows: int, end: dt.datetime) -> Cost:
    """Measures the cost of counting the log; raises `Failed` unless every row is counted and every hour
    closed."""
    from predictions.models import RolledHour
    from predictions.rollups import counting

    model, counted, total = version.registered_model, 0, Cost(0.0, 0.0)
    hours = RolledHour.objects.filter(registered_model=model, hour__lt=end)

    def count_more() -> None:
        nonlocal counted
        counted += counting.roll_up(model, seconds=20).rows

    while counted < rows or hours.filter(closed=False).exists():
        before = counted, hours.filter(closed=True).count()
        cost = measured(count_more)
        total = Cost(total.seconds + cost.seconds, total.cpu + cost.cpu)
        say(f"  {counted:,} rows, {counted / total.seconds:,.0f}/s")
        if before == (counted, hours.filter(closed=True).count()):
            raise Failed(f"counting stopped at {counted:,} of {rows:,} rows")
    if counted != rows:
        raise Failed(f"the rollups counted {counted:,} rows instead of {rows:,}")
    return total


def readings(
    version: ModelVersion, rows: int, since: dt.datetime, end: dt.datetime
) -> dict[str, Callable[[], Any]]:
    """Returns the measured readings by their names in the table; raises `Failed` if their sums differ from
    the log."""
    from predictions.rollups import hours, reading

    model, hour, day = version.registered_model, hours.HOUR, dt.timedelta(days=1)
    by_version = {number: 0 for _, number, _ in reading.traffic(model, since, end, day)}
    for _, number_of, answered in reading.traffic(model, since, end, day):
        by_version[number_of] += answered
    columns = {column.rows for column in reading.window(version, since, end).values()}
    if sum(by_version.values()) != rows or columns != {by_version[version.number]}:
        raise Failed(f"the sums differ from the log: {by_version}, {columns}")
    window = f"`window`: a version's {DAYS} days, {by_version[version.number]:,} rows"
    return {
        window: lambda: reading.window(version, since, end),
        "`by_step`: the same by day": lambda: reading.by_step(version, since, end, day),
        "`traffic`: all versions by day": lambda: reading.traffic(model, since, end, day),
        "`traffic`: all versions by hour": lambda: reading.traffic(model, since, end, hour),
        "`has_rows`: whether the model has any": lambda: reading.has_rows(model, since, end),
    }


def section(
    rows: int, kept: int, size: int, database: int, rolled: Cost, costs: dict[str, list[Cost]]
) -> str:
    facts = report.Facts.gathered(os.environ["DATABASE_URL"], 0, 0)
    rate = rows / rolled.seconds
    a_row = rolled.cpu / rows
    worst = max(cost.seconds for measured_costs in costs.values() for cost in measured_costs)
    verdict = "within" if worst < TARGET_SECONDS else "**beyond**"
    parts = [
        (
            f"Measured on {facts.date}: {facts.machine}; {facts.software}. PostgreSQL: {facts.durability}. "
            "Other processes used the machine, too: the load average of the last 15 minutes was "
            f"{os.getloadavg()[2]:.1f}, of which the benchmark causes 1."
        ),
        "",
        (
            f"- Counted: {rows:,} rows of 19 columns and two answers in {rolled.seconds:,.0f} s, "
            f"**{rate:,.0f} rows/s**; {report.micro(a_row)} µs of processor time per row, PostgreSQL's and "
            f"the worker's, so {1 / a_row:,.0f} rows/s on a dedicated core. {TARGET_RATE:,} rows/s take "
            f"{TARGET_RATE * a_row:.1%} of a core."
        ),
        (
            f"- Stored: {kept:,} rollups of {DAYS * 24} hours, {size / 2**20:,.0f} MiB; the database has "
            f"{database / 2**30:.1f} GiB."
        ),
        (f"- Slowest reading: {worst * 1e3:,.0f} ms, {verdict} the target of {TARGET_SECONDS:.0f} s."),
        "",
        f"| reading, {READINGS} times | median ms | slowest ms | CPU ms |",
        "|---|--:|--:|--:|",
    ]
    for title, readings_costs in costs.items():
        seconds = [cost.seconds * 1e3 for cost in readings_costs]
        cpu = statistics.mean(cost.cpu for cost in readings_costs) * 1e3
        parts.append(f"| {title} | {statistics.median(seconds):,.0f} | {max(seconds):,.0f} | {cpu:,.0f} |")
    return "\n".join(parts)


# -- the command ---------------------------------------------------------------------------------------


def main() -> int:
    rows = number("ROLLUP_ROWS", 10_000_000)
    if len(sys.argv) == 2:
        Path(sys.argv[1]).write_text(inside(rows), encoding="utf-8")
        return 0
    if not sys.platform.startswith("linux"):
        raise Failed("the benchmark reads /proc: it needs Linux")
    with starting() as started:
        folder = started.logs
        if shutil.disk_usage(folder).free < rows * BYTES_A_ROW:
            raise Failed(f"{rows:,} rows may need {rows * BYTES_A_ROW / 2**30:.0f} GiB below {folder}")
        environment = os.environ | {"VIGIA_VAR": str(folder / "var"), "DATABASE_URL": "", "REDIS_URL": ""}
        stack = [sys.executable, "-m", "local.stack", "--"]
        page = folder / "section.md"
        command = (
            f"{sys.executable} manage.py bootstrap --no-accounts >/dev/null && "
            f"{sys.executable} -m bench.rollups {page}"
        )
        done = subprocess.run(
            [*stack, "sh", "-c", command], cwd=ROOT, env=environment | SETTINGS, check=False
        )
        if done.returncode != 0:
            raise Failed(f"the benchmark's process ended with status {done.returncode}")
        text = page.read_text(encoding="utf-8")
        say(text)
        if os.environ.get("BENCH_WRITE") != "0":
            report.put(text, BEGIN, END)
        return 0


SETTINGS = {"DJANGO_SETTINGS_MODULE": "config.settings", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


if __name__ == "__main__":
    run(main)
