"""A large batch whose processes are killed on the way: `make bench-batch`.

The command writes a CSV of invented customers of churn with a key each, requests a batch of it, and starts a
real worker with two places on a temporary database. At a third and at two thirds of the rows it kills -9 the
process that scores, once that of the batch and once a share. At the end it compares log and results with the
file: every row once. It prints the rate, the processor time of a row, and the most memory of each process.

BATCH_ROWS (10000000) sets the number of rows; BENCH_KEEP=1 keeps the data.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.command import number, run, say, starting
from bench.processes import ROOT, Failed, Started, cpu_seconds, tree

BYTES_A_ROW = 1_500
"""Of file, log with indexes, write-ahead log and results, at most."""
PLACES = 2
POLL_SECONDS = 0.5
SETTINGS = {"DJANGO_SETTINGS_MODULE": "config.settings", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def customers(rows: int) -> Iterator[list[str]]:
    """Yields the header and rows of churn: those of the sample with keys and amounts of their own."""
    with (ROOT / "training" / "samples" / "churn.csv").open(encoding="utf-8", newline="") as file:
        header, *sample = csv.reader(file)
    key, tenure, monthly, total = map(
        header.index, ("customerID", "tenure", "MonthlyCharges", "TotalCharges")
    )
    draw = random.Random(7)  # noqa: S311
    yield header
    for at in range(rows):
        row = list(draw.choice(sample))
        amount = draw.randrange(1_825, 11_875) / 100
        row[key], row[monthly] = f"{at:010d}", f"{amount:.2f}"
        row[total] = f"{amount * int(row[tenure]) * draw.uniform(0.9, 1.1):.2f}"
        yield row


class Worker:
    """A Celery worker with its jobs' processes; keeps the peak of the memory of each by its kind and pid."""

    def __init__(self, started: Started) -> None:
        command = [sys.executable, "-m", "celery", "-A", "config", "worker", "--concurrency", str(PLACES)]
        self.pid = started.start("worker", [*command, "--without-gossip", "--without-mingle"], SETTINGS)
        self.peaks: dict[tuple[str, int], int] = {}

    def jobs(self) -> dict[str, int]:
        """Returns the pid of the process of each kind of job that runs; notes the memory of all."""
        found = {}
        for pid in tree(self.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            kind = words[words.index("run_job") + 1] if "run_job" in words else "worker"
            peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
            self.peaks[kind, pid] = max(peak, self.peaks.get((kind, pid), 0))
            found[kind] = pid
        return found


def inside(rows: int, folder: Path) -> dict[str, Any]:
    """Runs the batch on the database of the environment and returns the figures."""
    import django

    django.setup()
    from django.core.files.base import File
    from django.core.files.storage import default_storage
    from django.db import connection

    from predictions.batches import requests, results, uploads
    from predictions.models import Batch
    from training import queueing
    from training.models import ModelVersion

    version = ModelVersion.objects.select_related("registered_model").get(
        registered_model__name="churn", status="active"
    )
    place = uploads.new_folder()
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(customers(rows))
    size = path.stat().st_size
    with path.open("rb") as stream:
        name = default_storage.save(f"{place}/source", File(stream))
    path.unlink()
    source = requests.Source(folder=place, format="csv", source_name=name, source_size=size)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        postmaster = parent(cursor.fetchone()[0])
    killed: list[dict[str, Any]] = []
    turns = ["predictions.batch", "predictions.batchshare"]
    with starting() as started:
        worker = Worker(started)
        time.sleep(10)
        batch = requests.request(version, source, by=None)
        queueing.enqueue(batch)
        began, cpu = time.monotonic(), cpu_seconds(worker.pid) + cpu_seconds(postmaster)
        while not batch.is_finished:
            time.sleep(POLL_SECONDS)
            jobs = worker.jobs()
            batch.refresh_from_db()
            due = len(killed) < len(turns) and batch.scored > rows * (len(killed) + 1) // 3
            if due and turns[len(killed)] in jobs:
                kind = turns[len(killed)]
                os.kill(jobs[kind], signal.SIGKILL)
                killed.append({"kind": kind, "scored": batch.scored})
                say(f"killed the process of {kind} after {batch.scored:,} rows")
        seconds = time.monotonic() - began
        cpu = cpu_seconds(worker.pid) + cpu_seconds(postmaster) - cpu
    if batch.status != Batch.Status.SUCCEEDED or len(killed) < len(turns):
        raise Failed(f"{batch.status}: {batch.error}; killed: {killed}")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), count(DISTINCT id), count(DISTINCT key) FROM predictions_prediction "
            "WHERE batch_id = %s",
            [batch.pk],
        )
        logged = cursor.fetchone()
    answered = count_lines(results.results(batch).pieces)
    if logged != (rows, rows, rows) or answered != rows or batch.scored != rows:
        raise Failed(
            f"{rows:,} rows: {logged} logged, ids, keys; {answered:,} answered; {batch.scored:,} counted"
        )
    return {
        "rows": rows,
        "bytes": size,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "cpu_microseconds_per_row": round(cpu / rows * 1e6, 1),
        "load_average": os.getloadavg()[1],
        "killed": killed,
        "peak_mib": {f"{kind} {pid}": peak // 1024 for (kind, pid), peak in worker.peaks.items()},
        "logged_ids_keys": logged,
        "answered": answered,
        "result_bytes": batch.result_bytes,
    }


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def count_lines(pieces: Iterator[bytes]) -> int:
    """Returns the rows of the results, and checks their numbers."""
    expected = 0
    lines = _lines(pieces)
    next(lines)
    for line in lines:
        if int(line.partition(b",")[0]) != expected:
            raise Failed(f"the results have row {line[:40]!r} where {expected:,} belongs")
        expected += 1
    return expected


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\r\n")
        yield from lines
    yield from islice([rest], int(bool(rest)))


def main() -> int:
    rows = number("BATCH_ROWS", 10_000_000)
    if len(sys.argv) == 2:
        target = Path(sys.argv[1])
        target.write_text(json.dumps(inside(rows, target.parent), indent=1), encoding="utf-8")
        return 0
    if not sys.platform.startswith("linux"):
        raise Failed("the benchmark reads /proc: it needs Linux")
    with starting() as started:
        folder = started.logs
        if shutil.disk_usage(folder).free < rows * BYTES_A_ROW:
            raise Failed(f"{rows:,} rows may need {rows * BYTES_A_ROW / 2**30:.0f} GiB below {folder}")
        environment = os.environ | {"VIGIA_VAR": str(folder / "var"), "DATABASE_URL": "", "REDIS_URL": ""}
        figures = folder / "figures.json"
        command = (
            f"{sys.executable} manage.py bootstrap --no-accounts >/dev/null && "
            f"{sys.executable} -m bench.batch_kills {figures}"
        )
        stack = [sys.executable, "-m", "local.stack", "--", "sh", "-c", command]
        if subprocess.run(stack, cwd=ROOT, env=environment | SETTINGS, check=False).returncode != 0:
            raise Failed("the benchmark's process failed; BENCH_KEEP=1 keeps its logs")
        say(figures.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    run(main)
