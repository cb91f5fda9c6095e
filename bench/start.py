"""How soon a web process answers, and how large it is: `make bench-start`.

A throw-away Vigía trains its models; beside it gunicorn is started again and again with one process, and
asked until it answers: first with every model active, then with those alone that ONNX Runtime serves.

START_RUNS (5) says how often. BENCH_WRITE=0 only prints, BENCH_KEEP=1 keeps logs and data.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import report
from bench.command import check_machine, number, run, say, starting
from bench.processes import Failed, Started, cpu_seconds, free_port, machine_busy_seconds
from bench.services import HOST, VIGIA, Bodies, Vigia, start_vigia, tail

BEGIN, END = "<!-- start:begin -->", "<!-- start:end -->"
ASKED = 1_000
START_SECONDS = 60.0
LIBRARIES = ("pandas", "sklearn", "scipy", "pyarrow", "onnxruntime")
FEW = ("churn", "houses")


@dataclass(frozen=True)
class Found:
    """One start."""

    active: str
    seconds: float  # from exec to the first 200
    cpu: float  # processor time until then
    resident: int  # bytes, of the process that answers, after the first answer
    resident_later: int  # the same, after a thousand
    mapped: tuple[str, ...]  # after a thousand
    other: float  # cores that everybody else used


def measure(started: Started, vigia: Vigia, bodies: Bodies, active: str, turn: int) -> Found:
    port = free_port()
    environment = vigia.environment | {"PORT": str(port), "WEB_CONCURRENCY": "1"}
    command = [VIGIA.parent / "gunicorn", "--config", "config/gunicorn.py", "web.asgi"]
    name = f"start-{active.replace(' ', '-')}-{turn}"
    machine, began = machine_busy_seconds(), time.monotonic()
    master = started.start(name, command, environment)
    paths = [vigia.service.targets[scenario].path for scenario in ("churn-16", "houses-16")]
    while ask(port, vigia.service.key, paths[0], [bodies.one[0]]) != 1:
        if started.ended(master) or time.monotonic() - began > START_SECONDS:
            raise Failed(f"gunicorn does not answer with 200:\n{tail(started.logs / f'{name}.log')}")
        time.sleep(0.005)
    seconds, cpu = time.monotonic() - began, cpu_seconds(master)
    other = (machine_busy_seconds() - machine - cpu) / seconds
    [worker] = children(master)
    resident = resident_bytes(worker)
    for path, rows in zip(paths, (bodies.one, bodies.house), strict=True):
        wanted = ASKED // len(paths)
        asked = [rows[place % len(rows)] for place in range(wanted)]
        answered = ask(port, vigia.service.key, path, asked)
        if answered != wanted:
            raise Failed(f"{path} answered {answered} of {wanted} requests with 200")
    found = Found(active, seconds, cpu, resident, resident_bytes(worker), tuple(mapped(worker)), other)
    started.stop(master)
    return found


def ask(port: int, key: str, path: str, rows: Sequence[object]) -> int:
    """Asks for one row after the other on one connection; how many were answered with 200 in a row."""
    connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
    answered = 0
    try:
        for row in rows:
            headers = {"Content-Type": "application/json", "Authorization": key}
            connection.request("POST", path, json.dumps(row).encode(), headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                break
            answered += 1
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    return answered


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def mapped(pid: int) -> Iterator[str]:
    """Which of the large libraries the process has loaded."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return (name for name in LIBRARIES if f"/site-packages/{name}/" in maps)


def retire_others(vigia: Vigia) -> None:
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        database.execute(
            "UPDATE training_modelversion AS version SET status = 'retired' "
            "FROM training_registeredmodel AS model "
            "WHERE model.id = version.registered_model_id AND status = 'active' AND NOT model.name = ANY(%s)",
            [list(FEW)],
        )


def active_models(vigia: Vigia) -> list[tuple[str, str]]:
    """Names and engines of what is active."""
    with psycopg.connect(vigia.database_url, autocommit=True) as database:
        return database.execute(
            "SELECT model.name, version.engine FROM training_modelversion AS version "
            "JOIN training_registeredmodel AS model ON model.id = version.registered_model_id "
            "WHERE status = 'active' ORDER BY 1"
        ).fetchall()


def section(facts: report.Facts, served: dict[str, str], found: Sequence[Found]) -> str:
    parts = [
        f"Measured on {facts.date}: {facts.machine}; {facts.software}.",
        (
            f"gunicorn with one web process, {facts.rounds} starts each; medians, in brackets the extremes. "
            "The time is from exec to the first prediction answered with 200. Sizes are resident sets of the "
            f"process that answers. Mapped are those of {', '.join(LIBRARIES)} that it has loaded after "
            f"{ASKED:,} predictions of churn and houses."
        ),
        "",
        f"| active | first answer, s | CPU until then, s | MiB after it | MiB after {ASKED:,} | mapped |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for active, models in served.items():
        held = [each for each in found if each.active == active]
        mapped = {name for each in held for name in each.mapped}
        cells = [
            models,
            _spread([each.seconds for each in held], ".2f"),
            _spread([each.cpu for each in held], ".2f"),
            _spread([each.resident / 2**20 for each in held], ".0f"),
            _spread([each.resident_later / 2**20 for each in held], ".0f"),
            ", ".join(name for name in LIBRARIES if name in mapped) or "none",
        ]
        parts.append(f"| {' | '.join(cells)} |")
    busy = [each.other for each in found]
    worst = f"{statistics.median(busy):.2f} in the median start, {max(busy):.2f} at worst"
    parts += ["", f"- Cores used by everything else until the first answer: {worst}."]
    return "\n".join(parts)


def _spread(values: Sequence[float], how: str) -> str:
    return f"{statistics.median(values):{how}} ({min(values):{how}} to {max(values):{how}})"


def main() -> int:
    check_machine()
    runs = number("START_RUNS", 5)
    found, served = [], {}
    with starting() as started:
        say("Starting Vigía (its first models are trained) ...")
        bodies = Bodies.drawn()
        vigia = start_vigia(started, started.logs, bodies)
        for active in ("all", "few"):
            if active == "few":
                retire_others(vigia)
            models = active_models(vigia)
            served[active] = ", ".join(f"{name} ({engine})" for name, engine in models)
            for turn in range(1, runs + 1):
                one = measure(started, vigia, bodies, active, turn)
                found.append(one)
                say(
                    f"{turn} {active}: first answer after {one.seconds:.2f} s (CPU {one.cpu:.2f}), "
                    f"{one.resident / 2**20:.0f} MiB, later {one.resident_later / 2**20:.0f} MiB; "
                    f"{', '.join(one.mapped)} (others {one.other:.0%})"
                )
        text = section(report.Facts.gathered(vigia.database_url, 0, runs), served, found)
        say(text)
        if os.environ.get("BENCH_WRITE") != "0":
            report.put(text, BEGIN, END)
        return 0


if __name__ == "__main__":
    run(main)
