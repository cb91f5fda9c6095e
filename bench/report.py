"""The benchmark's sections of docs/performance.md."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psycopg

from bench.measuring import Measured, Summary
from bench.processes import ROOT, Failed
from bench.services import VIGIA, Scenario, Service

PAGE = ROOT / "docs" / "performance.md"
QUIET = 0.25  # cores; with more of other work, rates are unreliable
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
OURS = ("django", "gunicorn", "scikit-learn", "onnxruntime", "psycopg")
THEIRS = ("fastapi", "pydantic", "uvicorn", "flask", "gunicorn", "pandas", "scikit-learn", "psycopg")


@dataclass(frozen=True)
class Facts:
    """The machine, the software and the settings of a measurement."""

    date: str
    machine: str
    software: str
    peers: str
    durability: str
    seconds: int
    rounds: int

    @classmethod
    def gathered(cls, database_url: str, seconds: int, rounds: int) -> Facts:
        with psycopg.connect(database_url) as database:
            names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
            shown = {name: database.execute(f"SHOW {name}").fetchone() for name in names}
        settings = {name: value[0] if value else "?" for name, value in shown.items()}
        durability = ", ".join(f"{name}={settings[name]}" for name in names[1:])
        wrk = []
        if shutil.which("wrk") is not None:
            wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
        software = (
            f"Vigía {_ours('vigia')}{_commit()} ({', '.join(filter(None, map(_named, OURS)))}); "
            f"Python {platform.python_version()}, PostgreSQL {settings['server_version']}, "
            f"wrk {wrk[1].rpartition('/')[2] if len(wrk) > 1 else '?'}"
        )
        return cls(
            date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
            machine=f"{os.cpu_count()} cores, {_processor()}, {_memory()}, Linux {platform.release()}",
            software=software,
            peers=", ".join(f"{name} {_installed(name)}" for name in THEIRS),
            durability=durability,
            seconds=seconds,
            rounds=rounds,
        )


def _commit() -> str:
    """Returns the measured commit and whether the tree differs from it; "" outside a repository."""
    git = ["git", "describe", "--always", "--exclude=*", "--dirty= with changes"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _named(distribution: str) -> str:
    version = _ours(distribution)
    return f"{distribution} {version}" if version else ""


def _ours(distribution: str) -> str:
    """Returns a distribution's version in Vigía's environment; "" if it is not installed."""
    code = (
        "import sys, importlib.metadata as m\n"
        "from core.version import VERSION\n"
        "print(VERSION if sys.argv[1] == 'vigia' else m.version(sys.argv[1]))"
    )
    done = subprocess.run(
        [VIGIA, "-c", code, distribution], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _installed(distribution: str) -> str:
    """Returns a distribution's version in this environment, which may differ from the peers'."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{kilobytes / 2**20:.0f} GiB"


def line(run: Measured, service: Service) -> str:
    """Returns the progress line of one run."""
    stored = "" if run.stored is None else f", {run.stored:,} rows stored" + ("" if run.all_found else " (!)")
    bad = f", {run.refused} refused, {run.broken} broken" if run.refused or run.broken else ""
    return (
        f"{run.round} {run.scenario:<11} {service.name:<15} {run.rate:10,.0f} rows/s  "
        f"p50 {run.p50 * 1e3:7.2f} ms  p99 {run.p99 * 1e3:8.2f} ms  "
        f"cpu/row {run.server_cpu_a_row * 1e6:8.1f} + {run.postgres_cpu_a_row * 1e6:6.1f} µs"
        f"  (others {run.other_cpu / run.seconds:4.0%}){stored}{bad}"
    )


@dataclass(frozen=True)
class Results:
    """The results of some services, for one section of the page.

    exact : rows stored for clients that waited for every answer, by service.
    memory : bytes by service. remarks : further lines at the end.
    """

    scenarios: Sequence[Scenario]
    services: Sequence[Service]
    runs: Sequence[Measured]
    summaries: Sequence[Summary]
    exact: Mapping[str, int]
    memory: Mapping[str, int]
    remarks: Sequence[str]
    picture: str = ""


