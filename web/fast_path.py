"""The fast path: it answers valid predictions without Django's request, the ORM or DRF.

The fast path answers a request or declines it; it never refuses one. It declines other methods, parameters,
unusual headers, unknown keys and versions, bodies that are not plainly valid, models that scikit-learn
serves, and recommendations that need the movies' catalogue. Django answers a declined request; that loads the
key, the version and the spelling for the next request. The fast path sends no queries: its snapshot may be
stale, the log's fence notices that, and Django answers the request. Its answers have the same body and
headers as Django's; a test compares them.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from django.conf import settings
from django.http import UnreadablePostError
from django.http.request import split_domain_port, validate_host
from rest_framework.throttling import UserRateThrottle
from uuid_utils import uuid7

from predictions.errors import LogUnavailable, NotStorable, OutcomeUnknown, PredictionFailed, TooManyRows
from predictions.inference import pipeline, reading
from predictions.inference.pipeline import Caller, Committable, Prepared
from predictions.log import writer as prediction_log
from predictions.rollouts import shadow_worker
from predictions.views.legacy_routes import ChurnTutorialView, HousesTutorialView, churn_answer, house_answer
from recommender.declaration import NAME as MOVIES
from recommender.recommendations.response import titles
from recommender.recommendations.service import quick
from training import idempotency
from training.access import client_keys
from training.serving import engine_cache, routing
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.row_decoder import Rows
from web import errors, route_labels
from web.error_shapes import shaped
from web.limits import HEAD_BYTES, INLINE_BYTES, INLINE_CSV_BYTES
from web.protocol import HeaderBlock
from web.protocols import fast_routes
from web.protocols.fast import FastProtocol, HeaderLines

log = logging.getLogger(__name__)

ACTIVE: Final = re.compile(r"/api/v1/models/([a-z][a-z0-9_]{0,49})/predictions/")
VERSION: Final = re.compile(r"/api/v1/models/([a-z][a-z0-9_]{0,49})/versions/([1-9]\d{0,8})/predictions/")
GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Common values of Accept; DRF negotiates all others.
ACCEPTED: Final = frozenset(
    (b"", b"*/*", b"application/json", b"application/json, */*", b"application/json, text/plain, */*")
)
JSON_TYPES: Final = frozenset(
    (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)
CSV_TYPES: Final = frozenset((b"text/csv", b"text/csv; charset=utf-8", b"text/csv;charset=utf-8"))
RouteKind = Callable[[engine_cache.Served, bytes, Caller, int], Committable | None]
Shape = Callable[[dict[str, Any]], dict[str, Any]]
TUTORIALS: Final[dict[str, tuple[str, Shape, RouteKind | None]]] = {
    "/predict": (ChurnTutorialView.model_name, lambda answer: churn_answer(answer["predictions"][0]), None),
    "/predecir": (HousesTutorialView.model_name, lambda answer: house_answer(answer["predictions"][0]), None),
    "/recommend": (MOVIES, titles, quick),
}
UNREADABLE: Final = {
    400: ("malformed", "the bytes are no valid HTTP request"),
    413: ("too_large", "the body is too large"),
    431: ("too_large", f"request line and headers have more than the accepted {HEAD_BYTES:,} bytes"),
    500: ("internal_error", errors.UNKNOWN),
    503: ("busy", "too many large bodies wait in this process; send the request again later"),
}
KNOWN_ROUTES: Final = 1_000
ADMISSIONS: Final = 5_000


class RequestHead(msgspec.Struct, gc=False):
    """The head of a POST without query string. Header values are raw; b"" means absent."""

    path: str
    host: bytes = b""
    authorization: bytes = b""
    content_type: bytes = b""
    accept: bytes = b""
    request_id: bytes = b""
    forwarded_proto: bytes = b""
    idempotency_key: bytes = b""
    json_length: bytes = b""


_FIELDS: Final = {
    b"host": "host",
    b"authorization": "authorization",
    b"content-type": "content_type",
    b"accept": "accept",
    b"x-request-id": "request_id",
    b"x-forwarded-proto": "forwarded_proto",
    b"idempotency-key": "idempotency_key",
    b"inference-header-content-length": "json_length",
}
_NEVER: Final = frozenset((b"content-encoding", b"upgrade", b"x-http-method-override"))


def request_head(scope: Any) -> RequestHead | None:
    """Returns the head of a request that the fast path may take; None for any other head."""
    if scope["method"] != "POST" or scope["query_string"] or scope["http_version"] != "1.1":
        return None
    path = scope["path"]
    if not path.isascii() or "%" in scope["raw_path"].decode("ascii", "replace"):
        return None
    fields = {}
    for name, value in scope["headers"]:
        field = _FIELDS.get(name)
        if field is not None:
            if field in fields or not value or not value.isascii():
                return None  # twice, or empty, or not ASCII: Django decides
            fields[field] = value
        elif name in _NEVER:
            return None
    return RequestHead(path, **fields)


@dataclass(frozen=True, slots=True)
class FastRoute:
    """A route that the fast path answers.

    number : number of the version; None for the active one. headers : headers of the answers.
    route : name in the metrics, see `web.route_labels`.
    shape : converts the answer, for a tutorial route that takes one object and has its own shape of answer.
    kind : answers a body or declines it, for a route that does not take rows; see
        `recommender.recommendations.service.quick`.
    protocol : reads rows and writes answers, for a route of a standard protocol.
    """

    model: str
    number: int | None
    lines: tuple[tuple[bytes, bytes], ...]
    headers: HeaderBlock
    route: str
    shape: Shape | None = None
    kind: RouteKind | None = None
    protocol: FastProtocol | None = None


class Reply:
    """A complete response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: HeaderBlock, body: bytes, request_id: str) -> None:
        self.status, self.body = status, body
        size, identifier = b"%d" % len(body), request_id.encode("ascii")
        self.headers = HeaderBlock(headers)
        self.headers += ((b"content-length", size), (b"x-request-id", identifier))
        own = b"Content-Length: %b\r\nX-Request-ID: %b\r\n" % (size, identifier)
        self.headers.encoded = headers.encoded + own
        self.headers.sized = True


