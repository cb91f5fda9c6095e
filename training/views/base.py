"""What all views of models share: who may come in, what the query string says, pages."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Final, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from training.access import permissions
from training.models import RegisteredModel
from training.parsers import CsvBody, check_length
from training.registry import lookup
from training.views.idempotent import IdempotentView
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.csv_dialect import DELIMITERS, Told
from vigia_ml.schema.numerals import DECIMALS, THOUSANDS_WORDS, thousands_mark

PAGE = 100
Row = TypeVar("Row", bound=Model)


class ModelView(IdempotentView):
    """A route below ``/models/{model}/``: finds the model and asks for the right the method needs."""

    rights: ClassVar[dict[str, permissions.Right]] = {}
    max_bytes = settings.PREDICT_MAX_BYTES
    reads_body = True
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.model = self.find_model(kwargs["model"])
        right = self.rights.get("GET" if request.method == "HEAD" else request.method or "")
        if right is not None:
            self.require(request, right)
        else:
            permissions.require_any(request.user, self.model)
        # A route without POST says so, also to a client that sent no body.
        if request.method == "POST" and self.reads_body and hasattr(self, "post"):
            check_length(request, self.max_bytes)

    def find_model(self, name: str) -> RegisteredModel:
        return lookup.get_model(name)

    def require(self, request: Request, right: permissions.Right) -> None:
        """Raises `Forbidden` unless the client has this right for the view's model."""
        permissions.require(request.user, right, self.model)

    def get_view_name(self) -> str:
        """The heading of the browsable page: of which model it is."""
        name = getattr(self, "kwargs", {}).get("model")
        return f"{super().get_view_name()} of {name}" if name else super().get_view_name()

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        body = getattr(self.request, "_full_data", None)
        if isinstance(body, CsvBody):
            body.stream.close()
        return super().finalize_response(request, response, *args, **kwargs)


def who(request: Request) -> User:
    """The user behind the request; the permissions let nobody else through."""
    assert isinstance(request.user, User)
    return request.user


def csv_dialect(request: Request) -> Told:
    """How a CSV body is written, as far as the query string says so."""
    given = request.query_params
    delimiter, decimal, thousands = given.get("delimiter"), given.get("decimal"), given.get("thousands")
    delimiter = "\t" if delimiter == "tab" else delimiter
    for name, value, allowed in (
        ("delimiter", delimiter, tuple(DELIMITERS)),
        ("decimal", decimal, tuple(DECIMALS)),
        ("thousands", thousands, THOUSANDS_WORDS),
    ):
        if value is not None and value not in allowed:
            fault = Fault(name, "not_a_level", f"{name} is not one this reads", allowed=allowed)
            raise InvalidRows([fault], message=fault.message)
    return Told(delimiter, decimal, None if thousands is None else thousands_mark(thousands))


CSV_PARAMETERS: Final = [
    OpenApiParameter("delimiter", str, enum=[",", ";", "|", "tab"], description="For a CSV body."),
    OpenApiParameter("decimal", str, enum=[".", ","], description="For a CSV body."),
    OpenApiParameter("thousands", str, enum=list(THOUSANDS_WORDS), description="For a CSV body."),
]


def moment_of(request: Request, name: str) -> Any:
    """A time from the query string (ISO 8601; UTC where it names no zone), or None where it is not there.

    An empty one is refused: it comes from a variable that was not set, and the default would answer another
    question."""
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        # A "+" that was not percent-encoded arrives as a space.
        moment = parse_datetime(given.replace(" ", "+") if "T" in given else given)
        moment = moment or parse_datetime(f"{given}T00:00:00")
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        fault = Fault(
            name, "not_a_time", f"{name} must be an ISO 8601 time", value=given[:80], has_value=True
        )
        raise InvalidRows([fault], message=fault.message)
    return _in_utc(moment if timezone.is_aware(moment) else timezone.make_aware(moment))


def _in_utc(moment: dt.datetime) -> dt.datetime:
    """The same moment; the nearest there is where its zone puts it before the year 1 or after 9999."""
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        end = dt.datetime.min if moment.year == 1 else dt.datetime.max
        return end.replace(tzinfo=dt.UTC)


def whole_of(request: Request, name: str, largest: int) -> int | None:
    """A whole number from 1 on from the query string, or None where it is not there."""
    given = request.query_params.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20 and 0 < int(given) <= largest):
        raise bad_parameter(name, f"{name} must be a whole number from 1 to {largest}", given)
    return int(given)


def bad_parameter(name: str, message: str, given: str) -> InvalidRows:
    """What to raise when the query string holds something that cannot be read."""
    return InvalidRows([Fault(name, "bad_parameter", message, given[:80], has_value=True)], message=message)


def before(rows: QuerySet[Row, Row], request: Request, field: str) -> QuerySet[Row, Row]:
    """One page of rows, those below ``?before=``."""
    given = whole_of(request, "before", 2**63 - 1)
    if given is not None:
        rows = rows.filter(**{f"{field}__lt": given})
    return rows.order_by(f"-{field}")[:PAGE]


def following_page(request: Request, address: str, cursor: object) -> str | None:
    """The address of a list's next page, with the request's other parameters; None after the last page.

    Parameters
    ----------
    address : of the list, without parameters.
    """
    if cursor is None:
        return None
    parameters = request.query_params.copy()
    parameters["cursor"] = str(cursor)
    return f"{request.build_absolute_uri(address)}?{parameters.urlencode()}"
