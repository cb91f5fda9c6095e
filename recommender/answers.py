"""An answer of the recommender on its way out: what goes into the log and what goes out.

One recommendation is one row of the prediction log, however many movies it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec
from uuid_utils import uuid7

from predictions import inference
from predictions.inference import Caller
from predictions.log import Done, Entry
from recommender.index.asking import Found
from recommender.questions import Asked
from recommender.telemetry import EMPTY, RECOMMENDATIONS, SECONDS
from training.services.serving import Served
from training.telemetry import counting

_encode: Final = msgspec.json.Encoder().encode
_NONE: Final = b"[]"


@dataclass(frozen=True)
class Recommendation:
    """What was found, for somebody; see `predictions.inference.Committable`.

    matched : the movie a title or an id was taken for; None where the question names none.
    reason : why nothing was found; empty when something was.
    """

    served: Served
    caller: Caller
    asked: Asked
    found: Found
    reason: str = ""
    matched: tuple[int, str] | None = None

    @cached_property
    def id(self) -> str:
        return str(uuid7())

    def as_dict(self) -> dict[str, Any]:
        """The answer as it goes out."""
        explains = self.asked.explains
        given = []
        for each in self.found.items:
            item: dict[str, Any] = {
                "movie_id": each.movie_id,
                "title": each.title,
                "year": each.year,
                "genres": each.genres,
                "score": each.score,
            }
            if explains:
                item["because"] = [
                    {"field": why.field, "term": why.term, "share": why.share} for why in each.because
                ]
            given.append(item)
        body: dict[str, Any] = {
            "model": self.served.model_name,
            "version": self.served.number,
            "id": self.id,
            "basis": self.found.basis,
            "recommendations": given,
        }
        if self.matched is not None:
            body["matched"] = {"movie_id": self.matched[0], "title": self.matched[1]}
        if not given:
            body["reason"] = self.reason
        return body

    @cached_property
    def _body(self) -> bytes:
        return _encode(self.as_dict())

    def body(self) -> bytes:
        return self._body

    def entry(self, generation: int, *, done: Done | None = None) -> Entry:
        """The row of the log: the question, and the movies with their scores."""
        served, caller = self.served, self.caller
        given = [{"movie_id": each.movie_id, "score": each.score} for each in self.found.items]
        row = (
            self.id.encode(),
            b"%d" % served.model_id,
            b"%d" % served.version_id,
            None if caller.client_id is None else b"%d" % caller.client_id,
            None if self.asked.key is None else self.asked.key.encode(),
            _encode(self.asked.cells()),
            _encode(given),
            None,
            _NONE,
            caller.request_id.encode(),
        )
        return Entry([row], generation, claim=inference.claim_of(caller, self.body), done=done)

    def count(self, route: str, seconds: float) -> None:
        """For the metrics, once it goes out."""
        served = self.served
        counting.answered(route, served, (_NONE,), seconds, classes=False)
        labels = (served.model_name, str(served.number))
        counting.count(RECOMMENDATIONS, *labels)
        counting.observe(SECONDS, labels, seconds)
        if not self.found.items:
            counting.count(EMPTY, *labels)


def titles(body: dict[str, Any]) -> dict[str, Any]:
    """One of our answers as the clients of ``/recommend`` know it."""
    return {"recommendations": [each["title"] for each in body["recommendations"]]}
