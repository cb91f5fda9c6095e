"""The asynchronous client, for asyncio and trio."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

import httpx

from vigia_ml.client import batches, endpoints, exports, jobs, predicting, pushes, settings, wire
from vigia_ml.client.batches import AsyncBatch, Format, OnInvalid
from vigia_ml.client.core import Core, Time
from vigia_ml.client.flow import Flow
from vigia_ml.client.frames import Probabilities, Row
from vigia_ml.client.log import PAGE, AsyncLog, Parameters, parameters_of
from vigia_ml.client.options import RETRIES, TIMEOUT, PredictOptions, batching, reported
from vigia_ml.client.predicting import BATCH_SIZE, CONCURRENCY, OnErrors
from vigia_ml.client.progress import Progress
from vigia_ml.client.results import Answer, AsyncVersion, LogPage, RowError
from vigia_ml.client.retries import RetryPolicy
from vigia_ml.client.waiting import WaitingDriver

if TYPE_CHECKING:
    import pandas as pd

    from vigia_ml.client.batches import Source
    from vigia_ml.client.frames import Table

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    flow: Callable[Concatenate[Core, P], Flow[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Returns the method of `AsyncClient` that runs a flow."""

    @functools.wraps(flow)
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._driver.run(flow(client._core, *args, **kwargs))

    return method


class AsyncClient:
    """The client of one service for asyncio and trio; its methods are those of `Client`, as coroutines.

    `log` returns an asynchronous iterator. Parameters and errors: see `Client`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        self._target = settings.resolve(url, key)
        self._core = Core(RetryPolicy(retries))
        self._driver = WaitingDriver(httpx.AsyncClient(**wire.options(self._target, timeout)))

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._target.url

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._driver.http.aclose()

    models = _waiting(endpoints.models)
    model = _waiting(endpoints.model)
    versions = _waiting(endpoints.versions)
    active = _waiting(endpoints.active)
    activate = _waiting(endpoints.activate)
    rollback = _waiting(endpoints.rollback)
    prediction = _waiting(endpoints.prediction)
    quality = _waiting(endpoints.quality)
    drift = _waiting(endpoints.drift)
    outcomes = _waiting(endpoints.outcomes)
    recommend = _waiting(endpoints.recommend)
    train = _waiting(jobs.train)
    follow = _waiting(jobs.follow)
    cancel = _waiting(jobs.cancel)
    run = _waiting(jobs.run)
    runs = _waiting(jobs.runs)
    evaluate = _waiting(jobs.evaluate)
    compare = _waiting(jobs.compare)
    replay = _waiting(jobs.replay)
    export_log = _waiting(exports.export_log)
    log_exports = _waiting(exports.log_exports)
    download_log_export = _waiting(exports.download_log_export)

    async def version(self, model: str, number: int) -> AsyncVersion:
        """Returns one version; see `Client.version`."""
        flow = endpoints.version(self._core, model, number, AsyncVersion)
        return self._bound(await self._driver.run(flow))

    async def batch(
        self,
        model: str,
        rows: Source | None = None,
        *,
        location: str | None = None,
        path: str | None = None,
        version: int | None = None,
        on_invalid: OnInvalid = "report",
        format: Format | None = None,
        key_column: str | None = None,
        compress: bool = True,
        idempotency_key: str | None = None,
        **dialect: str,
    ) -> AsyncBatch:
        """Sends rows or a file to be scored as a job; see `Client.batch`."""
        flow = batches.request(
            self._core, AsyncBatch, model, rows, location=location, path=path, format=format,
            compress=compress, key_column=key_column, idempotency_key=idempotency_key,
            options={"version": version, "on_invalid": on_invalid, **dialect},
        )  # fmt: skip
        return (await self._driver.run(flow))._bind(self)

    async def batches(self, model: str, *, before: int | None = None) -> list[AsyncBatch]:
        """Returns the newest batches that the key may see; see `Client.batches`."""
        found = await self._driver.run(batches.batches(self._core, AsyncBatch, model, before))
        return [each._bind(self) for each in found]

    async def get_batch(self, model: str, id: int) -> AsyncBatch:
        """Returns one batch."""
        return (await self._driver.run(batches.get_batch(self._core, AsyncBatch, model, id)))._bind(self)

    async def push(
        self,
        pipeline: Any,
        X_train: Any,
        y_train: Any,
        X_test: Any,
        y_test: Any,
        *,
        name: str,
        key: str | None = None,
        title: str = "",
        description: str = "",
        activate: str | None = None,
        progress: Progress = False,
        **options: Any,
    ) -> AsyncVersion:
        """Sends a fitted pipeline, compiled in a thread; see `Client.push`."""
        described = {"key": key, "title": title, "description": description}
        flow = pushes.push(
            self._core, AsyncVersion, pipeline, X_train, y_train, X_test, y_test,
            name=name, activate=activate, progress=progress, **described, **options,
        )  # fmt: skip
        return self._bound(await self._driver.run(flow))

    def _bound(self, version: AsyncVersion) -> AsyncVersion:
        version.__dict__["client"] = self
        return version

    @overload
    async def predict(
        self,
        model: str,
        rows: Table,
        *,
        errors: Literal["raise"] = "raise",
        **options: Unpack[PredictOptions],
    ) -> pd.DataFrame: ...
    @overload
    async def predict(
        self, model: str, rows: Table, *, errors: Literal["frame"], **options: Unpack[PredictOptions]
    ) -> tuple[pd.DataFrame, pd.DataFrame]: ...
    @overload
    async def predict(
        self, model: str, rows: Row, *, errors: Literal["raise"] = "raise", **options: Unpack[PredictOptions]
    ) -> Answer: ...
    @overload
    async def predict(
        self,
        model: str,
        rows: Sequence[Row],
        *,
        errors: Literal["raise"] = "raise",
        **options: Unpack[PredictOptions],
    ) -> list[Answer]: ...
    @overload
    async def predict(
        self, model: str, rows: Sequence[Row], *, errors: Literal["frame"], **options: Unpack[PredictOptions]
    ) -> tuple[list[Answer | None], list[RowError]]: ...

    async def predict(
        self,
        model: str,
        rows: Table | Sequence[Row] | Row,
        *,
        version: int | None = None,
        key_column: str | None = None,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        progress: Progress = False,
        errors: OnErrors = "raise",
        probabilities: Probabilities = "dict",
        idempotency_key: str | None = None,
    ) -> Any:
        """Predicts rows; see `Client.predict`."""
        with reported(progress, model) as report:
            sent = batching(batch_size, concurrency, errors, idempotency_key, report)
            flow = predicting.predict(
                self._core, model, rows, version=version, key_column=key_column, batching=sent,
                probabilities=probabilities,
            )  # fmt: skip
            return await self._driver.run(flow)

    def log(
        self,
        model: str,
        *,
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        key: str | None = None,
        page_size: int = PAGE,
    ) -> AsyncLog:
        """Returns the model's log as an asynchronous iterator; see `Client.log`."""

        async def read(parameters: Parameters) -> LogPage:
            return await self._driver.run(endpoints.log_page(self._core, model, parameters))

        return AsyncLog(read, parameters_of(since, until, version, key, page_size))
