"""What a training run of `movies` does: the catalogue as it is now is frozen as a dataset, and indexed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.db import connection, transaction

from core import source_hash
from core.errors import Conflict
from recommender import declaration
from recommender.index import build as building
from recommender.index import catalogue_snapshot, query
from recommender.index.build import Built
from recommender.models import Movie
from recommender.recommendations.request import QUESTION
from training.models import ModelVersion, TrainingRun
from training.providers import BuildResult, Remade, Report
from training.runs import uploads
from vigia_ml.declaration import Gate
from vigia_ml.evaluation.metrics import Check, check_gate
from vigia_ml.fitting.parquet import Written

PIECE: Final = 5_000
LAYOUT: Final = hashlib.sha256(str(catalogue_snapshot.SCHEMA).encode()).hexdigest()
"""Of the columns of a snapshot."""
BEFORE: Final = 5
BEHIND: Final = 88
"""Per cent of a run that are done before an index is built, and after it."""
TIMES: Final = frozenset({"latency_ms"})
CHANCE: Final = 1.96
"""Standard errors; of a normal distribution 95 of 100 lie within."""
HERE: Final = Path(__file__).resolve().parent

# Users get code numbers here, and their references stay here: an index, which is copied to every web process,
# does not hold them.
_INTERACTIONS: Final = """
    SELECT what.movie_id, dense_rank() OVER (ORDER BY what."user"), what.kind, what.at
    FROM recommender_interaction what JOIN recommender_movie movie ON movie.id = what.movie_id
    WHERE what."user" IS NOT NULL AND movie.withdrawn_at IS NULL
    ORDER BY what.movie_id, what.at, what.id
"""


class EmptyCatalogue(Conflict):
    """There is nothing to make an index of."""

    code = "empty_catalogue"

    def __init__(self) -> None:
        super().__init__("the catalogue holds no movie: load some with manage.py load_movies FILE")


def make(run: TrainingRun, report: Report, directory: Path) -> BuildResult:
    """See `training.providers.Build`."""
    report("reading the catalogue", 3)
    written, interactions = write_snapshot(directory / "catalogue.parquet")
    if not written.rows:
        raise EmptyCatalogue
    source = f"catalogue of {written.rows:,} movies, {interactions:,} interactions"
    dataset = uploads.register(run.registered_model, written, LAYOUT, source=source, by=run.requested_by)
    built = building.build(catalogue_snapshot.read(written.path), declaration.SETTINGS, _scaled(report))
    return BuildResult(
        dataset=dataset,
        artifact=built.index,
        engine=declaration.ENGINE,
        engine_reason="the index itself answers: arrays of numbers, no pickle",
        schema=QUESTION,
        metrics=built.metrics,
        baseline=built.baseline,
        evaluation=built.evaluation,
        parameters={"chosen": {"together": built.evaluation["weights"]["together"]}},
        train_rows=written.rows,
        holdout_rows=built.evaluation["held_out"],
        seed=declaration.SETTINGS.judging.seed,
        source_sha256=source_sha256(),
        verdict=partial(verdict, built),
    )


def _scaled(report: Report) -> Report:
    """A build's own per cents, as the part they are of a run's."""
    return lambda stage, percent: report(stage, BEFORE + percent * (BEHIND - BEFORE) // 100)


def remake(path: Path, report: Report) -> Remade:
    """See `training.providers.Remake`."""
    built = building.build(catalogue_snapshot.read(path), declaration.SETTINGS, _scaled(report))
    metrics = {name: value for name, value in built.metrics.items() if name not in TIMES}
    return Remade(built.index, metrics, built.evaluation["held_out"], source_sha256())


def write_snapshot(path: Path) -> tuple[Written, int]:
    """The catalogue and the interactions of one moment, as a file; and how many interactions there are."""
    counted = 0

    def events() -> Iterator[catalogue_snapshot.Interaction]:
        nonlocal counted
        for event in _interactions():
            counted += 1
            yield event

    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost:  # both as of the same moment
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = catalogue_snapshot.write(path, _movies(), events())
    return Written.of(path, rows), counted


def _movies() -> Iterator[query.Movie]:
    there = Movie.objects.filter(withdrawn_at__isnull=True).order_by("id")
    names = ("id", "title", "description", "genres", "keywords", "year", "language", "popularity")
    for row in there.values_list(*names).iterator(chunk_size=PIECE):
        number, title, description, genres, keywords, year, language, popularity = row
        yield query.Movie(
            number, title, description, tuple(genres), tuple(keywords), year, language, popularity
        )


def _interactions() -> Iterator[catalogue_snapshot.Interaction]:
    weights = declaration.WEIGHTS
    with connection.chunked_cursor() as cursor:
        cursor.execute(_INTERACTIONS)
        while rows := cursor.fetchmany(PIECE):
            for movie_id, user, kind, at in rows:
                yield catalogue_snapshot.Interaction(movie_id, user, weights[kind], at)


def verdict(built: Built, active: ModelVersion | None) -> dict[str, Any]:
    """The gate's verdict; see `training.providers.Verdict`.

    The active version's figures are those on its own held-out interactions: it was built from all there were,
    so asking it for this version's would be asking what it was told. Two samples of users differ by chance,
    so this version is worse where it is so by more than chance makes, too (see `_allowed`).
    """
    gate = declaration.GATE
    primary = declaration.primary_of(built.metrics)
    theirs = active.metrics if active is not None and primary in active.metrics else None
    if active is not None and theirs is not None and primary == building.NDCG:
        gate = replace(gate, max_regression=_allowed(gate, built, active))
    checks = [_latency(built.metrics["latency_ms"], gate.max_latency_ms)]
    found = check_gate(gate, primary, built.metrics, built.baseline, theirs, checks)
    if active is not None:
        found |= {"compared_with": active.number, "active_metrics": theirs}
    return found


def _allowed(gate: Gate, built: Built, active: ModelVersion) -> float:
    """The share of the active version's nDCG that may be lost: the declared one or, if that is more, what the
    difference of the means of two samples of users stays within in 95 of 100 cases."""
    theirs = float(active.metrics[building.NDCG])
    errors = [float(known.get("error") or 0) for known in (built.evaluation, active.evaluation or {})]
    return max(gate.max_regression, CHANCE * math.hypot(*errors) / theirs) if theirs else gate.max_regression


def _latency(median: float, most: float) -> Check:
    passed = median <= most
    than = "at most" if passed else "more than"
    said = f"one answer takes {median:.3g} ms (median), {than} the asked {most:g} ms"
    return Check("latency", median, most, passed, said)


def source_sha256() -> str:
    """Of the code that declares and builds an index."""
    return source_hash.of([HERE / "declaration.py", *(HERE / "index").glob("*.py")])
