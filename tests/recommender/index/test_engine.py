"""Answers of the engine, and their reasons."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from recommender.index.build import build
from recommender.index.config import Field, Settings
from recommender.index.engine import IndexEngine, UnknownMovie
from recommender.index.packed_arrays import NotAnIndex, Strings, pack, unpack
from recommender.index.query import Filters, Found, Movie, Question, Seed
from recommender.index.ranking import diverse
from recommender.index.sparse_matrix import on_grid
from tests.recommender.small import (
    FIELDS,
    SETTINGS,
    catalogue_of,
    catalogues,
    engine,
    filters,
    fitted,
    interaction,
    passes,
)

MOVIES = (
    Movie(1, "Magic", "a wizard at a school of magic", ("Fantasy",), ("wizard",), 2001, "en", 9.0),
    Movie(2, "Duel", "two wizards, one wizard school and a duel", ("Fantasy", "Action"), (), 2002, "en", 8.0),
    Movie(3, "Teeth", "the shark near an island", ("Horror",), ("shark",), 1975, "en", 7.0),
    Movie(4, "More Teeth", "the shark attacks the island", ("Horror",), ("shark",), 1978, "en", 6.0),
    Movie(5, "Isla", "una isla sin magia", ("Horror", "Drama"), (), 2011, "es", 5.0),
    Movie(6, "Untold", "", ("Fantasy",), (), None, "en", 4.0),
    Movie(7, "7", "", (), (), 2022, "en", 3.0),
)


@pytest.fixture(scope="module")
def small() -> IndexEngine:
    return engine(MOVIES)


def ids(answer: Found) -> list[int]:
    return [each.movie_id for each in answer.items]


def ask(index: IndexEngine, *seeds: Seed, **more: object) -> Found:
    return index.recommend(Question(seeds, **more))  # type: ignore[arg-type]


def test_the_score_is_the_cosine_of_scikit_learn_over_the_weighted_fields() -> None:
    """The test computes the score with one vectorizer per field, without our code."""
    index = engine(MOVIES[:4], settings=Settings((Field("description"), Field("keywords", 0.5))))
    texts = TfidfVectorizer().fit_transform([each.description for each in MOVIES[:4]])
    labels = TfidfVectorizer(analyzer=list).fit_transform([each.keywords for each in MOVIES[:4]])
    cosines = cosine_similarity(np.hstack([texts.toarray(), 0.5 * labels.toarray()]))
    assert (cosines > 0).sum() == 8
    for row, movie in enumerate(MOVIES[:4]):
        answer = ask(index, Seed(movie_id=movie.id), top_n=3)
        expected = {other.id: cosines[row, at] for at, other in enumerate(MOVIES[:4]) if cosines[row, at] > 0}
        del expected[movie.id]
        assert {each.movie_id: each.score for each in answer.items} == pytest.approx(expected, abs=1e-6)
        assert ids(answer) == sorted(expected, key=lambda each: -expected[each])


@given(catalogues())
@settings(max_examples=25)
def test_the_shares_of_an_answer_add_up_to_1_and_make_up_its_score(movies: list[Movie]) -> None:
    index = engine_or_none(movies)
    if index is None:
        return
    for movie in movies:
        for each in ask(index, Seed(movie_id=movie.id)).items:
            assert sum(reason.share for reason in each.because) == pytest.approx(1, abs=1e-5)
            shares = [reason.share for reason in each.because]
            assert shares == sorted(shares, reverse=True)
            assert 0 < each.score <= 1.000001


@given(catalogues(), filters(), st.integers(1, 5), st.data())
@settings(max_examples=60)
def test_precomputed_neighbours_equal_the_result_of_a_search(
    movies: list[Movie], conditions: Filters, top_n: int, data: st.DataObject
) -> None:
    index = engine_or_none(movies)
    if index is None:
        return
    seed = data.draw(st.sampled_from(movies)).id
    withdrawn = frozenset(movie.id for movie in data.draw(st.lists(st.sampled_from(movies), max_size=2)))
    once = index.recommend(Question((Seed(movie_id=seed),), top_n, conditions), withdrawn)
    # Two halves of the same seed are two seeds, so the engine does not use precomputed neighbours.
    twice = index.recommend(
        Question((Seed(0.5, movie_id=seed), Seed(0.5, movie_id=seed)), top_n, conditions), withdrawn
    )
    assert ids(once) == ids(twice)
    assert [each.score for each in once.items] == pytest.approx(
        [each.score for each in twice.items], abs=2e-6
    )
    assert (once.basis, once.reason) == (twice.basis, twice.reason)
    by_id = {movie.id: movie for movie in movies}
    assert all(passes(by_id[each], conditions) and each != seed for each in ids(once))
    assert withdrawn.isdisjoint(ids(once))
    everything = index.recommend(Question((Seed(movie_id=seed),), 100), withdrawn)
    left = [each for each in ids(everything) if passes(by_id[each], conditions)]
    assert ids(once) == left[:top_n]
    assert once.reason == ("" if left else "filtered_out" if everything.items else everything.reason)


def engine_or_none(movies: list[Movie]) -> IndexEngine | None:
    """Returns None for a catalogue without terms."""
    usable = any(movie.description or movie.genres or movie.keywords or movie.title for movie in movies)
    return engine(movies) if usable else None


def test_popularity_and_then_the_id_break_ties() -> None:
    twins = [Movie(number, "Same", "a shark", popularity=float(number == 5)) for number in (9, 2, 7, 5, 3)]
    index = engine(twins)
    assert list(index.ids()) == [5, 2, 3, 7, 9]
    assert ids(ask(index, Seed(movie_id=2))) == [5, 3, 7, 9]
    assert ids(ask(index, Seed(text="shark"))) == [5, 2, 3, 7, 9]


def test_a_movie_without_text_is_compared_by_genres_and_popularity(small: IndexEngine) -> None:
    answer = ask(small, Seed(movie_id=6))
    assert (answer.basis, answer.reason) == ("genres", "")
    assert ids(answer) == [1, 2]
    assert answer.items[0].score == 1.0
    assert [(each.field, each.term, each.share) for each in answer.items[0].because] == [
        ("genres", "fantasy", 1.0)
    ]
    new = Movie(60, "Untold too", genres=("fantasy",))
    assert ids(ask(small, Seed(movie=new))) == [1, 6, 2]
    assert ask(small, Seed(movie=new)).basis == "genres"


def test_a_movie_without_text_is_compared_by_genres_beside_other_seeds_without_terms(
    small: IndexEngine,
) -> None:
    new = Movie(60, "Untold too", genres=("fantasy",))
    wordless, disliked = Seed(movie_id=7), Seed(-1.0, movie_id=2)
    for seed in (Seed(movie_id=6), Seed(movie=new)):
        alone = ask(small, seed).items
        for others in ((wordless,), (disliked,), (wordless, disliked), (Seed(text="xyzzy"),)):
            answer = ask(small, seed, *others)
            assert (answer.basis, answer.reason) == ("genres", "")
            assert answer.items == tuple(
                each for each in alone if disliked not in others or each.movie_id != 2
            )
    both = ask(small, Seed(movie_id=6), Seed(0.3, movie=new))
    assert (both.basis, ids(both)) == ("genres", [1, 2])


def test_one_liked_movie_with_words_makes_the_basis_similarity(small: IndexEngine) -> None:
    answer = ask(small, Seed(movie_id=6), Seed(0.1, movie_id=3))
    assert (answer.basis, ids(answer)[0]) == ("similarity", 4)


def test_a_movie_with_a_title_alone_is_compared_by_the_words_of_its_title() -> None:
    index = engine([*MOVIES, Movie(8, "Teeth of the Duel")])
    answer = ask(index, Seed(movie_id=8))
    assert answer.basis == "similarity"
    assert set(ids(answer)) == {2, 3, 4}
    assert {why.field for each in answer.items for why in each.because} == {"title"}


def test_a_movie_without_text_is_no_neighbour_by_its_genre_alone(small: IndexEngine) -> None:
    assert 6 not in ids(ask(small, Seed(movie_id=1), top_n=100))


def test_an_empty_answer_says_why(small: IndexEngine) -> None:
    assert ask(small, Seed(movie_id=7)).reason == "nothing_to_compare"
    assert ask(small, Seed(text="xyzzy")).reason == "nothing_to_compare"
    assert ask(small, Seed(movie_id=3), filters=Filters(year_from=2050)).reason == "filtered_out"
    assert small.recommend(Question((Seed(text="duel"),)), frozenset({2})).reason == "no_neighbour"
    assert ask(small, Seed(-1.0, movie_id=3)).reason == "no_neighbour"
    assert ask(small).reason == "nothing_to_compare"


def test_withdrawn_movies_and_seeds_are_never_recommended(small: IndexEngine) -> None:
    withdrawn = frozenset({4, 77})
    assert 4 not in ids(small.recommend(Question((Seed(movie_id=3),), 10), withdrawn))
    assert 4 not in ids(small.recommend(Question((Seed(text="shark island"),), 10), withdrawn))
    assert {1, 3}.isdisjoint(ids(ask(small, Seed(movie_id=1), Seed(movie_id=3), top_n=10)))
    assert 3 not in ids(ask(small, Seed(movie=MOVIES[2]), top_n=10))


def test_a_seed_that_is_not_left_out_is_found_like_any_movie(small: IndexEngine) -> None:
    for movie_id, basis in ((3, "similarity"), (6, "genres")):
        alone = ask(small, Seed(movie_id=movie_id), top_n=100)
        answer = ask(small, Seed(movie_id=movie_id, left_out=False), top_n=100)
        assert answer.basis == alone.basis == basis
        assert movie_id not in ids(alone)
        assert {each.movie_id: each for each in answer.items}[movie_id].score == pytest.approx(1)
        assert [each for each in answer.items if each.movie_id != movie_id] == list(alone.items)
        question = Question((Seed(movie_id=movie_id, left_out=False),), 100)
        assert movie_id not in ids(small.recommend(question, frozenset({movie_id})))
        assert small.at_hand(question) is None
    assert ids(ask(small, Seed(movie_id=3, left_out=False), Seed(-0.1, movie_id=3)))[:1] == [4]


def test_disliked_movies_lower_scores(small: IndexEngine) -> None:
    liked = Seed(text="wizard shark")
    both = {each.movie_id: each for each in ask(small, liked).items}
    without = {each.movie_id: each for each in ask(small, liked, Seed(-0.5, movie_id=3)).items}
    assert {1, 2, 4} <= set(both)
    assert without.get(4) is None or without[4].score < both[4].score
    assert without[1].score > without.get(4, without[1]).score - 1e-9
    mixed = ask(small, Seed(movie_id=3), Seed(-0.3, text="attacks"), top_n=1).items[0]
    assert mixed.movie_id == 4
    assert min(reason.share for reason in mixed.because) < 0
    assert sum(reason.share for reason in mixed.because) == pytest.approx(1, abs=1e-5)


def test_a_text_is_searched_for_words_and_labels(small: IndexEngine) -> None:
    answer = ask(small, Seed(text="A SHARK horror!"))
    assert {(each.field, each.term) for each in answer.items[0].because} >= {
        ("description", "shark"), ("keywords", "shark"), ("genres", "horror"),
    }  # fmt: skip


def test_a_new_movie_gets_the_row_it_would_have_had() -> None:
    """The only difference is that the frequencies do not include it."""
    index = fitted(MOVIES, Settings(FIELDS, top_k=3))
    place = index.ids_.tolist()
    for movie in MOVIES[:5]:
        was = index.rows_[place.index(movie.id)].todok()
        would = {(0, column): value for column, value in index.vocabulary_.of_movie(movie).items()}
        assert would == pytest.approx(dict(was), abs=1e-7), movie.title


def test_users_who_liked_both_movies_are_one_anonymous_reason() -> None:
    events = [interaction(user, movie_id) for user in (1, 2, 3) for movie_id in (1, 3)]
    index = fitted_with(events, weight=1.0)
    answers = {each.movie_id: each for each in ask(index, Seed(movie_id=1)).items}
    assert [(each.field, each.term) for each in answers[3].because] == [("together", "liked together")]
    assert answers[3].because[0].share == 1.0
    assert "together" not in {each.field for each in answers[2].because}


def test_a_liked_movie_without_text_is_compared_by_co_occurrence() -> None:
    index = fitted_with(
        [interaction(user, movie_id) for user in (1, 2, 3) for movie_id in (6, 3)], weight=1.0
    )
    answer = ask(index, Seed(movie_id=6))
    assert answer.basis == "similarity"
    assert ids(answer)[0] == 3


def fitted_with(events: list[object], weight: float) -> IndexEngine:
    from recommender.index.estimator import MovieIndex

    index = MovieIndex(SETTINGS, together=weight).fit(catalogue_of(MOVIES, events))  # type: ignore[arg-type]
    return IndexEngine.from_bytes(index.to_bytes())


def test_diversity_is_maximal_marginal_relevance(small: IndexEngine) -> None:
    """The test computes it from the scores of the pool and the cosines among its rows."""
    seeds, count, weight = (Seed(text="shark wizard island school"),), 4, 0.6
    pool = ask(small, *seeds, top_n=100).items
    cosines = {
        (one.movie_id, other.movie_id): next(
            (x.score for x in ask(small, Seed(movie_id=one.movie_id), top_n=100).items
             if x.movie_id == other.movie_id), 0.0,
        )
        for one, other in itertools.permutations(pool, 2)
    }  # fmt: skip
    chosen: list[int] = []
    while len(chosen) < min(count, len(pool)):
        left = [each for each in pool if each.movie_id not in chosen]
        chosen.append(
            max(
                left,
                key=lambda each: (
                    (1 - weight) * each.score
                    - weight * max((cosines[each.movie_id, other] for other in chosen), default=0.0)
                ),
            ).movie_id
        )
    assert ids(ask(small, *seeds, top_n=count, diversity=weight)) == chosen
    assert chosen != ids(ask(small, *seeds, top_n=count))


def test_without_diversity_the_pool_keeps_its_order(small: IndexEngine) -> None:
    matrix = small._rows
    pool, scores = np.array([3, 0, 1]), np.array([0.9, 0.5, 0.5])
    assert diverse(pool, scores, matrix, 3, 0.0).tolist() == [3, 0, 1]
    assert diverse(pool, scores, matrix, 2, 0.0).tolist() == [3, 0]


def test_explanations_are_optional(small: IndexEngine) -> None:
    plain, explained = (ask(small, Seed(movie_id=3), explain=explain).items for explain in (False, True))
    assert [(each.movie_id, each.score) for each in plain] == [
        (each.movie_id, each.score) for each in explained
    ]
    assert all(not each.because for each in plain)


def test_the_index_knows_its_movies(small: IndexEngine) -> None:
    assert len(small) == 7
    assert list(zip(small.ids(), small.titles(), strict=True))[:2] == [(1, "Magic"), (2, "Duel")]
    assert small.holds(3)
    assert not small.holds(8)
    assert not small.holds(2**70)
    assert small.title(4) == "More Teeth"
    first = ask(small, Seed(movie_id=4)).items[0]
    assert (first.title, first.year, first.genres) == ("Teeth", 1975, ("Horror",))
    assert ask(small, Seed(movie=Movie(9, "", "magic school"))).items[0].movie_id == 1
    with pytest.raises(UnknownMovie, match="holds no movie 8"):
        ask(small, Seed(movie_id=8))


def test_seeds_and_numbers_are_validated() -> None:
    for arguments in ({}, {"text": "x", "movie_id": 1}):
        with pytest.raises(ValueError, match="exactly one"):
            Seed(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_n is 1 to 100, not 0"):
        Question((), 0)
    with pytest.raises(ValueError, match=r"diversity is 0 to 1, not 1\.5"):
        Question((), diversity=1.5)


# -- bytes -------------------------------------------------------------------------------------------------


@given(st.lists(st.text("aéñ漢🎬", max_size=3), max_size=20))
def test_packed_strings_are_unchanged_and_can_be_found(strings: list[str]) -> None:
    held = Strings.of(strings)
    assert list(held) == [each.encode("utf-8", "replace").decode() for each in strings]
    ordered = Strings.of(sorted(set(strings) - {""}))
    for place, each in enumerate(ordered):
        assert ordered.find(each) == place
    assert ordered.find("nowhere") == -1


def test_unpacked_arrays_are_aligned_views_without_copies() -> None:
    arrays = {"a": np.arange(3, dtype=np.int8), "bcd": np.zeros((2, 5)), "none": np.zeros((0, 4), np.int32)}
    data = pack(arrays)
    unpacked = unpack(data)
    assert pack(arrays) == data
    for name, array in arrays.items():
        assert unpacked[name].dtype == array.dtype
        assert np.array_equal(unpacked[name], array)
        assert not unpacked[name].flags.writeable
    begin = np.frombuffer(data, np.uint8).ctypes.data
    assert all((each.ctypes.data - begin) % 64 == 0 for name, each in unpacked.items() if name != "none")


def test_numpy_reads_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    path.write_bytes(build(catalogue_of(MOVIES), SETTINGS).index)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["neighbours"].shape == (7, 3)
        assert json.loads(archive["about"].tobytes())["format"] == 1


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"nonsense" * 100, pack({"a": np.zeros(3)})])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(NotAnIndex):
        IndexEngine.from_bytes(data)


def test_an_engine_imports_numpy_alone(tmp_path: Path) -> None:
    """A web process must not import the builder of an index and its libraries."""
    path = tmp_path / "index"
    path.write_bytes(build(catalogue_of(MOVIES), SETTINGS).index)
    code = f"""
