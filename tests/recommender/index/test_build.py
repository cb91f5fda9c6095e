"""The build of an index: its metrics, its weights and its progress reports."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from recommender.index import evaluation
from recommender.index.build import NoMovies, build
from recommender.index.catalogue_snapshot import Catalogue, Interaction
from recommender.index.co_occurrence import Opinions, hold_out, liked
from recommender.index.config import Field, Judging, Settings, Together
from recommender.index.engine import IndexEngine
from recommender.index.estimator import MovieIndex
from recommender.index.evaluation import HeldOut
from recommender.index.feature_matrix import Analysis
from recommender.index.query import Movie, Question, Seed
from tests.recommender.small import SETTINGS, TEXTS, catalogue_of, interaction

MANY = replace(SETTINGS, together=Together((0.0, 1.0), minimum_users=20, minimum_interactions=60))


def library() -> Catalogue:
    """Returns forty movies whose words are independent of their users, and thirty users: half of them like
    movies with even ids, the others movies with odd ids."""
    movies = [Movie(number, "", TEXTS[number // 7], popularity=100.0 - number) for number in range(40)]
    events: list[Interaction] = []
    for user in range(30):
        events += [interaction(user, (user // 2 * 4 + 2 * day) % 40 + user % 2, 1.0, day) for day in range(5)]
        events.append(interaction(user, (user * 7) % 40, -1.0, 0))
    return catalogue_of(movies, events)


def analysed(catalogue: Catalogue, settings: Settings = SETTINGS) -> Analysis:
    return Analysis.of(catalogue, settings, lambda stage, percent: None)


def opinions_of(*events: Interaction, movies: int = 10) -> Opinions:
    catalogue = catalogue_of([Movie(number, "") for number in range(movies)], events)
    return Opinions.of(catalogue.interactions(), np.arange(movies))


def test_an_opinion_is_the_bounded_sum_of_a_users_interactions() -> None:
    opinions = opinions_of(
        interaction(7, 1, 0.7),
        interaction(7, 1, 1.0, day=1),
        interaction(7, 2, 0.3),
        interaction(9, 1, 1.0),
        interaction(9, 1, -1.0),
        interaction(9, 3, -1.0),
    )
    assert opinions.users == 2
    assert list(zip(opinions.user, opinions.movie, opinions.weight.round(6), strict=True)) == [
        (0, 2, 0.3), (0, 1, 1.0), (1, 3, -1.0),
    ]  # fmt: skip


def test_the_last_liked_movie_is_held_out_with_all_later_opinions() -> None:
    opinions = opinions_of(
        interaction(1, 4, day=1), interaction(1, 5, day=2), interaction(1, 6, -1.0, day=3),
        interaction(1, 7, day=4), interaction(1, 8, -1.0, day=5), interaction(2, 4, day=1),
        interaction(2, 5, day=2), interaction(3, 4, day=1),
    )  # fmt: skip
    last = hold_out(opinions, 1, 100, 1)
    assert (last.users.tolist(), last.targets.tolist()) == ([0, 1], [7, 5])
    assert opinions.movie[last.hidden].tolist() == [7, 8, 5]
    assert opinions.movie[last.before].tolist() == [4, 5, 6, 4]
    one_before = hold_out(opinions, 2, 100, 1)
    assert (one_before.users.tolist(), one_before.targets.tolist()) == ([0], [5])
    assert opinions.movie[one_before.hidden].tolist() == [5, 6, 7, 8]
    assert len(hold_out(opinions, 1, 1, 1).users) == 1


def test_only_the_latest_opinions_of_a_user_and_of_a_movie_count() -> None:
    opinions = opinions_of(
        *(interaction(1, movie, day=movie) for movie in range(5)),
        interaction(2, 4, day=9),
        interaction(3, 4, day=8),
    )
    by_user = liked(opinions, 10, Together(per_user=2)).toarray()
    assert np.flatnonzero(by_user[:, 0]).tolist() == [3, 4]
    by_movie = liked(opinions, 10, Together(per_movie=2)).toarray()
    assert np.flatnonzero(by_movie[4]).tolist() == [1, 2]


def test_ranking_metrics_depend_on_the_rank() -> None:
    opinions = opinions_of(*(interaction(user, movie, day=movie) for user in range(3) for movie in (1, 2)))
    held = hold_out(opinions, 1, 10, 1)
    held_out = HeldOut(held, None, None)
    recommended = np.full((3, 10), -1, np.int32)
    recommended[0, 0], recommended[1, 2] = 2, 2
    assert evaluation.ranking_metrics(recommended, held_out) == {
        "recall_at_10": pytest.approx(2 / 3),
        "ndcg_at_10": pytest.approx((1 + 0.5) / 3),
    }


def test_list_metrics_are_computed_from_the_lists() -> None:
    rows = (
        MovieIndex(Settings((Field("description"),)))
        .fit(
            catalogue_of(
                [Movie(n, "", text, popularity=4.0 - n) for n, text in enumerate(("aa", "aa", "bb", "aa bb"))]
            )
        )
        .rows_
    )
    lists = np.array([[1, 3], [0, 3], [3, -1], [-1, -1]], np.int32)
    metrics = evaluation.list_metrics(lists, rows, np.array([0.875, 0.625, 0.375, 0.125]), Judging())
    assert metrics["coverage"] == 0.75
    assert metrics["diversity"] == pytest.approx(1 - rows[0].multiply(rows[3]).sum(), abs=1e-6)
    assert metrics["popularity_bias"] == pytest.approx((0.625 + 0.125 + 0.875 + 0.125 + 0.125) / 5 - 0.5)
    assert evaluation.percentiles(np.array([5, 1, 1, 9], np.float32)).tolist() == [0.625, 0.25, 0.25, 0.875]


def test_the_baselines_list_leaves_out_the_movie_itself() -> None:
    lists = evaluation.popular_lists(30)
    assert lists[0].tolist() == list(range(1, 11))
    assert lists[4].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert lists[11].tolist() == lists[29].tolist() == list(range(10))
    assert evaluation.popular_lists(3).tolist()[1] == [0, 2] + [-1] * 8


def test_co_occurrence_gets_the_weight_that_finds_held_out_movies() -> None:
    built = build(library(), MANY)
    tried = built.evaluation["tried"]
    assert [each["together"] for each in tried] == [0.0, 1.0]
    assert tried[1]["ndcg_at_10"] > tried[0]["ndcg_at_10"]
    assert built.evaluation["weights"]["together"] == 1.0
    assert built.evaluation["held_out"] == 30
    assert built.metrics["ndcg_at_10"] > built.baseline["ndcg_at_10"]
    assert set(built.metrics) - set(built.baseline) == {"latency_ms"}
    assert IndexEngine.from_bytes(built.index).together == 1.0


def test_random_interactions_get_no_weight() -> None:
    rng = np.random.default_rng(5)
    movies = [Movie(number, "", TEXTS[number % 6]) for number in range(200)]
    events = [interaction(user, int(rng.integers(200)), 1.0, day) for user in range(60) for day in range(6)]
    built = build(
        catalogue_of(movies, events), replace(MANY, together=replace(MANY.together, weights=(0.0, 0.5)))
    )
    assert len(built.evaluation["tried"]) == 2
    assert built.evaluation["weights"]["together"] == 0.0


def test_held_out_opinions_are_hidden_from_the_index_and_the_question() -> None:
    analysis = analysed(library(), MANY)
    held_out = HeldOut.of(analysis, 1)
    users = liked(analysis.opinions, 40, MANY.together, held_out.held.hidden)
    assert users[held_out.held.targets, held_out.held.users].max() == 0
    assert held_out.histories[np.arange(len(held_out)), held_out.held.targets].max() == 0
    recommended = evaluation.found_by(analysis.weighed(1.0, held_out.held.hidden), held_out)
    for line, row in enumerate(recommended):
        assert set(held_out.seen[line].indices).isdisjoint(row)


def test_with_too_few_interactions_no_weight_is_tried() -> None:
    built = build(library(), replace(MANY, together=replace(MANY.together, minimum_interactions=1_000)))
    assert built.evaluation["tried"] == []
    assert built.evaluation["weights"]["together"] == 0.0
    assert set(built.metrics) == {"coverage", "diversity", "popularity_bias", "latency_ms"}
    few_users = build(library(), replace(MANY, together=replace(MANY.together, minimum_users=31)))
    assert few_users.evaluation["tried"] == []


def test_a_build_is_reproducible_and_its_evaluation_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    one = build(library(), MANY)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    other = build(library(), MANY)
    assert one.index == other.index
    del one.metrics["latency_ms"], other.metrics["latency_ms"]
    assert (one.metrics, one.baseline) == (other.metrics, other.baseline)
    evaluated = json.loads(json.dumps(one.evaluation))
    counts = evaluated["counts"]
    assert (counts["movies"], counts["users"], counts["without_text"]) == (40, 30, 0)
    assert counts["liked"] < counts["opinions"] <= 180
    assert counts["terms"] == {"title": 0, "description": 9, "genres": 0, "keywords": 0, "together": 30}
    assert evaluated["bytes"] == len(one.index)
    assert set(evaluated["seconds"]) == {"reading", "weighing", "neighbours", "writing", "evaluation"}


def test_the_build_reports_progress_and_an_exception_in_the_report_ends_it() -> None:
    reports: list[tuple[str, int]] = []
    described = [Movie(1, "", "a shark", ("Horror",)), Movie(2, "", "", ("Horror",)), Movie(3, "", "a shark")]
    build(catalogue_of(described), SETTINGS, lambda stage, percent: reports.append((stage, percent)))
    percents = [percent for _, percent in reports]
    assert percents == sorted(percents)
    reports.clear()
    build(library(), MANY, lambda stage, percent: reports.append((stage, percent)))
    percents = [percent for _, percent in reports]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    stages = list(dict.fromkeys(stage for stage, _ in reports))
    assert stages[-4:] == ["neighbours", "writing", "evaluation", "done"]
    for last in stages:

        def stop(stage: str, percent: int, last: str = last) -> None:
            if stage == last:
                raise KeyboardInterrupt(stage)

        with pytest.raises(KeyboardInterrupt, match=last):
            build(library(), MANY, stop)


@pytest.mark.parametrize("movies", [[], [Movie(1, "7"), Movie(2, "8")]])
def test_a_catalogue_without_terms_cannot_be_indexed(movies: list[Movie]) -> None:
    with pytest.raises(NoMovies, match="no movie of the catalogue"):
        build(catalogue_of(movies), SETTINGS)


def test_one_movie_can_be_indexed() -> None:
    engine = IndexEngine.from_bytes(build(catalogue_of([Movie(5, "Alone", "an island")]), SETTINGS).index)
    assert engine.recommend(Question((Seed(movie_id=5),))).reason == "no_neighbour"


def test_the_estimator_follows_scikit_learn() -> None:
    index = MovieIndex(SETTINGS, together=0.5)
    again = clone(index).set_params(together=0.25)
    assert (again.get_params()["settings"], again.together, index.together) == (SETTINGS, 0.25, 0.5)
    fitted = again.fit(library())
    assert fitted is again
    assert fitted.rows_.dtype == np.float32
    lengths = np.sqrt(fitted.rows_.multiply(fitted.rows_).sum(axis=1))
    assert np.allclose(lengths, 1.0, atol=1e-6)
    assert fitted.neighbours_.shape == (40, 3)
