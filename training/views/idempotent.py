"""`Idempotency-Key` for every POST that creates rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from django.http import QueryDict
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.views import APIView

from training import idempotency
from training.idempotency import RetryKey, StoredResponse
from training.parsers import body_sha256
from training.views.prefer_wait import JobResponse

REPLAYED = "Idempotent-Replayed"
PROVISIONAL = "Vigia-Provisional"
"""Header that marks a stored response whose last values are known only after the commit."""


class CommittedResponse(Response):
    """A response with values that the database sets at the commit.

    Parameters
    ----------
    present : the response body; called again after the commit.
    """

    def __init__(self, present: Callable[[], Any]) -> None:
        super().__init__(present(), headers={PROVISIONAL: "1"})
        self._present = present

    def waited(self) -> Response:
        return Response(self._present())


class IdempotentView(APIView):
    """A view whose POST answers a repeated `Idempotency-Key` with the stored response.

    The handler runs in one transaction with the row that stores its response. A `JobResponse` waits after
    that transaction, and its final response replaces the stored one.

    Attributes
    ----------
    stores_own_answers : True when other code stores the view's responses, as the prediction log's
    transaction.
    creates_rows : False for a POST that only computes; it runs without a transaction.
    """

    stores_own_answers = False
    creates_rows = True

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        handler = getattr(self, "post", None)
        if request.method == "POST" and handler is not None and not self.stores_own_answers:
            # DRF looks the handler up after this method, when the client is known.
            self.post = lambda *args, **kwargs: self._once(handler, *args, **kwargs)

    def _once(
        self, handler: Callable[..., Response], request: Request, *args: Any, **kwargs: Any
    ) -> Response:
        retry = self.retry_key(request)
        if retry is None:
            return _waited(handler(request, *args, **kwargs))
        responses: list[Response] = []

        def create() -> StoredResponse:
            responses.append(handler(request, *args, **kwargs))
            return _stored(responses[-1])

        stored, replayed = idempotency.answer_once(retry, create, in_transaction=self.creates_rows)
        if replayed:
            return self.replayed(retry, stored)
        response = _waited(responses[-1])
        if response is not responses[-1]:
            idempotency.replace_response(retry, _stored(response))
        return response

    def retry_key(self, request: Request) -> RetryKey | None:
        """Returns the request's idempotency key and digest; None without the header."""
        return retry_key(request)

    def replayed(self, retry: RetryKey, stored: StoredResponse) -> Response:
        """Returns the stored response to a repeated request."""
        if PROVISIONAL in stored.headers:
            stored = idempotency.settled_response(retry, stored, PROVISIONAL)
        headers = stored.headers | {REPLAYED: "true"}
        return Response(json.loads(stored.body), stored.status, headers=headers)


def retry_key(request: Request, body: tuple[str, str] | None = None) -> RetryKey | None:
    """Returns the request's idempotency key and digest; None without the header.

    Parameters
    ----------
    body : content type and digest that identify the body; None: those of the request.

    Raises
    ------
    Malformed : the key is too long or not printable ASCII.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    idempotency.check_key(key)
    content_type, sha256 = body or (request.content_type or "", _body_sha256(request))
    digest = idempotency.request_sha256(request.get_full_path(), content_type, sha256)
    client_id = request.user.pk
    assert client_id is not None  # permissions reject anonymous requests
    return RetryKey(client_id, key, digest)


def _body_sha256(request: Request) -> str:
    """Returns the digest of the body; for a form, the digest of its fields."""
    data = request.data
    if isinstance(data, QueryDict):
        return hashlib.sha256(data.urlencode().encode()).hexdigest()
    return body_sha256(request)


def _waited(response: Response) -> Response:
    return response.waited() if isinstance(response, (JobResponse, CommittedResponse)) else response


def _stored(response: Response) -> StoredResponse:
    headers = {name: str(value) for name, value in response.headers.items() if name != "Content-Type"}
    return StoredResponse(response.status_code, json.dumps(response.data, cls=JSONEncoder), headers)
