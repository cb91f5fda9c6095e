"""Answers recommendation requests: looks up movies, queries the index, and logs before responding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

import msgspec

from predictions.inference import pipeline
from predictions.inference.pipeline import Answer, Caller
from recommender.catalogue import title_search, withdrawals
from recommender.errors import UnknownMovie
from recommender.index import query
from recommender.index.engine import IndexEngine
from recommender.index.query import LARGEST_TOP, Filters, Found, Question, Seed
from recommender.models import Movie
from recommender.recommendations import cache, user_profile
from recommender.recommendations import request as request_parsing
from recommender.recommendations.request import LARGEST_ID, RecommendationRequest
from recommender.recommendations.response import Recommendation, RenderedResponse
from training.serving.engine_cache import Served
from vigia_ml.schema import InvalidRows

NO_INTERACTIONS: Final = "no_interactions"
CANCELLED_OUT: Final = "nothing_to_compare"
"""Reason for a user whose interactions add up to zero."""
_DISLIKED: Final = -1.0


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """The most frequent requests: movies similar to one movie, or movies that match a free text."""

    movie_id: int | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    top_n: int | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def quotes(self) -> int:
        """Number of quotation marks in a body without repeated fields: two around each name and around the
        text; a text that holds one declines the fast path. The decoder keeps the last of repeated fields
        silently, but a request with repeated fields must be refused."""
        unset = msgspec.UNSET
        names = (self.movie_id is not unset) + (self.text is not unset) + (self.top_n is not unset)
        return 2 * names + 2 * (self.text is not unset)


_decode_plain: Final = msgspec.json.Decoder(_Plain).decode
SMALL: Final = 20_000
"""Most movies of an index that an event loop may scan for a text: it takes a millisecond or two."""
SHORT: Final = 400
"""Most bytes of such a request; looking up each word takes some fifty microseconds."""


def answer(
    served: Served, request: RecommendationRequest, caller: Caller, generation: int
) -> tuple[Recommendation, Answer]:
    """Returns a recommendation and the answer that holds it, committed to the log.

    generation : read before all data of the answer; see `predictions.log.writer.Entry`. Raises as `prepare`
    and `predictions.inference.pipeline.commit` do.
    """
    recommendation = prepare(served, request, caller, generation)
    return recommendation, pipeline.commit(recommendation, generation)


def quick(served: Served, body: bytes, caller: Caller, generation: int) -> Recommendation | None:
    """Returns the recommendation for a plain request (a movie that the index holds, or a short text) without
    a query of the database and without scanning many rows; None for any other request."""
    withdrawn = withdrawals.peek(generation)
    if withdrawn is None:
        return None
    try:
        plain = _decode_plain(body)
    except msgspec.DecodeError:  # a validation error is one, too
        return None
    if body.count(b'"') != plain.quotes:
        return None
    if plain.movie_id is msgspec.UNSET:
        return _quick_by_text(served, body, plain, caller, generation, withdrawn)
    engine = _engine(served)
    top_n = None if plain.top_n is msgspec.UNSET else plain.top_n
    if plain.text is not msgspec.UNSET or not 1 <= plain.movie_id <= LARGEST_ID:
        return None
    if not (top_n is None or 1 <= top_n <= LARGEST_TOP):
        return None
    responses = cache.of(engine, withdrawn)
    response = responses.get((plain.movie_id, top_n))
    if response is None:
        if plain.movie_id in withdrawn or not engine.holds(plain.movie_id):
            return None
        request = RecommendationRequest(movie_id=plain.movie_id, top_n=top_n)
        result = engine.at_hand(Question((Seed(movie_id=plain.movie_id),), request.most), withdrawn)
        if result is None:
            return None
        matched = (plain.movie_id, engine.title(plain.movie_id))
        response = RenderedResponse.of(request, result, result.reason, matched)
        responses.put((plain.movie_id, top_n), response)
    return Recommendation(served, caller, response, generation)


def _quick_by_text(
    served: Served, body: bytes, plain: _Plain, caller: Caller, generation: int, withdrawn: frozenset[int]
) -> Recommendation | None:
    engine = _engine(served)
    if len(body) > SHORT or len(engine) > SMALL:
        return None
    try:
        request = request_parsing.read(msgspec.to_builtins(plain))
    except InvalidRows:
        return None
    result = engine.recommend(Question((Seed(text=request.text),), request.most), withdrawn)
    return Recommendation(served, caller, RenderedResponse.of(request, result, result.reason), generation)


def prepare(
    served: Served, request: RecommendationRequest, caller: Caller, generation: int
) -> Recommendation:
    """Returns the recommendation for a request, not yet logged. Raises `UnknownMovie` and as
    `title_search.find` does."""
    engine, withdrawn = _engine(served), withdrawals.at(generation)
    seeds, matched = _seeds(engine, request, withdrawn)
    seen: frozenset[int] = frozenset()
    reason = ""
    if request.user is not None:
        profile = user_profile.of(request.user)
        if request.excludes_seen:
            seen = profile.seen
        if not seeds:
            seeds = _profile_seeds(engine, profile.weights, left_out=request.excludes_seen)
            if not seeds:
                reason = CANCELLED_OUT if profile.seen else NO_INTERACTIONS
    seeds += _listed(engine, request.disliked, withdrawn, _DISLIKED)
    result = Found(())
    if not reason:
        filters = Filters(
            request.genres,
            request.year_from,
            request.year_to,
            request.language and request.language.lower(),
            frozenset(request.exclude) | seen,
        )
        question = Question(tuple(seeds), request.most, filters, request.diversity or 0.0, request.explains)
        result = engine.recommend(question, withdrawn)
        reason = result.reason
    response = RenderedResponse.of(request, result, reason, matched)
    return Recommendation(served, caller, response, generation, request.key)


def _engine(served: Served) -> IndexEngine:
    return cast("IndexEngine", served.engine)


def _seeds(
    engine: IndexEngine, request: RecommendationRequest, withdrawn: frozenset[int]
) -> tuple[list[Seed], tuple[int, str] | None]:
    """Returns the seeds of a request, and (id, title) of the movie that it names."""
    if request.text is not None:
        return [Seed(text=request.text)], None
    if request.liked:
        return _listed(engine, request.liked, withdrawn, 1.0), None
    if request.movie_id is not None:
        if engine.holds(request.movie_id) and request.movie_id not in withdrawn:
            return [Seed(movie_id=request.movie_id)], (request.movie_id, engine.title(request.movie_id))
        movie = _rows([request.movie_id])[request.movie_id]
    elif request.title is not None:
        movie = title_search.find(request.title, engine, withdrawn)
    else:
        return [], None
    return [_seed(engine, movie.id, {movie.id: movie}, 1.0)], (movie.id, movie.title)


def _listed(engine: IndexEngine, ids: Iterable[int], withdrawn: frozenset[int], weight: float) -> list[Seed]:
    """Returns a seed for each movie, in the order of the ids."""
    ids = list(ids)
    rows = _rows([each for each in ids if each in withdrawn or not engine.holds(each)])
    return [_seed(engine, each, rows, weight) for each in ids]


def _profile_seeds(engine: IndexEngine, weights: dict[int, float], *, left_out: bool) -> list[Seed]:
    """Returns the seeds of a user profile; withdrawn movies still count.

    left_out : whether to exclude these movies from the result.
    """
    rows = Movie.objects.in_bulk([each for each in weights if not engine.holds(each)])
    return [_seed(engine, each, rows, weight, left_out) for each, weight in weights.items()]


def _seed(
    engine: IndexEngine, movie_id: int, rows: Mapping[int, Movie], weight: float, left_out: bool = True
) -> Seed:
    """Returns the seed of a movie. The index's vocabulary weighs the row of a movie that the index does not
    hold."""
    if engine.holds(movie_id):
        return Seed(weight, movie_id=movie_id, left_out=left_out)
    movie = query.Movie.of(getattr(rows[movie_id], name) for name in query.MOVIE_FIELDS)
    return Seed(weight, movie=movie, left_out=left_out)


def _rows(ids: list[int]) -> dict[int, Movie]:
    """Returns the movies with these ids. Raises `UnknownMovie` for a missing or withdrawn movie."""
    rows = Movie.objects.filter(withdrawn_at__isnull=True).in_bulk(ids) if ids else {}
    for each in ids:
        if each not in rows:
            raise UnknownMovie(each)
    return rows