@dataclass(frozen=True, slots=True)
class Admission:
    """The route and the client of a request head, valid in one generation."""

    route: FastRoute
    client: routing.Client
    reads_csv: bool


@dataclass(slots=True)
class PendingReply:
    """An answer whose log entry is not submitted yet.

    since : time at which the request was complete, by `time.perf_counter`.
    body : encoded body of the answer, or None if it is not encoded yet. lines : headers of the answer beside
        those of the route. path, context : of a protocol's route: the address, and what `FastProtocol.write`
        needs.
    """

    entry: prediction_log.Entry
    prepared: Committable
    route: FastRoute
    since: float
    body: bytes | None = None
    lines: HeaderLines = ()
    path: str = ""
    context: Any = None

    def give_up(self) -> Reply | None:
        """Returns the error response to a commit that takes too long."""
        if self.entry.is_released:  # just now
            return self.finish()
        withdrawn = prediction_log.writer().withdraw(self.entry)
        return self.refused(LogUnavailable() if withdrawn else OutcomeUnknown())

    def finish(self) -> Reply | None:
        """Returns the reply to a released entry; None when Django has to answer the request."""
        error, route = self.entry.error, self.route
        if error is None:
            body = self.encode() if self.body is None else self.body
            headers = _replaced(route.lines, self.lines) if self.lines else route.headers
            reply = Reply(200, headers, body, self.prepared.caller.request_id)
            self.prepared.count(route.route, time.perf_counter() - self.since)
            return reply
        if isinstance(error, (prediction_log.Stale, prediction_log.AlreadyAnswered)):
            return None
        if not isinstance(error, (LogUnavailable, NotStorable)):
            log.error("a prediction was not answered", exc_info=error)
        return self.refused(error)

    def encode(self) -> bytes:
        """Encodes the answer; returns its body."""
        route = self.route
        if route.protocol is not None:
            self.body, self.lines = route.protocol.write(cast("Prepared", self.prepared), self.context)
        elif route.shape is None:
            self.body = self.prepared.body()
        else:
            self.body = pipeline.encode(route.shape(self.prepared.as_dict()))
        return self.body

    def refused(self, error: Exception) -> Reply:
        """Returns the error response. The log failed, so Django does not try the request again."""
        status, described, extra = errors.describe(error)
        if status is None:
            status, described = 500, {"code": "internal_error", "message": errors.UNKNOWN}
        headers = HeaderBlock.of([*self.route.lines, *_encoded(extra)])
        request_id = self.prepared.caller.request_id
        return _refusal(status, described, headers, request_id, self.route.route, self.path)


