"""From a question to an answer: movies are looked up, the index is asked, and nothing goes out unlogged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import msgspec

from predictions.inference import pipeline
from predictions.inference.pipeline import Answer, Caller
from recommender.catalogue import title_search, withdrawals
from recommender.errors import UnknownMovie
from recommender.index import query
from recommender.index.engine import IndexEngine
from recommender.index.query import MOST, Filters, Found, Question, Seed
from recommender.models import Movie
from recommender.recommendations import cache, request, user_profile
from recommender.recommendations.request import LARGEST_ID, Asked
from recommender.recommendations.response import Recommendation, RenderedResponse
from training.serving.engine_cache import Served
from vigia_ml.schema import InvalidRows

NO_INTERACTIONS: Final = "no_interactions"
CANCELLED_OUT: Final = "nothing_to_compare"
"""Of a user whose interactions add up to nothing."""
_DISLIKED: Final = -1.0


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """The question most clients ask."""

    movie_id: int
    top_n: int | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def quotes(self) -> int:
        """In a body that gives each field once; the values are numbers. One that gives a field twice is
        refused, and the decoder takes the last without a word."""
        return 2 if self.top_n is msgspec.UNSET else 4


class _PlainText(msgspec.Struct, forbid_unknown_fields=True):
    """The same by free text."""

    text: str
    top_n: int | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def quotes(self) -> int:
        """As above; the text's own are two, and one that holds another goes the ordinary way."""
        return 4 if self.top_n is msgspec.UNSET else 6


_decode_plain: Final = msgspec.json.Decoder(_Plain).decode
_decode_text: Final = msgspec.json.Decoder(_PlainText).decode
SMALL: Final = 20_000
"""Movies of an index that may be looked through, whole, in an event loop: a millisecond or two."""
SHORT: Final = 400
"""Bytes of a question whose words may be looked up there; each takes some fifty microseconds."""


def answer(served: Served, asked: Asked, caller: Caller, generation: int) -> tuple[Recommendation, Answer]:
    """Looks up, asks the index, logs, and only then answers.

    Parameters
    ----------
    generation : read before anything the answer is made from; see `predictions.log.writer.Entry`.

    Raises
    ------
    UnknownMovie, UnknownTitle, AmbiguousTitle : see `prepare`.
    predictions.log.writer.Stale, LogUnavailable, KeyReused : see `predictions.inference.pipeline.commit`.
    """
    made = prepare(served, asked, caller, generation)
    return made, pipeline.commit(made, generation)


def quick(served: Served, body: bytes, caller: Caller, generation: int) -> Recommendation | None:
    """The answer to a plain question, for a movie that the index holds or by a short text, without a look
    into the database or through many rows; None for any other."""
    withdrawn = withdrawals.peek(generation)
    if withdrawn is None:
        return None
    try:
        plain = _decode_plain(body)
    except msgspec.DecodeError:  # of which a validation error is one
        return _quick_by_text(served, body, caller, generation, withdrawn)
    engine = _engine(served)
    top_n = None if plain.top_n is msgspec.UNSET else plain.top_n
    if body.count(b'"') != plain.quotes:
        return None
    if not 1 <= plain.movie_id <= LARGEST_ID or not (top_n is None or 1 <= top_n <= MOST):
        return None
    kept = cache.of(engine, withdrawn)
    written = kept.get((plain.movie_id, top_n))
    if written is None:
        if plain.movie_id in withdrawn or not engine.holds(plain.movie_id):
            return None
        asked = Asked(movie_id=plain.movie_id, top_n=top_n)
        found = engine.at_hand(Question((Seed(movie_id=plain.movie_id),), asked.most), withdrawn)
        if found is None:
            return None
        matched = (plain.movie_id, engine.title(plain.movie_id))
        written = RenderedResponse.of(asked, found, found.reason, matched)
        kept.put((plain.movie_id, top_n), written)
    return Recommendation(served, caller, written, generation)


def _quick_by_text(
    served: Served, body: bytes, caller: Caller, generation: int, withdrawn: frozenset[int]
) -> Recommendation | None:
    engine = _engine(served)
    if len(body) > SHORT or len(engine) > SMALL:
        return None
    try:
        plain = _decode_text(body)
        asked = request.read(msgspec.to_builtins(plain))
    except (msgspec.DecodeError, InvalidRows):
        return None
    if body.count(b'"') != plain.quotes:
        return None
    found = engine.recommend(Question((Seed(text=asked.text),), asked.most), withdrawn)
    return Recommendation(served, caller, RenderedResponse.of(asked, found, found.reason), generation)


