"""The fast lane: a valid prediction answered without Django's request, the ORM or DRF on its way.

It answers or it declines, and never refuses. What it does not recognise at once (another method, a
parameter, an unusual header, a key or version it has not met, a body that is not plainly valid, a model
served by scikit-learn, a question that takes a look into the movies' catalogue) goes the ordinary way through
Django, which knows every case and every fault; that request teaches it key, version and spelling for the
next. It asks no database: what it knows may be stale, and the log's fence notices that, whereupon the request
goes the ordinary way as well. Its answers carry what Django's would, header by header; a test compares the
two.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from django.conf import settings
from django.http import UnreadablePostError
from django.http.request import split_domain_port, validate_host
from uuid_utils import uuid7

from config import asking, errors, routes
from config.asking import Asked
from config.deadlines import Limits
from predictions import inference, shadowing
from predictions import log as prediction_log
from predictions.errors import LogUnavailable, NotStorable, OutcomeUnknown, PredictionFailed
from predictions.inference import Caller, Committable
from predictions.tutorials import ChurnTutorialView, HousesTutorialView, churn_answer, house_answer
from recommender.answers import titles
from recommender.declaration import NAME as MOVIES
from recommender.services.answering import quick
from training.schema import InvalidRows
from training.services import idempotency, keys, serving, snapshot

log = logging.getLogger(__name__)

ACTIVE: Final = re.compile(r"/api/v1/models/([a-z][a-z0-9_]{0,49})/predictions/")
VERSION: Final = re.compile(r"/api/v1/models/([a-z][a-z0-9_]{0,49})/versions/([1-9]\d{0,8})/predictions/")
GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# As clients send them; whatever else is negotiated by DRF.
ACCEPTED: Final = frozenset(
    ("", "*/*", "application/json", "application/json, */*", "application/json, text/plain, */*")
)
CONTENT_TYPES: Final = frozenset(
    ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
)
Asks = Callable[[serving.Served, bytes, Caller, int], Committable | None]
Shape = Callable[[dict[str, Any]], dict[str, Any]]
TUTORIALS: Final[dict[str, tuple[str, Shape, Asks | None]]] = {
    "/predict": (ChurnTutorialView.model_name, lambda given: churn_answer(given["predictions"][0]), None),
    "/predecir": (HousesTutorialView.model_name, lambda given: house_answer(given["predictions"][0]), None),
    "/recommend": (MOVIES, titles, quick),
}
UNREADABLE: Final = {
    400: ("malformed", "this cannot be read as an HTTP request"),
    414: ("too_large", "the address is too long"),
    417: ("malformed", "this expectation cannot be met"),
    431: ("too_large", "the headers are too long"),
    500: ("internal_error", errors.UNKNOWN),
    501: ("length_required", "send a Content-Length instead of this transfer coding"),
    503: ("busy", "too many bodies are being read slowly; send the request again later"),
}
KNOWN_PLACES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """A route of this lane.

    number : of the version; None for the active one. headers : of its answers.
    route : its name in the metrics, see `config.routes`.
    shape : for a route that takes one object and answers in a shape of its own, what becomes of our answer.
    asks : for a route of an application above: answers a body, or declines it; see
        `recommender.services.answering.quick`.
    """

    model: str
    number: int | None
    headers: tuple[tuple[str, str], ...]
    route: str
    shape: Shape | None = None
    asks: Asks | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer on its way into the log. Its entry is not submitted yet.

    since : when its request was complete, by `time.perf_counter`.
    body : of the answer, where it was written already.
    """

    entry: prediction_log.Entry
    prepared: Committable
    place: Place
    since: float
    body: bytes | None = None

    def submit(self) -> Reply | None:
        """Queues the entry; a refusal when there is no room for it."""
        try:
            prediction_log.writer().submit(self.entry)
        except LogUnavailable as error:
            return self.refused(error)
        return None

    def give_up(self) -> Reply:
        """The refusal when the commit took too long."""
        if self.entry.is_released:  # in this very moment
            return self.finish() or self.refused(LogUnavailable())
        gone = prediction_log.writer().withdraw(self.entry)
        return self.refused(LogUnavailable() if gone else OutcomeUnknown())

    def finish(self) -> Reply | None:
        """The reply once the entry was released; None when the request has to go the ordinary way."""
        request_id = self.prepared.caller.request_id
        error = self.entry.error
        if error is None:
            body = self.written() if self.body is None else self.body
            headers = [*self.place.headers, ("Content-Length", str(len(body))), ("X-Request-ID", request_id)]
            self.prepared.count(self.place.route, time.perf_counter() - self.since)
            return Reply(200, headers, body)
        if isinstance(error, (prediction_log.Stale, prediction_log.AlreadyAnswered)):
            return None
        if not isinstance(error, (LogUnavailable, NotStorable)):
            log.error("a prediction was not answered", exc_info=error)
        return self.refused(error)

    def written(self) -> bytes:
        """The answer's body."""
        if self.place.shape is None:
            return self.prepared.body()
        return inference.encode(self.place.shape(self.prepared.as_dict()))

    def refused(self, error: Exception) -> Reply:
        """The one error shape; what failed was the log, so it is not tried again on the ordinary way."""
        status, described, extra = errors.describe(error)
        if status is None:
            status, described = 500, {"code": "internal_error", "message": errors.UNKNOWN}
        headers = [*self.place.headers, *extra.items()]
        return _refusal(status, described, headers, self.prepared.caller.request_id, self.place.route)


