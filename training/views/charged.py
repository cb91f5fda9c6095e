"""Views whose POST stores bytes of a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from training import idempotency
from training.access import quotas
from training.models import StoredUpload
from training.views.base import ModelView, requesting_user
from training.views.idempotent import REPLAYED

Once = Callable[..., Response]


class ChargedView(ModelView):
    """Counts the bytes of a POST against the quota of its key, before the transaction of the request.

    Within it, another upload of the key would wait for the end of this one. A repeated request costs nothing.

    Attributes
    ----------
    charged_as : kind of the stored bytes.
    """

    charged_as: ClassVar[StoredUpload.Kind]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":
            once = self.post
            self.post = lambda *args, **kwargs: self._charged(once, *args, **kwargs)

    def stored_bytes(self, request: Request) -> int:
        """Returns the bytes that the request stores; 0: it stores none."""
        raise NotImplementedError

    def perform(self, once: Once, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Does the request in its transaction, which `once` opens."""
        return once(request, *args, **kwargs)

    def _charged(self, once: Once, request: Request, *args: Any, **kwargs: Any) -> Response:
        retry = self.retry_key(request)
        stored = None if retry is None else idempotency.stored_response(retry)
        if retry is not None and stored is not None:
            return self.replayed(retry, stored)
        size = self.stored_bytes(request)
        if not size:
            return once(request, *args, **kwargs)
        with quotas.charged(requesting_user(request), request.auth, self.charged_as, size) as counted:
            response = self.perform(once, request, *args, **kwargs)
            if REPLAYED in response.headers:  # another request with the same key was first
                counted.delete()
            return response