def prepare(served: Served, asked: Asked, caller: Caller, generation: int) -> Recommendation:
    """What is to be logged and answered.

    Raises
    ------
    UnknownMovie, UnknownTitle : what is named is not in the catalogue.
    AmbiguousTitle : it names the candidates.
    """
    engine, withdrawn = _engine(served), withdrawals.at(generation)
    seeds, matched = _seeds(engine, asked, withdrawn)
    seen: frozenset[int] = frozenset()
    reason = ""
    if asked.user is not None:
        taste = user_profile.of(asked.user)
        if asked.excludes_seen:
            seen = taste.seen
        if not seeds:
            seeds = _known(engine, taste.weights, left_out=asked.excludes_seen)
            if not seeds:
                reason = CANCELLED_OUT if taste.seen else NO_INTERACTIONS
    seeds += _listed(engine, asked.disliked, withdrawn, _DISLIKED)
    if reason:
        written = RenderedResponse.of(asked, Found(()), reason, matched)
        return Recommendation(served, caller, written, generation, asked.key)
    filters = Filters(
        asked.genres,
        asked.year_from,
        asked.year_to,
        asked.language and asked.language.lower(),
        frozenset(asked.exclude) | seen,
    )
    question = Question(tuple(seeds), asked.most, filters, asked.diversity or 0.0, asked.explains)
    found = engine.recommend(question, withdrawn)
    written = RenderedResponse.of(asked, found, found.reason, matched)
    return Recommendation(served, caller, written, generation, asked.key)


def _engine(served: Served) -> IndexEngine:
    return cast("IndexEngine", served.engine)


def _seeds(
    engine: IndexEngine, asked: Asked, withdrawn: frozenset[int]
) -> tuple[list[Seed], tuple[int, str] | None]:
    """What the question starts from, and the movie it was taken for."""
    if asked.text is not None:
        return [Seed(text=asked.text)], None
    if asked.liked:
        return _listed(engine, asked.liked, withdrawn, 1.0), None
    if asked.movie_id is not None:
        if engine.holds(asked.movie_id) and asked.movie_id not in withdrawn:
            return [Seed(movie_id=asked.movie_id)], (asked.movie_id, engine.title(asked.movie_id))
        movie = _rows([asked.movie_id])[asked.movie_id]
    elif asked.title is not None:
        movie = title_search.find(asked.title, engine, withdrawn)
    else:
        return [], None
    return [_seed(engine, movie, 1.0)], (movie.id, movie.title)


def _listed(engine: IndexEngine, ids: Iterable[int], withdrawn: frozenset[int], weight: float) -> list[Seed]:
    """A seed for each movie, in their order."""
    wanted = list(ids)
    rows = _rows([each for each in wanted if each in withdrawn or not engine.holds(each)])
    return [
        _seed(engine, rows[each], weight) if each in rows else Seed(weight, movie_id=each) for each in wanted
    ]


def _known(engine: IndexEngine, weights: dict[int, float], *, left_out: bool) -> list[Seed]:
    """Seeds of what a user did; movies that were withdrawn since still say what the user likes.

    left_out : whether these movies are not recommended again.
    """
    rows = Movie.objects.in_bulk([each for each in weights if not engine.holds(each)])
    return [
        Seed(weight, movie=_as_asked(rows[each]), left_out=left_out)
        if each in rows
        else Seed(weight, movie_id=each, left_out=left_out)
        for each, weight in weights.items()
    ]


def _seed(engine: IndexEngine, movie: Movie, weight: float) -> Seed:
    if engine.holds(movie.id):
        return Seed(weight, movie_id=movie.id)
    return Seed(weight, movie=_as_asked(movie))


def _as_asked(movie: Movie) -> query.Movie:
    """A movie that the index does not hold: it is weighed by the index's vocabulary."""
    return query.Movie(
        id=movie.id,
        title=movie.title,
        description=movie.description,
        genres=tuple(movie.genres),
        keywords=tuple(movie.keywords),
        year=movie.year,
        language=movie.language,
        popularity=movie.popularity,
    )


def _rows(ids: list[int]) -> dict[int, Movie]:
    """The movies of the catalogue with these ids.

    Raises
    ------
    UnknownMovie : one is not there, or was withdrawn.
    """
    found = Movie.objects.filter(withdrawn_at__isnull=True).in_bulk(ids) if ids else {}
    for each in ids:
        if each not in found:
            raise UnknownMovie(each)
    return found
