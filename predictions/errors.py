"""Refusals of the prediction path, typed; `config.errors` maps them to status codes."""

from __future__ import annotations

from training.errors import Conflict, TooLarge, VigiaError


class LogUnavailable(VigiaError):
    """Not logged: not answered."""

    code = "log_unavailable"

    def __init__(self) -> None:
        super().__init__("the prediction log cannot be written now; nothing was answered, try again")


class TooManyRows(TooLarge):
    code = "too_many_rows"

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit:,} instances are answered in one request")


class KeyReused(Conflict):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used with another request")


class PredictionFailed(VigiaError):
    """The model itself could not answer these valid values."""

    code = "prediction_failed"
