"""Builds an index from a catalogue, with its metrics and counts, for a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from recommender.index import evaluation
from recommender.index.catalogue_snapshot import Catalogue
from recommender.index.config import Settings
from recommender.index.engine import IndexEngine
from recommender.index.estimator import MovieIndex
from recommender.index.evaluation import DEPTH, HeldOut
from recommender.index.feature_matrix import Analysis, Progress, ignore_progress

NDCG: Final = f"ndcg_at_{DEPTH}"


class NoMovies(ValueError):
    """The catalogue is empty, or no movie in it has a term."""

    in_words = True  # the message is complete for users


@dataclass(frozen=True)
class Built:
    """An index and its evaluation.

    Parameters
    ----------
    index : the bytes that `engine.IndexEngine.from_bytes` accepts.
    metrics : coverage, diversity, popularity_bias and latency_ms; with enough interactions also recall_at_10
        and ndcg_at_10.
    baseline : the same metrics, except the latency, of recommending the most popular movies.
    evaluation : JSON: ``counts``, the ``weights`` of the fields, the ``tried`` weights of the co-occurrence
        field with their metrics, ``held_out`` users, the standard ``error`` of ndcg_at_10 on them, ``bytes``
        and ``seconds`` by stage.
    """

    index: bytes
    metrics: dict[str, float]
    baseline: dict[str, float]
    evaluation: dict[str, Any]


def build(
    catalogue: Catalogue,
    settings: Settings,
    report: Progress = ignore_progress,
) -> Built:
    """Fits an index to a catalogue, with the weight of ``together`` that best finds the movies users liked
    next. Raises `NoMovies`.

    report : called at least once per stage; the progress never falls.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "reading"):
        analysis = Analysis.of(catalogue, settings, report)
    if not len(catalogue) or not any(block.matrix.nnz for block in analysis.blocks.values()):
        raise NoMovies("no movie of the catalogue has a word, a genre or a keyword to compare it by")
    with _timed(seconds, "weighing"):
        tried, weight = _tried(analysis, report)
    index = MovieIndex(settings, together=weight)
    with _timed(seconds, "neighbours"):
        index.fit_analysed(catalogue, analysis, report)
    report("writing", 90)
    with _timed(seconds, "writing"):
        data = index.to_bytes()
    report("evaluation", 94)
    with _timed(seconds, "evaluation"):
        popularity = evaluation.percentiles(catalogue.popularity[index.order_])
        metrics, baseline = (
            evaluation.list_metrics(lists, index.rows_, popularity, settings.judging)
            for lists in (index.neighbours_[:, :DEPTH], evaluation.popular_lists(len(catalogue)))
        )
        metrics["latency_ms"] = evaluation.latency_ms(IndexEngine.from_bytes(data), settings.judging)
        held_out, error = 0, None
        if tried:
            asked = HeldOut.of(analysis, 1)
            held_out = len(asked)
            found = evaluation.found_by(analysis.weighed(weight, asked.held.hidden), asked)
            metrics |= evaluation.ranking_metrics(found, asked)
            error = evaluation.error_of(found, asked)
            baseline |= evaluation.ranking_metrics(evaluation.most_popular(analysis, asked), asked)
    report("done", 100)
    about = {
        "counts": _counts(index, analysis, catalogue),
        "weights": {field.name: field.weight for field in settings.fields if field.kind != "users"}
        | {"together": weight},
        "tried": tried,
        "held_out": held_out,
        "error": error,
        "bytes": len(data),
        "seconds": seconds,
    }
    return Built(data, metrics, baseline, about)


def _tried(analysis: Analysis, report: Progress) -> tuple[list[dict[str, float]], float]:
    """Returns (each weight of ``together`` with its metrics, the chosen weight); with too few interactions,
    no weight is tried.

    The chosen weight is the smallest whose nDCG is within one standard error of the best one's (the rule of
    Breiman, Friedman, Olshen and Stone 1984): co-occurrence gets weight only if it demonstrably helps.
    """
    limits = analysis.settings.together
    if analysis.together is None or analysis.opinions.positive.sum() < limits.minimum_interactions:
        return [], 0.0
    asked = HeldOut.of(analysis, 2)
    if len(asked) < limits.minimum_users:
        return [], 0.0
    tried = []
    for number, weight in enumerate(limits.weights):
        report("weighing", 20 + 10 * number // len(limits.weights))
        found = evaluation.found_by(analysis.weighed(weight, asked.held.hidden), asked)
        error = evaluation.error_of(found, asked)
        tried.append({"together": weight, "error": error} | evaluation.ranking_metrics(found, asked))
    best = max(tried, key=lambda each: each[NDCG])
    return tried, min(each["together"] for each in tried if each[NDCG] >= best[NDCG] - best["error"])


def _counts(index: MovieIndex, analysis: Analysis, catalogue: Catalogue) -> Mapping[str, Any]:
    opinions = analysis.opinions
    return {
        "movies": len(catalogue),
        "without_text": int(index.by_genres_.sum()),
        "without_neighbours": int((index.neighbours_[:, 0] < 0).sum()),
        "terms": {name: end - begin for name, (begin, end) in index.vocabulary_.bounds.items()},
        "values": int(index.rows_.nnz),
        "opinions": len(opinions),
        "liked": int(opinions.positive.sum()),
        "users": len(np.unique(opinions.user)),
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - began, 3)
