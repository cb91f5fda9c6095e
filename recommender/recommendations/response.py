"""The recommender's responses: their body for the client and their row for the log.

One recommendation is one row of the prediction log, however many movies it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import msgspec

from core.metrics import counters
from core.uuid7 import log_ids
from predictions.inference import pipeline
from predictions.inference.pipeline import Caller
from predictions.log.statements import LogRows
from predictions.log.writer import Done, Entry
from recommender.index.query import Found, Recommended
from recommender.recommendations.request import RecommendationRequest
from recommender.telemetry import EMPTY, RECOMMENDATIONS, SECONDS
from training.serving.engine_cache import Served

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_NONE: Final = b"[]"
_UNEXPLAINED: Final = [each.name for each in fields(Recommended) if each.name != "because"]


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """The encoded part of a response that is the same for every client at any time.

    question, movies : cells of the log's row. rest : the body after its id. empty : whether it has no movie.
    """

    question: bytes
    movies: bytes
    rest: bytes
    empty: bool

    @classmethod
    def of(
        cls,
        request: RecommendationRequest,
        result: Found,
        reason: str = "",
        matched: tuple[int, str] | None = None,
    ) -> RenderedResponse:
        """Renders the result of the index.

        reason : code that says why the result is empty; "" if it is not. matched : (id, title) of the movie
        that the request's title or id names; None if the request names no movie.
        """
        items: Sequence[Any] = result.items
        if not request.explains:
            items = [{name: getattr(each, name) for name in _UNEXPLAINED} for each in items]
        body: dict[str, Any] = {"basis": result.basis, "recommendations": items}
        if matched is not None:
            body["matched"] = {"movie_id": matched[0], "title": matched[1]}
        if not items:
            body["reason"] = reason
        movies = [{"movie_id": each.movie_id, "score": each.score} for each in result.items]
        return cls(_encode(request.cells()), _encode(movies), _encode(body)[1:], not items)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return len(self.question) + len(self.movies) + len(self.rest)


@dataclass(frozen=True)
class Recommendation:
    """One recommendation for one client; see `predictions.inference.pipeline.Committable`.

    generation : see `predictions.log.writer.Entry`; the id's time is not earlier than the generation.
    key : the client's own reference for the request.
    """

    served: Served
    caller: Caller
    response: RenderedResponse
    generation: int
    key: str | None = None

    @cached_property
    def id(self) -> str:
        return log_ids(1, self.generation)[0].decode()

    @cached_property
    def _body(self) -> bytes:
        served = self.served
        head = f'{{"model":"{served.model_name}","version":{served.number},"id":"{self.id}",'
        return head.encode() + self.response.rest

    def body(self) -> bytes:
        """Returns the encoded body."""
        return self._body

    def as_dict(self) -> dict[str, Any]:
        """Returns the decoded body."""
        return _decode(self._body)

    def entry(self, generation: int, *, done: Done | None = None) -> Entry:
        """Returns the row of the log: the request, and the movies with their scores."""
        caller, response = self.caller, self.response
        row = LogRows(
            pipeline.origin_of(self.served, caller),
            ids=[self.id.encode()],
            inputs=response.question + b"\n",
            predictions=[response.movies],
            keys=None if self.key is None else [self.key.encode()],
        )
        return Entry(row, generation, claim=pipeline.claim_of(caller, self.body), done=done)

    def count(self, route: str, seconds: float) -> None:
        """Counts the response in the metrics."""
        served = self.served
        counters.answered(route, served, (_NONE,), seconds, classes=False)
        labels = (served.model_name, str(served.number))
        counters.count(RECOMMENDATIONS, *labels)
        counters.observe(SECONDS, labels, seconds)
        if self.response.empty:
            counters.count(EMPTY, *labels)


def titles(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body in the format of ``/recommend``: titles only."""
    return {"recommendations": [each["title"] for each in body["recommendations"]]}