def _refusal(
    status: int,
    described: dict[str, Any],
    headers: HeaderBlock,
    request_id: str,
    route: str = route_labels.UNKNOWN,
    path: str = "",
) -> Reply:
    errors.count(described)
    route_labels.count(route, "POST" if route != route_labels.UNKNOWN else "", status)
    body = pipeline.encode(shaped(path, described | {"request_id": request_id}, status))
    return Reply(status, headers, body, request_id)


def _replaced(lines: HeaderLines, own: HeaderLines) -> HeaderBlock:
    """Returns the headers of a route with those of one answer, which replace a header of the same name."""
    names = {name for name, _ in own}
    return HeaderBlock.of([*(line for line in lines if line[0] not in names), *own])


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


def refusal(status: int, cause: Exception | None = None, path: str = "") -> Reply:
    """Returns the error response to bytes that are no valid request; status 0: to a request too slow.

    cause : the error that the response describes instead, such as that of a full disk. path : shapes the
        error, if it is known.
    """
    headers = {"Content-Type": "application/json"}
    if cause is not None or not status:
        known, described, extra = errors.describe(cause or UnreadablePostError())
        block = HeaderBlock.of(_encoded(headers | extra))
        return _refusal(known or 400, described, block, str(uuid7()), path=path)
    code, message = UNREADABLE.get(status, UNREADABLE[400])
    headers |= {"Retry-After": "10"} if status == 503 else {}
    described = {"code": code, "message": message}
    return _refusal(status, described, HeaderBlock.of(_encoded(headers)), str(uuid7()), path=path)


@dataclass(frozen=True, slots=True)
class _Admissions:
    """The admissions of one snapshot: a thread that comes late must not add to those of the next one."""

    known: routing.Snapshot | None
    kept: dict[tuple[Any, ...], Admission] = field(default_factory=dict)


