"""Vigía and its peers side by side, in one run.

    make bench [BENCH_SECONDS=4] [BENCH_ROUNDS=3] [BENCH_PEERS=all]

starts every service on 127.0.0.1, warms each up, and then asks them in turn, round after round (A B C,
A B C), so that a machine whose speed drifts drifts for all of them. Writes the tables of docs/performance.md
and the chart. BENCH_PEERS=core leaves out the model servers that need environments of their own,
BENCH_WRITE=0 only prints, BENCH_KEEP=1 keeps logs and data.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

import psycopg

from bench import report
from bench.command import check_machine, number, run, say, starting
from bench.measuring import Measured, as_json, check_stored, measure, summarise
from bench.optional import optional_peers
from bench.processes import ROOT, Failed, memory_bytes, wait_until_quiet
from bench.services import SCENARIOS, Bodies, Service, Vigia, empties, peers, start_vigia

WARM_UP_SECONDS = 2.0
COMPARED_ROWS = 50
SAMPLED = 10
RESULTS = ROOT / "bench" / "results.json"


def check_answers(services: list[Service], bodies: Bodies) -> dict[str, float]:
    """Every service answers a sample with 200, and says about the same as Vigía.

    Returns the mean distance between its probabilities and Vigía's.
    """
    said: dict[str, list[float]] = {}
    for service in services:
        for scenario, target in service.targets.items():
            sample: list[Any] = target.bodies[:SAMPLED] if target.bodies else [None]
            for body in sample:
                status, answer = service.ask(scenario, body)
                if status != 200:
                    raise Failed(f"{service.title} answers {scenario} with {status}: {answer[:500]!r}")
        if service.read is not None and service.targets["churn-16"].bodies is not None:
            asked = service.targets["churn-16"].bodies[:COMPARED_ROWS]
            found = [service.read(json.loads(service.ask("churn-16", body)[1])) for body in asked]
            said[service.name] = found
    own = said["vigia"]
    return {
        name: statistics.fmean(abs(a - b) for a, b in zip(own, found, strict=True))
        for name, found in said.items()
    }


def run_all(vigia: Vigia, services: list[Service], rounds: int, seconds: float) -> list[Measured]:
    runs: list[Measured] = []
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        for scenario in SCENARIOS:
            for service in services:
                if scenario.name in service.targets:
                    measure(0, scenario, service, WARM_UP_SECONDS, vigia.postgres_pid, database)
        say("Warmed up.")
        for turn in range(1, rounds + 1):
            for scenario in SCENARIOS:
                for service in services:
                    if scenario.name not in service.targets:
                        continue
                    wait_until_quiet()
                    found = measure(turn, scenario, service, seconds, vigia.postgres_pid, database)
                    runs.append(found)
                    say(report.line(found, service))
    return runs


def main() -> int:
    check_machine()
    rounds, seconds = number("BENCH_ROUNDS", 3), number("BENCH_SECONDS", 4)
    with starting() as started:
        folder = started.logs
        say("Starting Vigía (its first models are trained) ...")
        bodies = Bodies.drawn()
        vigia = start_vigia(started, folder, bodies)
        say("Starting its peers ...")
        services = peers(started, folder, bodies, vigia)
        after = [*empties(started, vigia), vigia.service]
        for service in services + after:
            service.write_bodies(folder)
            service.await_answer(started)
        absent = ["MLServer, BentoML and MLflow were left out of this run (BENCH_PEERS=core)."]
        if os.environ.get("BENCH_PEERS") != "core":
            more, absent = optional_peers(started, folder, bodies, say)
            services += more
        services += after
        distances = check_answers(services, bodies)
        with psycopg.connect(vigia.database_url, autocommit=True) as database:
            exact = {service.name: check_stored(service, database) for service in services if service.table}
        runs = run_all(vigia, services, rounds, seconds)
        RESULTS.write_text(as_json(runs), encoding="utf-8")
        facts = report.Facts.gathered(vigia.database_url, seconds, rounds)
        memory = {service.name: memory_bytes(service.pid) for service in services}
        text = report.section(facts, services, summarise(runs), runs, distances, exact, memory, absent)
        say(text)
        if os.environ.get("BENCH_WRITE") != "0":
            report.write(text, services, summarise(runs))
        lost = [each for each in runs if not each.all_found]
        for each in lost:
            say(f"NOT ALL FOUND: {each}")
        return 1 if lost else 0


if __name__ == "__main__":
    run(main)
