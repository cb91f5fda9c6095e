"""Measurement of one run, and the summary of several runs."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import psycopg

from bench.processes import ROOT, TICK, Failed, cpu_seconds, cpu_without, machine_busy_seconds
from bench.services import HOST, Scenario, Service

# wrk cuts its connections at the end; the service may have stored rows of requests under way.
SETTLE_SECONDS = 10.0
EXACT_CLIENTS = 16
AUTOVACUUM = "autovacuum worker"  # in the title of PostgreSQL's process


@dataclass(frozen=True)
class Measured:
    """One run of the load generator against one service."""

    round: int
    scenario: str
    service: str
    rows: int  # in each request
    seconds: float
    requests: int  # answered with 200
    refused: int  # answered with 4xx or 5xx
    broken: int  # connections refused, broken or too slow
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    generator_cpu: float
    other_cpu: float  # all other processes of the machine during the run
    stored: int | None  # rows that the log gained during the run
    cut_off: int  # rows that may be stored although wrk did not receive the answer

    @property
    def rate(self) -> float:
        """Rows per second; for requests of one row, requests per second."""
        return self.requests * self.rows / self.seconds

    @property
    def server_cpu_a_row(self) -> float:
        return self.server_cpu / max(1, self.requests * self.rows)

    @property
    def postgres_cpu_a_row(self) -> float:
        return self.postgres_cpu / max(1, self.requests * self.rows)

    @property
    def cpu_a_row(self) -> float:
        return self.server_cpu_a_row + self.postgres_cpu_a_row

    @property
    def all_found(self) -> bool:
        """Whether the log grew by the answered rows, and beyond them by no more than wrk cut off."""
        if self.stored is None:
            return True
        answered = self.requests * self.rows
        return answered <= self.stored <= answered + self.cut_off and self.stored % self.rows == 0


@dataclass(frozen=True)
class Load:
    """wrk's result of one run, and the processor time of the run."""

    seconds: float
    requests: int  # answered with 200
    refused: int
    broken: int
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    autovacuum_cpu: float  # part of `postgres_cpu`
    generator_cpu: float
    other_cpu: float


