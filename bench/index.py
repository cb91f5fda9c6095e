"""Benchmark of an index of very many movies: the cost of its build and of its answers: `make bench-movies`.

The command writes a catalogue of invented movies once (see `bench.invented`). It builds an index of the first
eighth, quarter and half and of the whole, each in a process of its own, with the settings of `movies`;
another process queries it. MOVIES (1000000) sets the number of movies; BENCH_WRITE=0 prints without writing.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import report
from bench.command import number, run, say
from bench.memory import memory
from bench.processes import ROOT

BEGIN, END = "<!-- index:begin -->", "<!-- index:end -->"
PARTS = (8, 4, 2, 1)
CALLS = 300
WORDS = 12


def write(path: Path, count: int) -> None:
    from bench.invented import movies
    from recommender.index import catalogue_snapshot

    catalogue_snapshot.write(path, movies(count))


def build(path: Path, count: int, to: Path) -> dict[str, Any]:
    """Builds an index of the first `count` movies; returns seconds, processor seconds and peak memory in
    MiB."""
    from recommender.declaration import SETTINGS
    from recommender.index import build as building
    from recommender.index import catalogue_snapshot

    most = 0.0

    def report_progress(stage: str, percent: int) -> None:
        nonlocal most
        most = max(most, memory()[1])

    began, cpu = time.monotonic(), time.process_time()
    catalogue = catalogue_snapshot.Catalogue(catalogue_snapshot.read(path).table.slice(0, count))
    built = building.build(catalogue, SETTINGS, report_progress)
    taken = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    to.write_bytes(built.index)
    return {**taken, "most": max(most, memory()[1]), "evaluation": built.evaluation}


def ask(path: Path, texts: list[str]) -> dict[str, Any]:
    """Loads the index as a web process does, and measures queries."""
    from random import Random

    from recommender.index.engine import IndexEngine
    from recommender.index.query import Filters, Question, Seed

    before, _ = memory()
    began = time.monotonic()
    engine = IndexEngine.from_bytes(path.read_bytes())
    loaded = time.monotonic() - began
    rng = Random(3)  # noqa: S311 - no secret
    ids = rng.sample(range(1, len(engine) + 1), CALLS * 5)
    by_id = [(Seed(movie_id=each),) for each in ids]
    western = Filters(genres=("Western",), year_from=2000)

    def timed(questions: Iterable[Question]) -> list[float]:
        taken = []
        for question in questions:
            began = time.perf_counter()
            answer = engine.recommend(question)
            taken.append((time.perf_counter() - began) * 1_000)
            assert answer.items or answer.reason
        return taken

    kinds: dict[str, Callable[[], Iterable[Question]]] = {
        "by id, five with reasons": lambda: (Question(seeds) for seeds in by_id),
        "by id, a hundred": lambda: (Question(seeds, 100) for seeds in by_id[:CALLS]),
        "by id, with a filter that four in a thousand movies pass": lambda: (
            Question(seeds, filters=western) for seeds in by_id[:CALLS]
        ),
        "by id, diverse": lambda: (Question(seeds, diversity=0.3) for seeds in by_id[:CALLS]),
        "five liked movies": lambda: (
            Question(tuple(Seed(movie_id=each) for each in ids[at : at + 5])) for at in range(CALLS)
        ),
        f"free text of {WORDS} words": lambda: (Question((Seed(text=text),)) for text in texts),
    }
    taken = {name: timed(questions()) for name, questions in kinds.items()}
    held, _ = memory()
    quantiles = {
        name: (statistics.median(each), statistics.quantiles(each, n=100)[98]) for name, each in taken.items()
    }
    return {"load": loaded, "held": held - before, "bytes": path.stat().st_size, "kinds": quantiles}


def texts_of(path: Path) -> list[str]:
    """Returns texts of every second word from the beginnings of descriptions."""
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(path).iter_batches(CALLS, columns=["description"]))
    return [" ".join(each.split()[: 2 * WORDS : 2]) or "a" for each in batch.column(0).to_pylist()]


def child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.index", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def section(rows: list[tuple[int, dict[str, Any], dict[str, Any]]]) -> str:
    """Returns the table in Markdown."""
    where = f"{report._processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {where}.", ""]
    head = " | ".join(f"{count:,}" for count, _, _ in rows)
    lines += [f"| | {head} |", "|---|" + "--:|" * len(rows)]

    def line(name: str, cells: Iterable[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    built, queried = [each for _, each, _ in rows], [each for _, _, each in rows]
    line("built in", (f"{each['seconds']:,.0f} s" for each in built))
    line("processor time", (f"{each['cpu']:,.0f} s" for each in built))
    growth = (later["cpu"] / earlier["cpu"] for earlier, later in pairwise(built))
    line("processor time, times that of the half", ("", *(f"{each:.1f}" for each in growth)))
    for stage in built[-1]["evaluation"]["seconds"]:
        seconds = [each["evaluation"]["seconds"][stage] for each in built]
        if any(seconds):  # without interactions the stage `weighing` takes no time
            line(stage, (f"{each:,.0f} s" for each in seconds))
    line("most memory", (f"{each['most'] / 1024:.2f} GiB" for each in built))
    line("terms", (f"{sum(each['evaluation']['counts']['terms'].values()):,}" for each in built))
    line("the index", (f"{each['bytes'] / 2**20:,.0f} MiB" for each in queried))
    line("loaded in", (f"{each['load']:.1f} s" for each in queried))
    for kind in queried[-1]["kinds"]:
        cells = (f"{p50:.3g} / {p99:.3g} ms" for p50, p99 in (each["kinds"][kind] for each in queried))
        line(f"{kind}: p50 / p99", cells)
    return "\n".join(lines)


def main() -> int:
    if len(sys.argv) > 1:
        step, path, *rest = sys.argv[1:]
        if step == "write":
            write(Path(path), int(rest[0]))
            result: dict[str, Any] = {}
        elif step == "build":
            result = build(Path(path), int(rest[0]), Path(rest[1]))
        else:
            result = ask(Path(path), json.loads(Path(rest[0]).read_text(encoding="utf-8")))
        say(json.dumps(result))
        return 0
    count = number("MOVIES", 1_000_000)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        catalogue, index, texts = (Path(directory) / name for name in ("catalogue", "index", "texts"))
        say(f"Writing {count:,} movies ...")
        child("write", str(catalogue), str(count))
        texts.write_text(json.dumps(texts_of(catalogue)), encoding="utf-8")
        for part in PARTS:
            size = count // part
            say(f"Building an index of {size:,} movies ...")
            built = child("build", str(catalogue), str(size), str(index))
            say(json.dumps(built))
            queried = child("ask", str(index), str(texts))
            say(json.dumps(queried))
            rows.append((size, built, queried))
    text = section(rows)
    say(text)
    if os.environ.get("BENCH_WRITE") != "0":
        report.put(text, BEGIN, END)
    return 0


if __name__ == "__main__":
    run(main)
