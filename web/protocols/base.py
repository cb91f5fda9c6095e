"""Base classes of the views of standard protocols.

A protocol differs from the native route in the format of rows, of answers and of errors
(`web.error_shapes`). Authentication, rights, limits, the fence, the log and the metrics are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from predictions.views.base import GenerationCheckedView
from training.parsers import JsonBody, RawJSONParser
from training.views.base import ModelView


class RawBody(JsonBody):
    """A body of any Content-Type."""

    def get(self, name: str, default: str = "") -> str:
        """Returns `default`: the CSRF check of a session asks a body of a form's type for its fields."""
        return default


class RawParser(RawJSONParser):
    """Reads any body, also one without a Content-Type, into a `RawBody`."""

    media_type = "*/*"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return RawBody(super().parse(stream, media_type, parser_context).raw)


class OneFormat(BaseContentNegotiation):
    """Reads and answers in the protocol's format, whatever Content-Type and Accept say."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser | None:
        parser: BaseParser = parsers[0]
        return parser

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ProtocolView(GenerationCheckedView, ModelView):
    """A view of a protocol for models of rows. `predict` answers; `read_rows` reads the body."""

    rights: ClassVar = {"POST": "predict"}
    parser_classes = [RawParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = OneFormat
