"""Base of all views of models: permissions, query parameters and pages."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from core.errors import Archived
from training.access import permissions
from training.models import RegisteredModel
from training.parsers import CsvBody, check_length
from training.registry import lookup
from training.views.idempotent import IdempotentView
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.csv_dialect import DELIMITERS, Told
from vigia_ml.schema.faults import clip
from vigia_ml.schema.numerals import DECIMALS, THOUSANDS_WORDS, thousands_mark
from vigia_ml.schema.wrapping import refuse_wrapped

PAGE = 100
Row = TypeVar("Row", bound=Model)


class ModelView(IdempotentView):
    """A route below ``/models/{model}/``; it finds the model and requires the right of the HTTP method.

    Attributes
    ----------
    rights : method -> right; any right for the model suffices for other methods.
    model_name : the model of a route that does not name one.
    takes_archived : whether the route also changes archived models; others answer 410 `archived`.
    """

    rights: ClassVar[dict[str, permissions.Right]] = {}
    max_bytes = settings.PREDICT_MAX_BYTES
    reads_body = True
    takes_archived = False
    model_name: ClassVar[str] = ""
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.model = self.find_model(kwargs.get("model", self.model_name))
        right = self.rights.get("GET" if request.method == "HEAD" else request.method or "")
        if right is not None:
            self.require(request, right)
        else:
            permissions.require_any(request.user, self.model)
        if (
            self.model.archived_at is not None
            and not self.takes_archived
            and request.method not in SAFE_METHODS
        ):
            raise Archived(self.model)
        # A method that the route lacks is answered with 405, also to a client that sent no body.
        method = (request.method or "").lower()
        if method in ("post", "put", "patch") and self.reads_body and hasattr(self, method):
            check_length(request, self.max_bytes)

    def find_model(self, name: str) -> RegisteredModel:
        return lookup.get_model(name)

    def require(self, request: Request, right: permissions.Right) -> None:
        """Raises `Forbidden` unless the client has this right for the view's model."""
        permissions.require(request.user, right, self.model)

    def get_view_name(self) -> str:
        """Returns the heading of the browsable page, with the model's name."""
        name = getattr(self, "kwargs", {}).get("model")
        return f"{super().get_view_name()} of {name}" if name else super().get_view_name()

    def page(
        self,
        request: Request,
        name: str,
        rows: Iterable[Row],
        show: Callable[[Row], dict[str, Any]],
        address: str,
        cursor: object,
    ) -> HttpResponseBase:
        """Returns one page of a list under `name`, with the address of the next page. Its JSON is written row
        by row: a thousand rows as objects take ten times the memory of their text.

        Parameters
        ----------
        show : returns the fields of a row. address, cursor : see `following_page`.
        """
        following, headers = following_page(request, address, cursor)
        before, after = {"model": self.model.name}, {"next": following}
        renderer = request.accepted_renderer
        is_plain = (
            isinstance(renderer, JSONRenderer)
            and renderer.get_indent(request.accepted_media_type, {}) is None
        )
        if not is_plain:
            response = Response(before | {name: [show(row) for row in rows]} | after, headers=headers)
            # View, request and response form a cycle; it must not hold the rows until the next collection.
            response.add_post_render_callback(_drop_data)
            return response
        render: Callable[[object], Any] = renderer.render
        written = io.BytesIO()
        written.write(render(before | {name: []})[:-2])
        for place, row in enumerate(rows):
            if place:
                written.write(b",")
            written.write(render(show(row)))
        written.write(b"]," + render(after)[1:])
        return HttpResponse(written.getvalue(), content_type=renderer.media_type, headers=headers)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        body = getattr(self.request, "_full_data", None)
        if isinstance(body, CsvBody):
            body.stream.close()
        return super().finalize_response(request, response, *args, **kwargs)


class BodyFormView(ModelView):
    """A view whose body a serializer reads; the browsable API shows its form."""

    body: ClassVar[type[BaseSerializer[Any]]]

    def get_serializer(self, *args: Any, **kwargs: Any) -> BaseSerializer[Any]:
        """Returns the form of the browsable API."""
        return self.body(*args, **kwargs)

    def values(self, request: Request) -> dict[str, Any]:
        """Returns the valid body and its author, as the services take them."""
        serializer = self.body(data=request.data)
        serializer.is_valid(raise_exception=True)
        return {"by": requesting_user(request), **serializer.validated_data}


def requesting_user(request: Request) -> User:
    """Returns the user behind the request; permissions reject anonymous requests."""
    assert isinstance(request.user, User)
    return request.user


