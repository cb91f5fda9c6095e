"""The training run of `movies`: it stores a snapshot of the catalogue as a dataset and builds an index of
it."""

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
from vigia_ml.fitting.dataset_file import Written

PIECE: Final = 5_000
LAYOUT: Final = hashlib.sha256(str(catalogue_snapshot.SCHEMA).encode()).hexdigest()
"""Hash of the columns of a snapshot."""
BEFORE: Final = 5
BEHIND: Final = 88
"""Progress of a run, in per cent, before and after an index's build."""
TIMES: Final = frozenset({"latency_ms"})
CHANCE: Final = 1.96
"""Standard errors on each side that hold 95 % of a normal distribution."""
HERE: Final = Path(__file__).resolve().parent

# The query replaces the references of users by numbers: an index, which every web process loads, must not
# hold the references.
_INTERACTIONS: Final = """
    SELECT event.movie_id, dense_rank() OVER (ORDER BY event."user"), event.kind, event.at
    FROM recommender_interaction event JOIN recommender_movie movie ON movie.id = event.movie_id
    WHERE event."user" IS NOT NULL AND movie.withdrawn_at IS NULL
    ORDER BY event.movie_id, event.at, event.id
"""


class EmptyCatalogue(Conflict):
    """The catalogue has no movie, so no index can be built."""

    code = "empty_catalogue"

    def __init__(self) -> None:
        super().__init__("the catalogue has no movies: load a file with manage.py load_movies FILE")


def make(run: TrainingRun, report: Report, directory: Path) -> BuildResult:
    """Builds a version from the catalogue; see `training.providers.Build`."""
    report("reading the catalogue", 3)
    written = write_snapshot(directory / "catalogue.parquet")
    if not written.rows:
        raise EmptyCatalogue
    catalogue = catalogue_snapshot.read(written.path)
    source = f"catalogue of {written.rows:,} movies, {len(catalogue.interactions()):,} interactions"
    dataset = uploads.register(run.registered_model, written, LAYOUT, source=source, by=run.requested_by)
    built = building.build(catalogue, declaration.SETTINGS, _scaled(report))
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
    """Returns a report that maps a build's progress to its part of the run's progress."""
    return lambda stage, percent: report(stage, BEFORE + percent * (BEHIND - BEFORE) // 100)


def remake(path: Path, report: Report) -> Remade:
    """Builds a version again from a stored snapshot; see `training.providers.Remake`."""
    built = building.build(catalogue_snapshot.read(path), declaration.SETTINGS, _scaled(report))
    metrics = {name: value for name, value in built.metrics.items() if name not in TIMES}
    return Remade(built.index, metrics, built.evaluation["held_out"], source_sha256())


def write_snapshot(path: Path) -> Written:
    """Writes the catalogue and the interactions of one moment to a file."""
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost:  # both as of the same moment
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = catalogue_snapshot.write(path, _movies(), _interactions())
    return Written.of(path, rows)


def _movies() -> Iterator[query.Movie]:
    movies = Movie.objects.filter(withdrawn_at__isnull=True).order_by("id")
    return map(query.Movie.of, movies.values_list(*query.MOVIE_FIELDS).iterator(chunk_size=PIECE))


def _interactions() -> Iterator[catalogue_snapshot.Interaction]:
    weights = declaration.WEIGHTS
    with connection.chunked_cursor() as cursor:
        cursor.execute(_INTERACTIONS)
        while rows := cursor.fetchmany(PIECE):
            for movie_id, user, kind, at in rows:
                yield catalogue_snapshot.Interaction(movie_id, user, weights[kind], at)


def verdict(built: Built, active: ModelVersion | None) -> dict[str, Any]:
    """Returns the gate's verdict; see `training.providers.Verdict`.

    The active version's metrics are those on its own held-out interactions: it was built from all earlier
    interactions, so it may know the ones that this version holds out. Two samples of users differ by chance,
    so this version counts as worse only if the difference exceeds chance (see `_allowed`).
    """
    gate = declaration.GATE
    primary = declaration.primary_of(built.metrics)
    active_metrics = active.metrics if active is not None and primary in active.metrics else None
    if active is not None and active_metrics is not None and primary == building.NDCG:
        gate = replace(gate, max_regression=_allowed(gate, built, active))
    median, most = built.metrics["latency_ms"], gate.max_latency_ms
    comparison = "within" if median <= most else "above"
    message = f"median latency {median:.3g} ms, {comparison} the limit of {most:g} ms"
    latency = Check("latency", median, most, median <= most, message)
    result = check_gate(gate, primary, built.metrics, built.baseline, active_metrics, [latency])
    if active is not None:
        result |= {"compared_with": active.number, "active_metrics": active_metrics}
    return result


def _allowed(gate: Gate, built: Built, active: ModelVersion) -> float:
    """Returns the share of the active version's nDCG that this version may lose: the declared share or, if
    that is larger, the 95 % bound of the difference of the means of two samples of users."""
    active_ndcg = float(active.metrics[building.NDCG])
    errors = [float(known.get("error") or 0) for known in (built.evaluation, active.evaluation or {})]
    by_chance = CHANCE * math.hypot(*errors) / active_ndcg if active_ndcg else 0.0
    return max(gate.max_regression, by_chance)


def source_sha256() -> str:
    """Returns the hash of the code that declares and builds an index."""
    return source_hash.of([HERE / "declaration.py", *(HERE / "index").glob("*.py")])