def section(facts: Facts, results: Results) -> str:
    others = "".join(f", {service.versions}" for service in results.services if service.versions)
    parts = [
        f"Measured on {facts.date}: {facts.machine}; load generator and services on the same machine.",
        f"{facts.software}; peers: {facts.peers}{others}.",
        f"Each service has two worker processes. PostgreSQL: {facts.durability}.",
        (
            f"{facts.rounds} rounds of {facts.seconds} s for each line, in turn; medians over the rounds, "
            "in brackets the slowest and the fastest round."
        ),
    ]
    if results.picture:
        parts += ["", results.picture]
    worst = max(run.other_cpu / run.seconds for run in results.runs)
    if worst > QUIET:
        warning = (
            f"**The machine was not idle**: other work used up to {worst:.2f} cores in some runs and less "
            "in others. Rates, latencies and their ratios are unreliable; processor times are less affected, "
            "but not unaffected."
        )
        parts += ["", warning]
    parts += ["", *(f"- {service.title}: {service.note}" for service in results.services)]
    for scenario in results.scenarios:
        parts += ["", f"**{scenario.title[0].upper()}{scenario.title[1:]}**", ""]
        parts += list(_table(scenario, results.services, results.summaries))
    parts += ["", *_remarks(results)]
    return "\n".join(parts)


def _table(scenario: Scenario, services: Sequence[Service], summaries: Sequence[Summary]) -> Iterable[str]:
    unit = "rows/s" if scenario.rows > 1 else "requests/s"
    each = "row" if scenario.rows > 1 else "request"
    yield (
        f"| service | stored | {unit} | Vigía's rate ÷ its | p50 ms | p99 ms "
        f"| server CPU µs/{each} | PostgreSQL CPU µs/{each} | Vigía's CPU ÷ its | others' cores |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    by_service = {entry.service: entry for entry in summaries if entry.scenario == scenario.name}
    for service in services:
        if service.name not in by_service:
            continue
        entry = by_service[service.name]
        own = service.name == "vigia"
        failed = entry.refused + entry.broken
        yield (
            f"| {service.title}{f' ({failed} failed)' if failed else ''} | {service.stores} "
            f"| {thousands(entry.rate)} ({thousands(entry.slowest)} to {thousands(entry.fastest)}) "
            f"| {'' if own else ratio(entry.rate_ratio)} | {entry.p50 * 1e3:.1f} | {entry.p99 * 1e3:.1f} "
            f"| {micro(entry.server_cpu)} | {micro(entry.postgres_cpu) if service.table else '–'} "
            f"| {'' if own else ratio(entry.cpu_ratio)} | {entry.other:.2f} |"
        )


def _remarks(results: Results) -> Iterable[str]:
    runs, services = results.runs, results.services
    for service in services:
        held = [run for run in runs if run.service == service.name and run.stored is not None]
        if held:
            answered = sum(run.requests * run.rows for run in held)
            stored = sum(run.stored or 0 for run in held)
            cut = sum(run.cut_off for run in held)
            verdict = "within the bounds" if all(run.all_found for run in held) else "**OUT OF BOUNDS**"
            sure = f"{results.exact[service.name]:,}"
            yield (
                f"- {service.title}, exactly: {sure} rows answered with 200 to clients that wait for every "
                f"answer, {sure} more in the database. In wrk's runs: {answered:,} answered, {stored:,} "
                f"found, {verdict}: wrk cuts its connections at the end, and what was under way then "
                f"(at most {cut:,} rows) may be stored or not; they alone would not show a smaller loss."
            )
    failed = sum(run.refused + run.broken for run in runs)
    yield f"- Requests that failed in any run, of {sum(run.requests for run in runs):,}: {failed}."
    sizes = ", ".join(
        f"{title_of(services, name)} {size / 2**20:.0f} MiB" for name, size in results.memory.items()
    )
    yield f"- Memory of the server processes after the run (proportional set size): {sizes}."
    busy = sorted(run.other_cpu / run.seconds for run in runs)
    median, worst = busy[len(busy) // 2], busy[-1]
    yield f"- Cores used by everything else: {median:.2f} in the median run, {worst:.2f} in the worst."
    yield from (f"- {line}" for line in results.remarks)


def title_of(services: Sequence[Service], name: str) -> str:
    return next(service.title for service in services if service.name == name).strip("*")


def thousands(value: float) -> str:
    return f"{value:,.0f}"


def micro(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def put(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Writes a section between the page's markers."""
    page = PAGE.read_text(encoding="utf-8")
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise Failed(f"{PAGE} has no {begin} with {end} after it")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