def check_rows_request(
    data: dict[str, Any], known: set[str], accepted: str, *, fields: set[str], needs: set[str]
) -> None:
    """Checks the names of a JSON request with rows in ``instances``, and that these are an array.

    Parameters
    ----------
    known : accepted names; `accepted` says them in words. fields : all names that the route reads.
    needs : names of which the request holds at least one.

    Raises
    ------
    InvalidRows : lists every fault.
    """
    refuse_wrapped(data, fields.__contains__, '{"instances": [{…}, …]}')
    message = f"unknown field; accepted: {accepted}"
    faults = [Fault(clip(name), "unknown_field", message) for name in sorted(set(data) - known)]
    if not needs & set(data):
        faults.append(Fault("instances", "missing_field", "instances is missing"))
    elif "instances" in data and (not isinstance(data["instances"], list) or not data["instances"]):
        faults.append(Fault("instances", "not_an_array", "instances must be an array with at least one row"))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")


def csv_dialect(request: Request) -> Told:
    """Returns the dialect of a CSV body as far as the query parameters name it."""
    query = request.query_params
    delimiter, decimal, thousands = query.get("delimiter"), query.get("decimal"), query.get("thousands")
    delimiter = "\t" if delimiter == "tab" else delimiter
    for name, value, allowed in (
        ("delimiter", delimiter, tuple(DELIMITERS)),
        ("decimal", decimal, tuple(DECIMALS)),
        ("thousands", thousands, THOUSANDS_WORDS),
    ):
        if value is not None and value not in allowed:
            raise InvalidRows.single(name, "not_a_level", f"{name} has an unknown value", allowed=allowed)
    return Told(delimiter, decimal, None if thousands is None else thousands_mark(thousands))


CSV_PARAMETERS: Final = [
    OpenApiParameter(name, str, enum=words, description=f"{label} of a CSV body (default: detected).")
    for name, label, words in (
        ("delimiter", "Delimiter", [",", ";", "|", "tab"]),
        ("decimal", "Decimal mark", [".", ","]),
        ("thousands", "Thousands separator", list(THOUSANDS_WORDS)),
    )
]
PREFER_PARAMETER: Final = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`wait=60`: the response waits up to 60 s for the job to finish.",
)


def datetime_param(request: Request, name: str) -> Any:
    """Returns a time from a query parameter (ISO 8601; UTC without a zone), or None when it is absent.

    Raises `InvalidRows` for an empty value: it comes from a variable that was not set, and the default would
    answer a different question.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        # A "+" that was not percent-encoded arrives as a space.
        moment = parse_datetime(text.replace(" ", "+") if "T" in text else text)
        moment = moment or parse_datetime(f"{text}T00:00:00")
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        message = f"{name} must be an ISO 8601 time"
        raise InvalidRows.single(name, "not_a_time", message, value=text[:80], has_value=True)
    return _in_utc(moment if timezone.is_aware(moment) else timezone.make_aware(moment))


def _in_utc(moment: dt.datetime) -> dt.datetime:
    """Converts a time to UTC; a time outside years 1 to 9999 becomes the nearest one inside."""
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        end = dt.datetime.min if moment.year == 1 else dt.datetime.max
        return end.replace(tzinfo=dt.UTC)


def int_param(request: Request, name: str, largest: int) -> int | None:
    """Returns a whole number from 1 to `largest` from a query parameter, or None when it is absent."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= largest):
        raise bad_parameter(name, f"{name} must be a whole number from 1 to {largest}", text)
    return int(text)


def bool_param(request: Request, name: str) -> bool:
    """Returns whether a query parameter is ``true``; False when it is absent."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise bad_parameter(name, f"{name} must be true or false", str(text))
    return text == "true"


def bad_parameter(name: str, message: str, value: str) -> InvalidRows:
    return InvalidRows.single(name, "bad_parameter", message, value=value[:80], has_value=True)


def before(rows: QuerySet[Row, Row], request: Request, field: str) -> QuerySet[Row, Row]:
    """Returns one page of rows, in descending order, whose `field` is below query parameter ``before``."""
    limit = int_param(request, "before", 2**63 - 1)
    if limit is not None:
        rows = rows.filter(**{f"{field}__lt": limit})
    return rows.order_by(f"-{field}")[:PAGE]


def following_page(request: Request, address: str, cursor: object) -> tuple[str | None, dict[str, str]]:
    """Returns the URL of a list's next page with the request's other parameters, and the header that names
    it; (None, {}) after the last page.

    Parameters
    ----------
    address : path of the list, without parameters.
    """
    if cursor is None:
        return None, {}
    parameters = request.query_params.copy()
    parameters["cursor"] = str(cursor)
    following = f"{request.build_absolute_uri(address)}?{parameters.urlencode()}"
    return following, {"Link": f'<{following}>; rel="next"'}


def _drop_data(response: Response) -> None:
    response.data = None
