"""Benchmark of Vigía and its peers in one run.

    make bench [BENCH_SECONDS=4] [BENCH_ROUNDS=3] [BENCH_PEERS=all] [BENCH_PARTS=models,batches,movies]

The command starts every service on 127.0.0.1, warms each up, and then loads them in turn, round after round
(A B C, A B C), so that drifting speed of the machine affects all of them. It writes the tables of
docs/performance.md and the chart. BENCH_PARTS selects the parts: predictions of rows, batches,
recommendations of movies. BENCH_PEERS=core leaves out the model servers that need their own environments,
BENCH_WRITE=0 prints without writing, BENCH_KEEP=1 keeps logs and data.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench import batches, movies, protocols, report
from bench.command import check_machine, number, run, say, starting
from bench.measuring import Measured, as_json, check_stored, measure, summarise
from bench.optional import optional_peers
from bench.processes import ROOT, Failed, Started, memory_bytes, wait_until_quiet
from bench.services import SCENARIOS, Bodies, Scenario, Service, Vigia, empties, peers, start_vigia

WARM_UP_SECONDS = 2.0
COMPARED_ROWS = 50
SAMPLED = 10
RESULTS = ROOT / "bench" / "results.json"
PARTS = ("models", "batches", "movies")


@dataclass(frozen=True)
class Part:
    """One part of the benchmark: its scenarios and services, and the place of its tables in the page.

    compare : returns lines about the similarity of the answers. absent : lines about missing services.
    """

    name: str
    scenarios: Sequence[Scenario]
    services: list[Service]
    compare: Callable[[list[Service]], list[str]]
    begin: str
    end: str
    absent: list[str] = field(default_factory=list)
    picture: str = ""


def models_part(started: Started, folder: Path, bodies: Bodies, vigia: Vigia) -> Part:
    """Starts Vigía's peers that predict rows with the same models."""
    services = peers(started, folder, bodies, vigia)
    after = [*empties(started, vigia), *protocols.services(vigia, bodies), vigia.service]
    for service in services + after:
        service.write_bodies(folder)
        service.await_answer(started)
    absent = ["MLServer, BentoML and MLflow were left out of this run (BENCH_PEERS=core)."]
    if os.environ.get("BENCH_PEERS") != "core":
        more, absent = optional_peers(started, folder, bodies, say)
        services += more
    picture = "![Rates and processor time, Vigía and its peers](images/performance.svg)"
    markers = (report.BEGIN, report.END)
    return Part("models", SCENARIOS, services + after, distances, *markers, absent, picture)


def movies_part(started: Started, folder: Path, catalogue: movies.Catalogue, vigia: Vigia) -> Part:
    """Starts the tutorial's recommender beside Vigía's."""
    services = movies.services(started, vigia, catalogue)
    for service in services:
        service.write_bodies(folder)
        service.await_answer(started)
    remark = f"The catalogue: {catalogue.title}. {movies.ASKED:,} different ids in turn, as many texts."
    markers = ("<!-- movies:begin -->", "<!-- movies:end -->")
    return Part("movies", movies.SCENARIOS, services, movies.compare, *markers, [remark])


def check_answers(services: Sequence[Service]) -> None:
    """Raises `Failed` unless every service answers a sample with 200."""
    for service in services:
        for scenario, target in service.targets.items():
            sample: list[Any] = target.bodies[:SAMPLED] if target.bodies else [None]
            for body in sample:
                status, answer = service.ask(scenario, body)
                if status != 200:
                    raise Failed(f"{service.title} answers {scenario} with {status}: {answer[:500]!r}")


def distances(services: Sequence[Service]) -> list[str]:
    """Returns a line with the mean distance between each peer's probabilities and Vigía's."""
    probabilities: dict[str, list[float]] = {}
    for service in services:
        if service.read is not None and (bodies := service.targets["churn-16"].bodies) is not None:
            answers = [service.ask("churn-16", body)[1] for body in bodies[:COMPARED_ROWS]]
            probabilities[service.name] = [service.read(json.loads(answer)) for answer in answers]
    own = probabilities.pop("vigia")
    far = ", ".join(
        f"{report.title_of(services, name)} "
        f"{statistics.fmean(abs(a - b) for a, b in zip(own, theirs, strict=True)):.3f}"
        for name, theirs in probabilities.items()
    )
    return [f"Mean distance of a peer's churn probability from Vigía's: {far}."]


