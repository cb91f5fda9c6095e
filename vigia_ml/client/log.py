"""The log of a model as an iterator over its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import httpx

from vigia_ml.client.core import Time, time_text
from vigia_ml.client.frames import log_frame
from vigia_ml.client.results import LoggedPrediction, LogPage

if TYPE_CHECKING:
    import pandas as pd

PAGE = 1_000
Parameters = Mapping[str, object]


class Log:
    """Rows of the log, newest first; each loop reads them again, page by page."""

    def __init__(self, read: Callable[[Parameters], LogPage], parameters: Parameters) -> None:
        self._read, self._parameters = read, parameters

    def __iter__(self) -> Iterator[LoggedPrediction]:
        for page in self.pages():
            yield from page.predictions

    def pages(self) -> Iterator[LogPage]:
        """Yields page after page."""
        parameters: Parameters | None = self._parameters
        while parameters is not None:
            page = self._read(parameters)
            yield page
            parameters = _following(parameters, page)

    def to_frame(self) -> pd.DataFrame:
        """Returns all rows as a frame; each input has a column ``input.NAME``."""
        return log_frame(self)


class AsyncLog:
    """Rows of the log, newest first; each loop reads them again, page by page."""

    def __init__(self, read: Callable[[Parameters], Awaitable[LogPage]], parameters: Parameters) -> None:
        self._read, self._parameters = read, parameters

    async def __aiter__(self) -> AsyncIterator[LoggedPrediction]:
        async for page in self.pages():
            for row in page.predictions:
                yield row

    async def pages(self) -> AsyncIterator[LogPage]:
        """Yields page after page."""
        parameters: Parameters | None = self._parameters
        while parameters is not None:
            page = await self._read(parameters)
            yield page
            parameters = _following(parameters, page)

    async def to_frame(self) -> pd.DataFrame:
        """Returns all rows as a frame; each input has a column ``input.NAME``."""
        return log_frame([row async for row in self])


def parameters_of(
    since: Time | None, until: Time | None, version: int | None, key: str | None, page_size: int
) -> Parameters:
    """Returns the parameters of the first page."""
    window = {"since": time_text(since), "until": time_text(until)}
    return {**window, "version": version, "key": key, "limit": page_size}


def _following(parameters: Parameters, page: LogPage) -> Parameters | None:
    """Returns the parameters of the next page. Only its cursor is taken from the answer, never its address:
    the key goes to no address that an answer names."""
    cursor = httpx.URL(page.next).params.get("cursor") if page.next else None
    return {**parameters, "cursor": cursor} if cursor else None
