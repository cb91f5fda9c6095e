"""Errors of a push before anything is sent."""

from __future__ import annotations

from vigia_ml.errors import VigiaError


class BadFrame(VigiaError):
    """Raised for a frame whose columns or cells have no form in the API."""

    code = "bad_frame"


class NotPushable(BadFrame):
    """Raised for a pipeline or its rows that cannot be pushed.

    step : name and class of the pipeline's step, where one step is the reason. advice : what would work.
    """

    code = "not_pushable"

    def __init__(self, message: str, *, step: str = "", advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.step, self.advice = step, advice