class FastPath:
    """The fast path of one process, configured by the settings."""

    def __init__(self) -> None:
        self.is_open = not settings.DEBUG
        self._https = settings.SECURE_SSL_REDIRECT or bool(settings.SECURE_HSTS_SECONDS)
        self._throttle = UserRateThrottle() if settings.RATE_LIMIT else None
        self._routes: dict[str, FastRoute] = {}
        self._hosts: dict[str, bool] = {}
        self._admissions = _Admissions(None)

    def _route(self, path: str) -> FastRoute | None:
        """Returns the route of a path; None for a path that the fast path does not answer."""
        route = self._routes.get(path)
        if route is not None:
            return route
        both, post = "GET, POST, HEAD, OPTIONS", "POST, OPTIONS"
        if match := ACTIVE.fullmatch(path):
            route = self._build_route(match[1], None, both, route_labels.ACTIVE)
        elif match := VERSION.fullmatch(path):
            route = self._build_route(match[1], int(match[2]), post, route_labels.VERSION)
        elif path in TUTORIALS:
            model, shape, kind = TUTORIALS[path]
            route = self._build_route(model, None, post, path, shape, kind)
        elif path == route_labels.RECOMMENDATIONS:
            route = self._build_route(MOVIES, None, both, path, None, quick)
        elif found := fast_routes.find(path):
            model, number, label, protocol = found
            route = self._build_route(model, number, post, label, protocol=protocol)
        if route is not None and len(self._routes) < KNOWN_ROUTES:
            self._routes[path] = route
        return route

    def _build_route(
        self,
        model: str,
        number: int | None,
        allowed: str,
        route: str,
        shape: Shape | None = None,
        kind: RouteKind | None = None,
        protocol: FastProtocol | None = None,
    ) -> FastRoute:
        headers = _headers(allowed, secure=self._https)
        if protocol is not None:
            del headers["Vary"]  # Accept does not choose its format
        lines = tuple(_encoded(headers))
        return FastRoute(model, number, lines, HeaderBlock.of(lines), route, shape, kind, protocol)

    def is_inline(self, head: RequestHead, length: int) -> bool:
        """Returns whether the event loop may answer a body of `length` bytes itself."""
        return length <= INLINE_CSV_BYTES or (
            length <= INLINE_BYTES and head.content_type.lower() not in CSV_TYPES
        )

    def takes(self, head: RequestHead, length: int) -> bool:
        """Returns whether the fast path takes a body of `length` bytes under this head."""
        return 0 < length <= settings.PREDICT_MAX_BYTES and self._admitted(head) is not None

    def begin_whole(
        self, head: RequestHead, body: bytes, done: Callable[[prediction_log.Entry], None]
    ) -> PendingReply | None:
        """Returns the same as `begin`, with the body encoded. For a thread, which does not block the loop."""
        pending = self.begin(head, body, done)
        if pending is not None:
            pending.encode()
        return pending

    def begin(
        self, head: RequestHead, body: bytes, done: Callable[[prediction_log.Entry], None] | None = None
    ) -> PendingReply | None:
        """Returns an answer that may be sent once its entry is committed; None for a declined request.

        Parameters
        ----------
        done : see `predictions.log.writer.Entry`.
        """
        since = time.perf_counter()
        admitted = self._admitted(head)
        if admitted is None or not 0 < len(body) <= settings.PREDICT_MAX_BYTES:
            return None
        admission, served, version, generation = admitted
        route = admission.route
        idempotency_key, digest = None, ""
        if head.idempotency_key:
            idempotency_key = head.idempotency_key.decode("ascii")
            if not idempotency.is_valid_key(idempotency_key):
                return None
            hashed = hashlib.sha256(body).hexdigest()
            digest = idempotency.request_sha256(head.path, head.content_type.decode("ascii"), hashed)
        request_id = head.request_id.decode("ascii")
        if not request_id or not GIVEN_ID.fullmatch(request_id):
            request_id = str(uuid7())
        caller = Caller(admission.client.user_id, request_id, idempotency_key, digest)
        if route.kind is not None:
            answer = route.kind(served, body, caller, generation)
            if answer is None or not self._within_rate(caller):
                return None
            return PendingReply(answer.entry(generation, done=done), answer, route, since)
        context = None
        if route.protocol is None:
            rows = _read(served, body, csv=admission.reads_csv)
        else:
            read = route.protocol.read(served, version, body, head)
            rows, context = (None, None) if read is None else read
        if rows is None or (route.shape is not None and body.lstrip()[:1] != b"{"):
            return None
        try:
            prepared = pipeline.prepare(served, rows, caller, generation, every_class=version.every_class)
        except (InvalidRows, PredictionFailed):
            return None
        if not self._within_rate(caller):
            return None
        released = shadow_worker.after(version, prepared, done)
        entry = prepared.entry(generation, done=released)
        return PendingReply(entry, prepared, route, since, path=head.path, context=context)

    def _admitted(
        self, head: RequestHead
    ) -> tuple[Admission, engine_cache.Served, routing.RoutedVersion, int] | None:
        """Returns the admission of a head, the engine, the version and their generation; None to decline."""
        known = routing.peek()
        if known is None or not self.is_open:
            return None
        admissions = self._admissions
        if admissions.known is not known:
            admissions = self._admissions = _Admissions(known)
        name = (
            head.path, head.authorization, head.content_type, head.accept, head.host, head.forwarded_proto,
        )  # fmt: skip
        admission = admissions.kept.get(name)
        if admission is None:
            admission = self._admission(known, head)
            if admission is None:
                return None
            if len(admissions.kept) >= ADMISSIONS:
                admissions.kept.clear()
            admissions.kept[name] = admission
        client, route = admission.client, admission.route
        if client.expires is not None and client.expires <= time.time():
            return None
        version = known.peek_version(route.model, route.number, client.user_id)
        if version is None or version.model_id not in client.may_predict:
            return None
        served = engine_cache.peek(version.version_id)
        if served is None or not (served.engine.takes_matrix or route.kind is not None):
            return None
        return admission, served, version, known.generation

    def _admission(self, known: routing.Snapshot, head: RequestHead) -> Admission | None:
        if self._https and not _came_by_https(head):
            return None
        key = client_keys.key_of(head.authorization.decode("ascii"))
        client = None if key is None else known.peek_client(key)
        # Only for clients with a key: others must not fill the caches of routes and hosts.
        if client is None or not self._is_ours(head.host.decode("ascii")):
            return None
        route = self._route(head.path)
        if route is None:
            return None
        content_type = head.content_type.lower()
        reads_csv = content_type in CSV_TYPES
        if route.protocol is not None:
            return Admission(route, client, reads_csv) if route.protocol.admits(head) else None
        if head.accept not in ACCEPTED or not (reads_csv or content_type in JSON_TYPES):
            return None
        if reads_csv and (route.kind is not None or route.shape is not None):
            return None
        return Admission(route, client, reads_csv)

    def _within_rate(self, caller: Caller) -> bool:
        """Counts a request of a client; returns False over the rate limit, which DRF then refuses."""
        throttle = self._throttle
        if throttle is None:
            return True
        key = throttle.cache_format % {"scope": throttle.scope, "ident": caller.client_id}
        most, seconds = throttle.parse_rate(settings.RATE_LIMIT)
        assert most is not None and seconds is not None
        now, history = time.time(), throttle.cache.get(key, [])
        while history and history[-1] <= now - seconds:
            history.pop()
        if len(history) >= most:
            return False
        throttle.cache.set(key, [now, *history], seconds)
        return True

    def _is_ours(self, host: str) -> bool:
        try:
            return self._hosts[host]
        except KeyError:
            pass
        domain, _ = split_domain_port(host)
        ours = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
        if ours and len(self._hosts) < KNOWN_ROUTES:
            self._hosts[host] = ours
        return ours