def _refusal(
    status: int,
    described: dict[str, Any],
    headers: list[tuple[str, str]],
    request_id: str,
    route: str = routes.UNKNOWN,
) -> Reply:
    errors.count(described)
    routes.count(route, "POST" if route != routes.UNKNOWN else "", status)
    body = inference.encode({"error": described | {"request_id": request_id}})
    return Reply(status, [*headers, ("Content-Length", str(len(body))), ("X-Request-ID", request_id)], body)


class Lane:
    """Made once per process, from the settings."""

    def __init__(self) -> None:
        # With a limit on requests per key every one of them has to be counted, which is DRF's work.
        self.open = not settings.RATE_LIMIT and not settings.DEBUG
        self._https = settings.SECURE_SSL_REDIRECT or bool(settings.SECURE_HSTS_SECONDS)
        self.limits = Limits(
            silence=settings.BODY_SILENCE_SECONDS,
            head=settings.HEAD_SECONDS,
            body=settings.BODY_SECONDS,
            answer=settings.ANSWER_SECONDS,
            rate=settings.CLIENT_BYTES_PER_SECOND,
        )
        self.wait_seconds = settings.LOG_WAIT_SECONDS
        self._places: dict[str, Place] = {}
        self._hosts: dict[str, bool] = {}

    def _place(self, path: str) -> Place | None:
        """What is asked under a path that may be answered here; None for another path."""
        known = self._places.get(path)
        if known is not None:
            return known
        if found := ACTIVE.fullmatch(path):
            allowed = _headers("GET, POST, HEAD, OPTIONS", secure=self._https)
            known = Place(found[1], None, allowed, routes.ACTIVE)
        elif found := VERSION.fullmatch(path):
            allowed = _headers("POST, OPTIONS", secure=self._https)
            known = Place(found[1], int(found[2]), allowed, routes.VERSION)
        elif path in TUTORIALS:
            model, shape, asks = TUTORIALS[path]
            known = Place(model, None, _headers("POST, OPTIONS", secure=self._https), path, shape, asks)
        elif path == routes.RECOMMENDATIONS:
            allowed = _headers("GET, POST, HEAD, OPTIONS", secure=self._https)
            known = Place(MOVIES, None, allowed, path, asks=quick)
        if known is not None and len(self._places) < KNOWN_PLACES:
            self._places[path] = known
        return known

    def incomplete(self) -> Reply:
        """The refusal of a request that was announced and did not come whole."""
        status, described, headers = errors.describe(UnreadablePostError())
        fixed = [("Content-Type", "application/json"), *headers.items()]
        return _refusal(status or 400, described, fixed, str(uuid7()))

    def unreadable(self, status: int) -> Reply:
        """The refusal of bytes that are no request, or of a head that is too long."""
        code, message = UNREADABLE.get(status, UNREADABLE[400])
        fixed = [("Content-Type", "application/json"), *([("Retry-After", "10")] if status == 503 else [])]
        return _refusal(status, {"code": code, "message": message}, fixed, str(uuid7()))

    def begin_with(
        self, fields: dict[str, str], body: bytes, done: Callable[[prediction_log.Entry], None]
    ) -> Begun | None:
        """`begin` for a caller that has the fields of `Asked` by name."""
        return self.begin(Asked(**fields), body, done)

    def takes(self, fields: dict[str, str], length: int) -> bool:
        """Whether a body of so many bytes, from whom these fields name, is worth waiting for."""
        return 0 < length <= settings.PREDICT_MAX_BYTES and self._welcome(Asked(**fields)) is not None

    def begin_whole(
        self, fields: dict[str, str], body: bytes, done: Callable[[prediction_log.Entry], None]
    ) -> Begun | None:
        """`begin_with`, and the answer's body is written already: for a thread that has the time."""
        begun = self.begin(Asked(**fields), body, done)
        return None if begun is None else replace(begun, body=begun.written())

    def begin(
        self, asked: Asked, body: bytes, done: Callable[[prediction_log.Entry], None] | None = None
    ) -> Begun | None:
        """An answer that may go out once its entry is committed, or None: the request is not for this lane.

        Parameters
        ----------
        done : see `predictions.log.Entry`.
        """
        since = time.perf_counter()
        welcome = self._welcome(asked)
        if welcome is None or not 0 < len(body) <= settings.PREDICT_MAX_BYTES:
            return None
        place, served, client, named, generation = welcome
        idempotency_key, digest = asked.idempotency_key or None, ""
        if idempotency_key is not None:
            if not idempotency.is_valid_key(idempotency_key):
                return None
            hashed = hashlib.sha256(body).hexdigest()
            digest = idempotency.request_sha256(asked.path, asked.content_type, hashed)
        given = asked.request_id
        request_id = given if given and GIVEN_ID.fullmatch(given) else str(uuid7())
        caller = Caller(client.user_id, request_id, idempotency_key, digest)
        if place.asks is not None:
            answer = place.asks(served, body, caller, generation)
            return (
                None if answer is None else Begun(answer.entry(generation, done=done), answer, place, since)
            )
        rows = served.compiled.decode(body, settings.PREDICT_MAX_ROWS)
        if rows is None or (place.shape is not None and body.lstrip()[:1] != b"{"):
            return None
        try:
            prepared = inference.prepare(served, rows, caller, generation)
        except (InvalidRows, PredictionFailed):
            return None
        then = shadowing.after(named, prepared, done)
        return Begun(prepared.entry(generation, done=then), prepared, place, since)

    def _welcome(
        self, asked: Asked
    ) -> tuple[Place, serving.Served, snapshot.Client, snapshot.Named, int] | None:
        """Where this goes, what answers, who asks, the arm that is, and the generation all that is known
        from; or None."""
        known = snapshot.peek()
        key = keys.key_of(asked.authorization)
        if (
            known is None
            or key is None
            or not self.open
            or asked.accept not in ACCEPTED
            or asked.content_type.lower() not in CONTENT_TYPES
            or (self._https and not _came_by_https(asked))
        ):
            return None
        client = known.peek_client(key)
        # Only for who has a key: what is remembered of places and hosts is not for strangers to fill.
        place = None if client is None or not self._is_ours(asked.host) else self._place(asked.path)
        named = None
        if client is not None and place is not None:
            named = known.peek_version(place.model, place.number, client.user_id)
        if client is None or place is None or named is None or named.model_id not in client.may_predict:
            return None
        served = serving.peek(named.version_id)
        if served is None or not (served.engine.takes_matrix or place.asks is not None):
            return None
        return place, served, client, named, known.generation

    def answer(self, environ: dict[str, Any]) -> Reply | None:
        """The reply to a WSGI request; None, with its body unread again, when it is not for this lane.

        The calling thread waits for the commit.
        """
        asked = asking.asked_of(environ) if self.open else None
        length = environ.get("CONTENT_LENGTH") or ""
        if asked is None or not (length.isascii() and length.isdigit()):
            return None
        # Before the body is read: a stranger's is not for us to wait for.
        if not 0 < int(length) <= settings.PREDICT_MAX_BYTES or self._welcome(asked) is None:
            return None
        body = asking.body_of(environ, int(length))
        begun = None if body is None else self.begin(asked, body)
        if begun is None:
            return None
        try:
            prediction_log.append(begun.entry)
        except (LogUnavailable, NotStorable) as error:
            return begun.refused(error)
        except (prediction_log.Stale, prediction_log.AlreadyAnswered):
            return None
        return begun.finish()

    def _is_ours(self, host: str) -> bool:
        try:
            return self._hosts[host]
        except KeyError:
            pass
        domain, _ = split_domain_port(host)
        ours = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
        if ours and len(self._hosts) < KNOWN_PLACES:
            self._hosts[host] = ours
        return ours


def _came_by_https(asked: Asked) -> bool:
    """Whether Django would say so, by the one header it is told to trust."""
    trusted = settings.SECURE_PROXY_SSL_HEADER
    return bool(trusted) and trusted[0] == "HTTP_X_FORWARDED_PROTO" and asked.forwarded_proto == trusted[1]


def _headers(allowed: str, *, secure: bool) -> tuple[tuple[str, str], ...]:
    """What DRF and Django's middleware put on every such answer."""
    found = [
        ("Content-Type", "application/json"),
        ("Vary", "Accept"),
        ("Allow", allowed),
        ("X-Frame-Options", settings.X_FRAME_OPTIONS),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", settings.SECURE_REFERRER_POLICY),
        ("Cross-Origin-Opener-Policy", settings.SECURE_CROSS_ORIGIN_OPENER_POLICY),
    ]
    if secure and settings.SECURE_HSTS_SECONDS:
        parts = [f"max-age={settings.SECURE_HSTS_SECONDS}"]
        parts += ["includeSubDomains"] if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS else []
        parts += ["preload"] if settings.SECURE_HSTS_PRELOAD else []
        found.append(("Strict-Transport-Security", "; ".join(parts)))
    return tuple(found)
