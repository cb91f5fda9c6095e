"""An answer of the recommender on its way out: what goes into the log and what goes out.

One recommendation is one row of the prediction log, however many movies it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from core.metrics import counters
from core.uuid7 import log_ids
from predictions.inference import pipeline
from predictions.inference.pipeline import Caller
from predictions.log.writer import Done, Entry
from recommender.index.query import Found
from recommender.recommendations.request import Asked
from recommender.telemetry import EMPTY, RECOMMENDATIONS, SECONDS
from training.serving.engine_cache import Served

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_NONE: Final = b"[]"


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """What of an answer is the same whoever asks and whenever, as it goes into the log and out.

    question, movies : cells of the log's row. rest : of the body, behind its id. empty : it names no movie.
    """

    question: bytes
    movies: bytes
    rest: bytes
    empty: bool

    @classmethod
    def of(
        cls, asked: Asked, found: Found, reason: str = "", matched: tuple[int, str] | None = None
    ) -> RenderedResponse:
        """matched : the movie a title or an id was taken for; None where the question names none.
        reason : why nothing was found; empty when something was.
        """
        given = []
        for each in found.items:
            item: dict[str, Any] = {
                "movie_id": each.movie_id,
                "title": each.title,
                "year": each.year,
                "genres": each.genres,
                "score": each.score,
            }
            if asked.explains:
                item["because"] = [
                    {"field": why.field, "term": why.term, "share": why.share} for why in each.because
                ]
            given.append(item)
        body: dict[str, Any] = {"basis": found.basis, "recommendations": given}
        if matched is not None:
            body["matched"] = {"movie_id": matched[0], "title": matched[1]}
        if not given:
            body["reason"] = reason
        movies = [{"movie_id": each.movie_id, "score": each.score} for each in found.items]
        return cls(_encode(asked.cells()), _encode(movies), _encode(body)[1:], not given)

    @property
    def bytes(self) -> int:
        """How large it is."""
        return len(self.question) + len(self.movies) + len(self.rest)


@dataclass(frozen=True)
class Recommendation:
    """What was found, for somebody; see `predictions.inference.pipeline.Committable`.

    generation : see `predictions.log.writer.Entry`; the answer gets no earlier time.
    key : the client's own reference for the question.
    """

    served: Served
    caller: Caller
    written: RenderedResponse
    generation: int
    key: str | None = None

    @cached_property
    def id(self) -> str:
        return log_ids(1, self.generation)[0].decode()

    @cached_property
    def _body(self) -> bytes:
        served = self.served
        head = f'{{"model":"{served.model_name}","version":{served.number},"id":"{self.id}",'
        return head.encode() + self.written.rest

    def body(self) -> bytes:
        """The answer as it goes out."""
        return self._body

    def as_dict(self) -> dict[str, Any]:
        """The same, to be put into another shape."""
        return _decode(self._body)

    def entry(self, generation: int, *, done: Done | None = None) -> Entry:
        """The row of the log: the question, and the movies with their scores."""
        served, caller, written = self.served, self.caller, self.written
        row = (
            self.id.encode(),
            b"%d" % served.model_id,
            b"%d" % served.version_id,
            None if caller.client_id is None else b"%d" % caller.client_id,
            None if self.key is None else self.key.encode(),
            written.question,
            written.movies,
            None,
            _NONE,
            caller.request_id.encode(),
        )
        return Entry([row], generation, claim=pipeline.claim_of(caller, self.body), done=done)

    def count(self, route: str, seconds: float) -> None:
        """For the metrics, once it goes out."""
        served = self.served
        counters.answered(route, served, (_NONE,), seconds, classes=False)
        labels = (served.model_name, str(served.number))
        counters.count(RECOMMENDATIONS, *labels)
        counters.observe(SECONDS, labels, seconds)
        if self.written.empty:
            counters.count(EMPTY, *labels)


def titles(body: dict[str, Any]) -> dict[str, Any]:
    """One of our answers as the clients of ``/recommend`` know it."""
    return {"recommendations": [each["title"] for each in body["recommendations"]]}