def _read(served: engine_cache.Served, body: bytes, *, csv: bool) -> Rows | None:
    """Returns the body's rows if all are valid; otherwise None, and Django reports the faults."""
    if not csv:
        return served.compiled.decode(body, settings.PREDICT_MAX_ROWS)
    try:
        return reading.read_csv(served, io.BytesIO(body), Told())
    except (InvalidRows, TooManyRows):
        return None


def _came_by_https(head: RequestHead) -> bool:
    """Returns whether the request came by HTTPS, by the proxy header that Django's settings trust."""
    trusted = settings.SECURE_PROXY_SSL_HEADER
    return (
        bool(trusted)
        and trusted[0] == "HTTP_X_FORWARDED_PROTO"
        and head.forwarded_proto == trusted[1].encode("ascii")
    )


def _headers(allowed: str, *, secure: bool) -> dict[str, str]:
    """Returns the headers that DRF and Django's middleware set on such answers."""
    headers = {
        "Content-Type": "application/json",
        "Vary": "Accept",
        "Allow": allowed,
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
    }
    if secure and settings.SECURE_HSTS_SECONDS:
        parts = [f"max-age={settings.SECURE_HSTS_SECONDS}"]
        parts += ["includeSubDomains"] if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS else []
        parts += ["preload"] if settings.SECURE_HSTS_PRELOAD else []
        headers["Strict-Transport-Security"] = "; ".join(parts)
    return headers
