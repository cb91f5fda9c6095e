"""An index of 4,803 real movies."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from recommender.declaration import SETTINGS
from recommender.index.build import Built, build
from recommender.index.catalogue_snapshot import Catalogue
from recommender.index.config import PLAIN
from recommender.index.engine import IndexEngine
from recommender.index.estimator import MovieIndex
from recommender.index.query import Filters, Movie, Question, Seed
from tests.recommender.small import catalogue_of

pytestmark = pytest.mark.real_data

KNIGHT_RISES = 49_026


@pytest.fixture(scope="module")
def catalogue(data_dir: Path) -> Catalogue:
    def names(cell: str) -> tuple[str, ...]:
        return tuple(each["name"] for each in json.loads(cell))

    with gzip.open(data_dir / "tmdb_5000_movies.csv.gz", "rt", encoding="utf-8") as file:
        return catalogue_of(
            Movie(
                int(row["id"]), row["title"], row["overview"], names(row["genres"]), names(row["keywords"]),
                int(row["release_date"][:4]) if row["release_date"] else None,
                row["original_language"], float(row["popularity"]),
            )
            for row in csv.DictReader(file)
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(catalogue: Catalogue) -> Built:
    return build(catalogue, SETTINGS)


def titles(engine: IndexEngine, *seeds: Seed, **more: object) -> list[str]:
    return [each.title for each in engine.recommend(Question(seeds, **more)).items]  # type: ignore[arg-type]


def test_the_plain_settings_give_the_reference_neighbours(catalogue: Catalogue) -> None:
    index = MovieIndex(PLAIN).fit(catalogue)
    assert index.rows_.shape == (4803, 20978)
    engine = IndexEngine.from_bytes(index.to_bytes())
    answer = engine.recommend(Question((Seed(movie_id=KNIGHT_RISES),)))
    assert [(each.title, f"{each.score:.4f}") for each in answer.items] == [
        ("The Dark Knight", "0.3015"),
        ("Batman Forever", "0.2986"),
        ("Batman Returns", "0.2879"),
        ("Batman", "0.2645"),
        ("Batman: The Dark Knight Returns, Part 2", "0.1855"),
    ]


def test_parts_of_a_series_are_near_each_other(built: Built) -> None:
    engine = IndexEngine.from_bytes(built.index)
    assert titles(engine, Seed(movie_id=862), top_n=2) == ["Toy Story 3", "Toy Story 2"]
    assert set(titles(engine, Seed(movie_id=348), top_n=3)) == {"Aliens", "Alien³", "Alien: Resurrection"}
    assert set(titles(engine, Seed(movie_id=578), top_n=2)) == {"Jaws 2", "Jaws: The Revenge"}
    assert titles(engine, Seed(text="gotham city bat vigilante"), filters=Filters(year_from=2005))


def test_the_metrics_of_the_declared_settings_are_in_range(built: Built) -> None:
    assert built.metrics["coverage"] > 0.98
    assert 0.85 < built.metrics["diversity"] < 0.95
    assert abs(built.metrics["popularity_bias"]) < 0.1
    assert built.baseline["coverage"] == 11 / 4803
    assert built.baseline["popularity_bias"] > 0.49
    assert built.evaluation["counts"]["movies"] == 4803
    assert built.evaluation["counts"]["terms"]["genres"] == 20


def test_a_search_finds_the_precomputed_neighbours(built: Built) -> None:
    """The test compares every hundredth movie."""
    engine = IndexEngine.from_bytes(built.index)
    for movie_id in list(engine.ids())[::100]:
        once = engine.recommend(Question((Seed(movie_id=movie_id),), 100))
        twice = engine.recommend(Question((Seed(movie_id=movie_id), Seed(movie_id=movie_id)), 100))
        assert [each.movie_id for each in once.items] == [each.movie_id for each in twice.items]
        assert [each.score for each in once.items] == pytest.approx(
            [each.score for each in twice.items], abs=2e-6
        )


def test_a_movie_without_text_is_compared_by_genres(built: Built) -> None:
    engine = IndexEngine.from_bytes(built.index)
    food_chains = next(
        movie_id
        for movie_id, title in zip(engine.ids(), engine.titles(), strict=True)
        if title == "Food Chains"
    )
    by_genres = engine.recommend(Question((Seed(movie_id=food_chains),)))
    assert by_genres.basis == "genres"
    assert {each.genres for each in by_genres.items} == {("Documentary",)}