import pathlib, sys
from recommender.index.query import Filters, Movie, Question, Seed
from recommender.index.engine import IndexEngine
engine = IndexEngine.from_bytes(pathlib.Path({str(path)!r}).read_bytes())
for seed in (Seed(movie_id=1), Seed(movie_id=6), Seed(text="wizard"), Seed(movie=Movie(9, "Magic", "shark"))):
    for diversity in (0.0, 0.5):
        question = Question((seed,), filters=Filters(genres=("fantasy",)), diversity=diversity)
        answer = engine.recommend(question)
        assert answer.items and answer.items[0].because
print(*sorted({{"scipy", "sklearn", "pandas", "pyarrow", "numba", "django", "joblib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_grid_makes_sums_exact() -> None:
    rng = np.random.default_rng(3)
    one, other = (on_grid(rng.random(500) / 23) for _ in range(2))
    products = one * other
    assert len({float(rng.permutation(products).cumsum()[-1]) for _ in range(50)}) == 1


def test_an_unused_engine_is_freed_at_once() -> None:
    """An engine may hold gigabytes, and the garbage collector finds cycles late."""
    unused = engine(MOVIES)
    ask(unused, Seed(movie_id=1))
    reference = weakref.ref(unused)
    gc.disable()
    try:
        del unused
        assert reference() is None
    finally:
        gc.enable()


def test_labels_are_looked_up_only_where_one_begins(
    small: IndexEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = []
    plain = Strings.has_prefix

    def counted(self: Strings, prefix: str, begin: int, end: int) -> bool:
        prefixes.append(prefix)
        return plain(self, prefix, begin, end)

    monkeypatch.setattr(Strings, "has_prefix", counted)
    words = [f"{chr(97 + first)}{chr(97 + second)}" for first in range(26) for second in range(26)]
    answer = ask(small, Seed(text=" ".join([*words, "wizard"])))
    assert ("keywords", "wizard") in {(why.field, why.term) for each in answer.items for why in each.because}
    assert len(prefixes) < 2.2 * len(words), "one look-up per word and field, not per run of words"