def run_all(vigia: Vigia, part: Part, rounds: int, seconds: float) -> list[Measured]:
    runs: list[Measured] = []
    pairs = [
        (scenario, service)
        for scenario in part.scenarios
        for service in part.services
        if scenario.name in service.targets
    ]
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        for scenario, service in pairs:
            measure(0, scenario, service, WARM_UP_SECONDS, vigia.postgres_pid, database)
        say("Warmed up.")
        for turn in range(1, rounds + 1):
            for scenario, service in pairs:
                wait_until_quiet()
                run = measure(turn, scenario, service, seconds, vigia.postgres_pid, database)
                runs.append(run)
                say(report.line(run, service))
    return runs


def measure_part(vigia: Vigia, part: Part, rounds: int, seconds: int) -> report.Results:
    """Measures one part."""
    check_answers(part.services)
    remarks = part.compare(part.services)
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        exact = {
            service.name: check_stored(part.scenarios, service, database)
            for service in part.services
            if service.table
        }
    runs = run_all(vigia, part, rounds, seconds)
    memory = {service.name: memory_bytes(service.pid) for service in part.services}
    summaries = summarise(runs)
    remarks += part.absent
    return report.Results(
        part.scenarios, part.services, runs, summaries, exact, memory, remarks, part.picture
    )


def measure_and_write(vigia: Vigia, part: Part, rounds: int, seconds: int) -> report.Results:
    results = measure_part(vigia, part, rounds, seconds)
    text = report.section(report.Facts.gathered(vigia.database_url, seconds, rounds), results)
    say(text)
    if os.environ.get("BENCH_WRITE") != "0":
        report.put(text, part.begin, part.end)
        if part.picture:
            from bench.chart import CHART, draw

            draw(CHART, part.services, results.summaries)
    return results


def measure_batches(
    vigia: Vigia, folder: Path, facts: report.Facts, rounds: int, beside: report.Results | None
) -> None:
    runs = batches.measure(vigia, folder, rounds, number("BENCH_BATCH_ROWS", 500_000))
    size = (folder / "batch.csv").stat().st_size
    text = "\n".join(batches.section(facts, runs, size, beside))
    say(text)
    if os.environ.get("BENCH_WRITE") != "0":
        report.put(text, batches.BEGIN, batches.END)


def main() -> int:
    check_machine()
    rounds, seconds = number("BENCH_ROUNDS", 3), number("BENCH_SECONDS", 4)
    names = (os.environ.get("BENCH_PARTS") or ",".join(PARTS)).split(",")
    if unknown := set(names) - set(PARTS):
        raise Failed(f"BENCH_PARTS: unknown {', '.join(unknown)}; accepted: {', '.join(PARTS)}")
    runs: list[Measured] = []
    with starting() as started:
        folder = started.logs
        say("Starting Vigía (its first models are trained) ...")
        bodies = Bodies.drawn()
        catalogue = movies.Catalogue.prepared(folder)
        vigia = start_vigia(started, folder, bodies, movies=catalogue.path, jobs=2)
        models: report.Results | None = None
        for name in names:
            if name == "batches":
                facts = report.Facts.gathered(vigia.database_url, seconds, rounds)
                measure_batches(vigia, folder, facts, rounds, models)
                continue
            say(f"Starting the peers ({name}) ...")
            before = len(started.processes)
            if name == "models":
                part = models_part(started, folder, bodies, vigia)
            else:
                part = movies_part(started, folder, catalogue, vigia)
            results = measure_and_write(vigia, part, rounds, seconds)
            models = results if name == "models" else models
            runs += results.runs
            for child in reversed(started.processes[before:]):
                started.stop(child.pid)
        RESULTS.write_text(as_json(runs), encoding="utf-8")
        lost = [each for each in runs if not each.all_found]
        for each in lost:
            say(f"ROWS ARE MISSING: {each}")
        return 1 if lost else 0


if __name__ == "__main__":
    run(main)
