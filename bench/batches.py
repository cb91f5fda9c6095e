"""Batches: a file of rows, sent once and scored by the workers, beside requests of a thousand rows."""

from __future__ import annotations

import csv
import http.client
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psycopg

from bench import report, samples
from bench.measuring import count
from bench.processes import Failed, cpu_seconds, machine_busy_seconds, tree, wait_until_quiet
from bench.services import HOST, Vigia

BEGIN, END = "<!-- batches:begin -->", "<!-- batches:end -->"
PATH = "/api/v1/models/churn/batches/"
END_SECONDS = 1800.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Batch:
    """One batch, from the first byte of its upload to its end."""

    rows: int
    seconds: float
    upload_seconds: float
    web_cpu: float
    worker_cpu: float
    postgres_cpu: float
    other_cpu: float
    largest: int  # peak bytes of the largest process of the workers


def write_file(path: Path, rows: int) -> None:
    """Writes the sample's customers, again and again, without the target."""
    customers = samples.raw_churn()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, customers[0].keys())
        writer.writeheader()
        writer.writerows(islice(cycle(customers), rows))


def run(vigia: Vigia, file: Path, rows: int, database: psycopg.Connection) -> Batch:
    """Sends the file and waits for the end of its batch.

    Raises
    ------
    Failed : the batch did not succeed, or log or results do not have its rows, each once.
    """
    before = count(database, vigia.service.table)
    web, worker = cpu_seconds(vigia.service.pid), cpu_seconds(vigia.worker_pid)
    postgres, machine = cpu_seconds(vigia.postgres_pid), machine_busy_seconds()
    began = time.monotonic()
    with file.open("rb") as body:
        size = str(file.stat().st_size)
        status, batch = _ask(vigia, "POST", PATH, body, {"Content-Type": "text/csv", "Content-Length": size})
    if status != 202:
        raise Failed(f"the batch was answered with {status}: {batch}")
    uploaded = time.monotonic() - began
    place, largest = f"{PATH}{batch['id']}/", 0
    while batch["status"] in ("queued", "running"):
        largest = max([largest, *_peaks(vigia.worker_pid)])
        if time.monotonic() - began > END_SECONDS:
            raise Failed(f"the batch has not ended after {END_SECONDS:.0f} s: {batch}")
        time.sleep(POLL_SECONDS)
        _, batch = _ask(vigia, "GET", place)
    seconds = time.monotonic() - began
    web, worker = cpu_seconds(vigia.service.pid) - web, cpu_seconds(vigia.worker_pid) - worker
    postgres = cpu_seconds(vigia.postgres_pid) - postgres
    other = max(0.0, machine_busy_seconds() - machine - web - worker - postgres)
    logged, lines = (
        count(database, vigia.service.table) - before,
        _lines(vigia, f"{place}results/?format=csv"),
    )
    if batch["status"] != "succeeded" or logged != rows or lines != rows + 1:
        raise Failed(f"{rows} rows: {logged} logged, {lines} lines of results, {batch}")
    return Batch(rows, seconds, uploaded, web, worker, postgres, other, largest)


def measure(vigia: Vigia, folder: Path, rounds: int, rows: int) -> list[Batch]:
    """Runs a batch in every round, after a smaller one that warms the workers up."""
    file, small = folder / "batch.csv", folder / "batch-small.csv"
    write_file(file, rows)
    write_file(small, min(rows, 10_000))
    runs = []
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        run(vigia, small, min(rows, 10_000), database)
        for _ in range(rounds):
            wait_until_quiet()
            runs.append(run(vigia, file, rows, database))
    return runs


def section(
    facts: report.Facts, runs: Sequence[Batch], size: int, beside: report.Results | None
) -> Iterator[str]:
    """Yields the lines of the section; `beside` has the requests of a thousand rows of the same run."""
    yield f"Measured on {facts.date}: {facts.machine}. {facts.software}. PostgreSQL: {facts.durability}."
    yield (
        f"A CSV of {runs[0].rows:,} rows ({size / 1e6:.0f} MB), sent in one request and scored by two "
        f"workers; {len(runs)} rounds, medians, in brackets the slowest and the fastest round. The time runs "
        "from the first byte of the upload until the batch's status is `succeeded`."
    )
    yield ""
    yield "| way | stored | rows/s | server CPU µs/row | PostgreSQL CPU µs/row |"
    yield "|---|---|--:|--:|--:|"
    rates = [run.rows / run.seconds for run in runs]
    server = statistics.median((run.web_cpu + run.worker_cpu) / run.rows for run in runs)
    database = statistics.median(run.postgres_cpu / run.rows for run in runs)
    yield (
        f"| **Vigía, a batch** | every row, committed | {report.thousands(statistics.median(rates))} "
        f"({report.thousands(min(rates))} to {report.thousands(max(rates))}) | {report.micro(server)} "
        f"| {report.micro(database)} |"
    )
    if beside is not None:
        entries = {entry.service: entry for entry in beside.summaries if entry.scenario == "churn-many"}
        for service in beside.services:
            if (entry := entries.get(service.name)) is not None:
                postgres = report.micro(entry.postgres_cpu) if service.table else "–"
                yield (
                    f"| {service.title}, 1,000 rows a request | {service.stores} | "
                    f"{report.thousands(entry.rate)} ({report.thousands(entry.slowest)} to "
                    f"{report.thousands(entry.fastest)}) | {report.micro(entry.server_cpu)} | {postgres} |"
                )
    seconds = statistics.median(run.seconds for run in runs)
    upload = statistics.median(run.upload_seconds for run in runs)
    other = max(run.other_cpu / run.seconds for run in runs)
    yield ""
    yield (
        f"- Every batch: {runs[0].rows:,} rows logged and {runs[0].rows:,} rows of results, each once; "
        f"{seconds:.1f} s, of which the upload {upload:.1f} s; the start of the job's process is part of it."
    )
    yield f"- Largest process of the workers: {max(run.largest for run in runs) / 2**20:.0f} MiB at its peak."
    yield f"- Cores used by everything else: {other:.2f} in the worst round."


def _ask(
    vigia: Vigia, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(HOST, vigia.service.port, timeout=300)) as connection:
        connection.request(method, path, body, {"Authorization": vigia.service.key, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def _lines(vigia: Vigia, path: str) -> int:
    with closing(http.client.HTTPConnection(HOST, vigia.service.port, timeout=300)) as connection:
        connection.request("GET", path, headers={"Authorization": vigia.service.key})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"the results were answered with {answer.status}: {answer.read(500)!r}")
        return sum(piece.count(b"\n") for piece in iter(lambda: answer.read(2**20), b""))


def _peaks(root: int) -> Iterator[int]:
    """Yields the peak memory of each living descendant, in bytes."""
    for pid in tree(root):
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        except OSError:
            continue
        yield from (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
