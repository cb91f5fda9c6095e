"""Typed errors of the prediction path; `web.errors` maps them to status codes."""

from __future__ import annotations

from core.errors import TooLarge
from vigia_ml.errors import VigiaError


class LogUnavailable(VigiaError):
    """The log rejected or did not take the rows, so the request gets no answer."""

    code = "log_unavailable"

    def __init__(
        self, message: str = "the prediction log cannot be written now; nothing was answered; try again"
    ) -> None:
        super().__init__(message)


class OutcomeUnknown(LogUnavailable):
    """The connection broke or PostgreSQL did not answer in time; the rows may or may not be in the log."""

    def __init__(self) -> None:
        super().__init__(
            "the prediction log did not answer, so this request may or may not be logged; "
            "retry with the same Idempotency-Key, which prevents a second answer"
        )


class NotStorable(VigiaError):
    """PostgreSQL rejected the row itself, for example a number beyond its types."""

    code = "not_storable"

    def __init__(self) -> None:
        super().__init__("the prediction log cannot store these values; nothing was answered")


class TooManyRows(TooLarge):
    code = "too_many_rows"

    def __init__(self, limit: int) -> None:
        super().__init__(f"too many rows; one request may hold at most {limit:,} instances")


class PredictionFailed(VigiaError):
    """The model could not answer valid values."""

    code = "prediction_failed"