def load(scenario: Scenario, service: Service, seconds: float, postgres_pid: int, accept: str = "-") -> Load:
    """Sends requests for `seconds`, as fast as the connections allow; `accept` "-" sends no such header."""
    target = service.targets[scenario.name]
    command = ["wrk", "--threads", "1", "--connections", str(scenario.connections)]
    command += ["--duration", f"{seconds:.0f}s", "--timeout", "30s", "--script", "bench/wrk.lua"]
    command += [f"http://{HOST}:{service.port}{target.path}", "--", target.method]
    command += [str(service.files.get(scenario.name, "-")), service.key or "-", accept]

    server, postgres = cpu_seconds(service.pid), cpu_seconds(postgres_pid)
    serving = cpu_without(postgres_pid, AUTOVACUUM)
    machine, generator = machine_busy_seconds(), _children()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    server, postgres = cpu_seconds(service.pid) - server, cpu_seconds(postgres_pid) - postgres
    generator = _children() - generator
    other = machine_busy_seconds() - machine - server - postgres - generator
    now = cpu_without(postgres_pid, AUTOVACUUM)
    autovacuum = postgres - sum(spent - serving.get(pid, 0.0) for pid, spent in now.items())

    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode != 0 or line is None:
        raise Failed(f"wrk against {service.title} failed:\n{done.stdout}{done.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    result["requests"] -= result["refused"]
    return Load(
        **result,
        server_cpu=server,
        postgres_cpu=postgres,
        autovacuum_cpu=max(0.0, autovacuum),
        generator_cpu=generator,
        other_cpu=max(0.0, other),
    )


def measure(
    number: int,
    scenario: Scenario,
    service: Service,
    seconds: float,
    postgres_pid: int,
    database: psycopg.Connection,
) -> Measured:
    before_rows = count(database, service.table) if service.table else None
    result = load(scenario, service, seconds, postgres_pid)
    other, postgres = result.other_cpu, result.postgres_cpu
    stored = None
    if before_rows is not None:
        stored = settled(lambda: count(database, service.table)) - before_rows
    else:
        # PostgreSQL then works on other services' rows, so its time counts as other work.
        other, postgres = other + postgres, 0.0
    return Measured(
        round=number,
        scenario=scenario.name,
        service=service.name,
        rows=scenario.rows,
        seconds=result.seconds,
        requests=result.requests,
        refused=result.refused,
        broken=result.broken,
        p50=result.p50,
        p99=result.p99,
        server_cpu=result.server_cpu,
        postgres_cpu=postgres,
        generator_cpu=result.generator_cpu,
        other_cpu=other,
        stored=stored,
        cut_off=scenario.connections * scenario.rows,
    )


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def count(database: psycopg.Connection, table: str) -> int:
    row = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


def check_stored(scenarios: Sequence[Scenario], service: Service, database: psycopg.Connection) -> int:
    """Sends requests over complete connections, and checks that the table gains exactly the rows that were
    answered with 200.

    wrk's runs leave the rows of requests under way at the end uncertain; this check has none.
    """
    different = {id(service.targets[each.name]): each for each in scenarios if each.name in service.targets}
    requests = [
        (scenario.name, body, scenario.rows)
        for scenario in different.values()
        for body in service.targets[scenario.name].bodies or []
    ]
    before = count(database, service.table)
    with ThreadPoolExecutor(EXACT_CLIENTS) as clients:
        answers = list(clients.map(lambda one: service.ask(one[0], one[1])[0], requests))
    answered = sum(rows for (_, _, rows), status in zip(requests, answers, strict=True) if status == 200)
    stored = count(database, service.table) - before
    if stored != answered or not answered:
        raise Failed(f"{service.title} answered {answered} rows with 200 and stored {stored}")
    return stored


def settled(read: Callable[[], int]) -> int:
    """Returns the value once it stops changing, or after `SETTLE_SECONDS`."""
    until = time.monotonic() + SETTLE_SECONDS
    before = read()
    while time.monotonic() < until:
        time.sleep(0.3)
        now = read()
        if now == before:
            break
        before = now
    return before


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds of one service in one scenario."""

    service: str
    scenario: str
    rate: float
    slowest: float
    fastest: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    rate_ratio: float  # Vigía's rate divided by this service's, per round
    cpu_ratio: float  # Vigía's processor time per row divided by this service's, per round
    other: float  # cores that all other processes used
    refused: int
    broken: int

    @property
    def cpu(self) -> float:
        return self.server_cpu + self.postgres_cpu


def summarise(runs: Iterable[Measured], against: str = "vigia") -> list[Summary]:
    """Summarises runs by scenario and service. Ratios compare runs of the same round, which are close in
    time; the medians follow."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for run in runs:
        groups.setdefault((run.scenario, run.service), []).append(run)
    summaries = []
    for (scenario, service), group in groups.items():
        own = {run.round: run for run in groups.get((scenario, against), [])}
        pairs = [(own[run.round], run) for run in group if run.round in own and run.requests]
        rates = [run.rate for run in group]
        summaries.append(
            Summary(
                service=service,
                scenario=scenario,
                rate=statistics.median(rates),
                slowest=min(rates),
                fastest=max(rates),
                p50=statistics.median(run.p50 for run in group),
                p99=statistics.median(run.p99 for run in group),
                server_cpu=statistics.median(run.server_cpu_a_row for run in group),
                postgres_cpu=statistics.median(run.postgres_cpu_a_row for run in group),
                rate_ratio=_median_or_nan([ours.rate / theirs.rate for ours, theirs in pairs]),
                cpu_ratio=_median_or_nan(
                    [ours.cpu_a_row / max(theirs.cpu_a_row, 1 / TICK / 1e6) for ours, theirs in pairs]
                ),
                other=statistics.median(run.other_cpu / run.seconds for run in group),
                refused=sum(run.refused for run in group),
                broken=sum(run.broken for run in group),
            )
        )
    return summaries


def _median_or_nan(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def as_json(runs: Iterable[Measured]) -> str:
    return json.dumps([asdict(run) for run in runs], indent=1)
