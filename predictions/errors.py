"""Refusals of the prediction path, typed; `web.errors` maps them to status codes."""

from __future__ import annotations

from core.errors import TooLarge
from vigia_ml.errors import VigiaError


class LogUnavailable(VigiaError):
    """Not logged: not answered."""

    code = "log_unavailable"

    def __init__(
        self, message: str = "the prediction log cannot be written now; nothing was answered, try again"
    ) -> None:
        super().__init__(message)


class OutcomeUnknown(LogUnavailable):
    """The connection broke, or PostgreSQL did not answer in time: the rows are in the log, or not."""

    def __init__(self) -> None:
        super().__init__(
            "the prediction log did not answer, so whether this request was logged is unknown: "
            "retry with the same Idempotency-Key, which cannot answer it twice"
        )


class NotStorable(VigiaError):
    """PostgreSQL refused the row itself, such as a number beyond its types."""

    code = "not_storable"

    def __init__(self) -> None:
        super().__init__("the prediction log cannot hold these values; nothing was answered")


class TooManyRows(TooLarge):
    code = "too_many_rows"

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit:,} instances are answered in one request")


class PredictionFailed(VigiaError):
    """The model itself could not answer these valid values."""

    code = "prediction_failed"
