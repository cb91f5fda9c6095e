"""The blocking client. Each method runs a flow; `async_client.py` runs the same ones as coroutines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

import httpx

from vigia_ml.client import batches, endpoints, exports, jobs, predicting, pushes, settings, wire
from vigia_ml.client.batches import Batch, Format, OnInvalid
from vigia_ml.client.blocking import BlockingDriver
from vigia_ml.client.core import Core, Time
from vigia_ml.client.flow import Flow
from vigia_ml.client.frames import Probabilities, Row
from vigia_ml.client.log import PAGE, Log, Parameters, parameters_of
from vigia_ml.client.options import RETRIES, TIMEOUT, PredictOptions, batching, reported
from vigia_ml.client.predicting import BATCH_SIZE, CONCURRENCY, OnErrors
from vigia_ml.client.progress import Progress
from vigia_ml.client.results import Answer, LogPage, RowError, Version
from vigia_ml.client.retries import RetryPolicy

if TYPE_CHECKING:
    import pandas as pd

    from vigia_ml.client.batches import Source
    from vigia_ml.client.frames import Table

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(flow: Callable[Concatenate[Core, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    """Returns the method of `Client` that runs a flow."""

    @functools.wraps(flow)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._driver.run(flow(client._core, *args, **kwargs))

    return method


class Client:
    """A client of one service. Use it as a context manager, or call `close`; threads may share it.

    Parameters
    ----------
    url : address of the service; default: VIGIA_URL, else the address that `vigiactl login` stored.
    key : client key; default: VIGIA_KEY, else the key stored with that address.
    timeout : seconds to wait for a connection, and for each piece of an answer.
    retries : repetitions of a request after network errors and statuses 429, 502, 503 and 504.

    Raises
    ------
    NotConfigured : the address or the key is missing or malformed.
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
        self._driver = BlockingDriver(httpx.Client(**wire.options(self._target, timeout)))

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._target.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._driver.http.close()

    models = _blocking(endpoints.models)
    model = _blocking(endpoints.model)
    versions = _blocking(endpoints.versions)
    active = _blocking(endpoints.active)
    activate = _blocking(endpoints.activate)
    rollback = _blocking(endpoints.rollback)
    prediction = _blocking(endpoints.prediction)
    quality = _blocking(endpoints.quality)
    drift = _blocking(endpoints.drift)
    outcomes = _blocking(endpoints.outcomes)
    recommend = _blocking(endpoints.recommend)
    train = _blocking(jobs.train)
    follow = _blocking(jobs.follow)
    cancel = _blocking(jobs.cancel)
    run = _blocking(jobs.run)
    runs = _blocking(jobs.runs)
    evaluate = _blocking(jobs.evaluate)
    compare = _blocking(jobs.compare)
    replay = _blocking(jobs.replay)
    export_log = _blocking(exports.export_log)
    log_exports = _blocking(exports.log_exports)
    download_log_export = _blocking(exports.download_log_export)

    def version(self, model: str, number: int) -> Version:
        """Returns one version: metrics, gate, lineage, schema, engine."""
        return self._bound(self._driver.run(endpoints.version(self._core, model, number, Version)))

    def batch(
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
    ) -> Batch:
        """Sends rows or a file of any size to be scored as a job; returns the queued batch, see `Batch.wait`.

        Every row is logged with the batch's id. A file goes to the service as it is read, in constant memory.

        Parameters
        ----------
        rows : path of a .csv, .parquet or .jsonl file (also packed: .csv.gz), such a file opened in binary
            mode, a frame, an array, a list of texts or a list of dicts.
        location, path : in place of rows: a folder that the service declares, and a file below it.
        version : number of the version that scores; default: the active one.
        on_invalid : ``report`` collects the faults of invalid rows; ``stop`` ends the batch at the first one.
        format : ``csv``, ``parquet`` or ``jsonl``, where the file's name does not tell.
        key_column : of a frame or dicts: the column with your own reference of each row.
        compress : whether to pack the body on its way.
        dialect : ``delimiter``, ``decimal`` and ``thousands`` of a CSV, where they are not recognised.
        idempotency_key : the same call with it, within a day, gets the same batch.
        """
        flow = batches.request(
            self._core, Batch, model, rows, location=location, path=path, format=format, compress=compress,
            key_column=key_column, options={"version": version, "on_invalid": on_invalid, **dialect},
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return self._driver.run(flow)._bind(self)

    def batches(self, model: str, *, before: int | None = None) -> list[Batch]:
        """Returns the newest batches that the key may see (at most a page; `before`: with a smaller id)."""
        found = self._driver.run(batches.batches(self._core, Batch, model, before))
        return [each._bind(self) for each in found]

    def get_batch(self, model: str, id: int) -> Batch:
        """Returns one batch."""
        return self._driver.run(batches.get_batch(self._core, Batch, model, id))._bind(self)

    def push(
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
    ) -> Version:
        """Sends a fitted pipeline as a compiled graph and returns its version.

        Parameters
        ----------
        pipeline : a fitted pipeline or estimator. X_train, y_train : the rows it was fitted on.
        X_test, y_test : other rows, the hold-out.
        name : of the model; one that does not exist is created. key : column that identifies a row.
        activate : reason to activate the version at once; None: it stays a candidate.
        options : other arguments of `vigia_ml.pushing.package`, such as ``schema`` or ``primary_metric``.

        Raises
        ------
        NotPushable : the pipeline cannot be compiled; the message names the step and what would work.
        RunFailed : the service refused the graph.
        """
        described = {"key": key, "title": title, "description": description}
        flow = pushes.push(
            self._core, Version, pipeline, X_train, y_train, X_test, y_test,
            name=name, activate=activate, progress=progress, **described, **options,
        )  # fmt: skip
        return self._bound(self._driver.run(flow))

    def _bound(self, version: Version) -> Version:
        version.__dict__["client"] = self
        return version

    @overload
    def predict(
        self,
        model: str,
        rows: Table,
        *,
        errors: Literal["raise"] = "raise",
        **options: Unpack[PredictOptions],
    ) -> pd.DataFrame: ...
    @overload
    def predict(
        self, model: str, rows: Table, *, errors: Literal["frame"], **options: Unpack[PredictOptions]
    ) -> tuple[pd.DataFrame, pd.DataFrame]: ...
    @overload
    def predict(
        self, model: str, rows: Row, *, errors: Literal["raise"] = "raise", **options: Unpack[PredictOptions]
    ) -> Answer: ...
    @overload
    def predict(
        self,
        model: str,
        rows: Sequence[Row],
        *,
        errors: Literal["raise"] = "raise",
        **options: Unpack[PredictOptions],
    ) -> list[Answer]: ...
    @overload
    def predict(
        self, model: str, rows: Sequence[Row], *, errors: Literal["frame"], **options: Unpack[PredictOptions]
    ) -> tuple[list[Answer | None], list[RowError]]: ...

    def predict(
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
        """Predicts rows: a DataFrame in, a DataFrame out; dicts in, `Answer` records out.

        Rows are sent in batches. Each batch is answered and logged whole or not at all, and keeps its
        idempotency key across retries, so that no row is logged twice.

        Parameters
        ----------
        rows : a frame as it is, an array (n, p), a series or a list of texts, a list of dicts,
            or one dict.
        version : number of the version that answers; default: the active one.
        key_column : column with your own reference of each row; the log can be searched by it.
        batch_size : rows of one request. concurrency : requests at the same time.
        progress : True shows a progress bar; a function receives (rows done, rows in all).
        errors : ``raise`` raises `InvalidInput` for invalid rows; other batches may have been answered and
            logged. ``frame`` answers all other rows and returns (answers, errors).
        probabilities : ``dict`` gives a column of dicts by class, ``columns`` a column for each class
            (``probability_Adelie``), ``none`` leaves them out of the frame.
        idempotency_key : text that begins the keys of the batches: the same call with the same rows, made
            again within a day, gets the stored answers.

        Returns
        -------
        A frame with the index of `rows` and the columns prediction, probability, probabilities, id, warnings
        and version (those of probabilities only for a classification); or answers in the order of the rows.
        """
        with reported(progress, model) as report:
            sent = batching(batch_size, concurrency, errors, idempotency_key, report)
            flow = predicting.predict(
                self._core, model, rows, version=version, key_column=key_column, batching=sent,
                probabilities=probabilities,
            )  # fmt: skip
            return self._driver.run(flow)

    def log(
        self,
        model: str,
        *,
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        key: str | None = None,
        page_size: int = PAGE,
    ) -> Log:
        """Returns the model's log, newest first, as an iterator that reads one page after another.

        Parameters
        ----------
        since, until : time of the predictions; `until` is exclusive. key : the caller's own reference.
        """

        def read(parameters: Parameters) -> LogPage:
            return self._driver.run(endpoints.log_page(self._core, model, parameters))

        return Log(read, parameters_of(since, until, version, key, page_size))
