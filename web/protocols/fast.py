"""The interface between the fast path and a standard protocol. No Django here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from predictions.inference.pipeline import Prepared
    from training.serving.engine_cache import Served
    from training.serving.routing import RoutedVersion
    from vigia_ml.schema.row_decoder import Rows
    from web.fast_path import RequestHead

HeaderLines = tuple[tuple[bytes, bytes], ...]


class FastProtocol(Protocol):
    """Reads rows and writes answers in the format of a protocol; it keeps no state of a request."""

    def admits(self, head: RequestHead) -> bool:
        """Returns whether `read` may recognise a body under this head. The caller keeps the result for
        requests with the same path, content type and Accept."""

    def read(
        self, served: Served, version: RoutedVersion, body: bytes, head: RequestHead
    ) -> tuple[Rows, Any] | None:
        """Returns the rows, all valid, and the context for `write`; None: Django answers the request."""

    def write(self, prepared: Prepared, context: Any) -> tuple[bytes, HeaderLines]:
        """Returns the body of the answer and its headers in their usual spelling; a body without a
        Content-Type is JSON."""
