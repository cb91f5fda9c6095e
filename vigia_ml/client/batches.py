"""Batches: files of any size that the service scores as a job, and their results."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, Self, TypeVar

from vigia_ml.client import jobs
from vigia_ml.client.core import Core, at, encoded, encoded_rows
from vigia_ml.client.errors import RunFailed
from vigia_ml.client.flow import Flow, Work
from vigia_ml.client.frames import Row, import_pandas, is_table, keyed, rows_of, tabled
from vigia_ml.client.predicting import schema_in_force
from vigia_ml.client.progress import Progress
from vigia_ml.client.results import Job, Json
from vigia_ml.errors import VigiaError

if TYPE_CHECKING:
    import pandas as pd

    from vigia_ml.client.async_client import AsyncClient
    from vigia_ml.client.client import Client
    from vigia_ml.client.frames import Table

    Source = Table | Sequence[Row] | str | Path | BinaryIO

B = TypeVar("B", bound="BatchFields")
T = TypeVar("T")
Format = Literal["csv", "parquet", "jsonl"]
OnInvalid = Literal["report", "stop"]
CONTENT_TYPES: Mapping[str, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "jsonl": "application/x-ndjson",
}
_ENDINGS = {
    "csv": "csv", "tsv": "csv", "txt": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "jsonl",
    "ndjson": "jsonl",
}  # fmt: skip
_PIECE_ROWS = 10_000
_LEVEL = 1
"""Level of gzip: higher levels take several times as long, for a tenth fewer bytes."""


class BatchFields(Job, frozen=True, kw_only=True, dict=True):
    """A batch: rows of a file that one version scores and logs.

    rows : rows of the file, None until the service has counted them. scored, invalid : rows so far.
    results_until : time when the service removes results and error file; the rows of the log stay.
    """

    version: int
    format: str = ""
    on_invalid: str = "report"
    location: str | None = None
    path: str | None = None
    size: int = 0
    rows: int | None = None
    scored: int = 0
    invalid: int = 0
    rows_per_second: float | None = None
    requested_by: str | None = None
    attempts: int = 0
    queued_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    results_until: dt.datetime | None = None
    first_errors: list[dict[str, Json]] = []
    links: dict[str, str] = {}

    @property
    def _route(self) -> str:
        return at("models", self.model, "batches", self.id)

    def _bind(self, client: Any) -> Self:
        self.__dict__["client"] = client
        return self


class Batch(BatchFields, frozen=True, kw_only=True):
    """One batch, which `Client` returns. A record does not change: `wait` and `refresh` return new ones."""

    def refresh(self) -> Batch:
        """Returns the present state."""
        return self._run(get_batch(self._client._core, type(self), self.model, self.id))

    def wait(self, timeout: float | None = None, *, progress: Progress = False) -> Batch:
        """Waits for the end and returns the last state.

        Parameters
        ----------
        timeout : in seconds; None: no limit. progress : whether to show the percentage.

        Raises
        ------
        RunFailed : the batch failed or was cancelled; `error.job` is its last state.
        NotFinished : the batch has not ended within `timeout`; it goes on.
        """
        return self._run(wait(self._client._core, self, timeout, progress))

    def cancel(self) -> Batch:
        """Cancels the batch: at once while it is queued, else after the present chunks. Their rows stay."""
        return self._run(cancel(self._client._core, self))

    def results(self, to: str | Path | None = None) -> Any:
        """Returns the results as a frame, or writes them to a file (``.csv`` or ``.parquet``) and returns its
        path.

        Raises
        ------
        Conflict : the batch has not ended, or its results were removed.
        """
        return self._client._driver.run(results(self._client._core, self, to))

    def errors(self, to: str | Path | None = None) -> Any:
        """Returns the faults of invalid rows as a frame, or writes them to a CSV file and returns its path.

        Columns: row (position in the file, from 0), column, code, message, value, and line of a CSV.
        """
        return self._client._driver.run(errors(self._client._core, self, to))

    @property
    def _client(self) -> Client:
        client: Client = self.__dict__["client"]
        return client

    def _run(self, flow: Flow[Batch]) -> Batch:
        with _bound_failure(self._client):
            return self._client._driver.run(flow)._bind(self._client)


class AsyncBatch(BatchFields, frozen=True, kw_only=True):
    """One batch, which `AsyncClient` returns; its methods are those of `Batch`, as coroutines."""

    async def refresh(self) -> AsyncBatch:
        """Returns the present state."""
        return await self._run(get_batch(self._client._core, type(self), self.model, self.id))

    async def wait(self, timeout: float | None = None, *, progress: Progress = False) -> AsyncBatch:
        """Waits for the end of the batch; see `Batch.wait`."""
        return await self._run(wait(self._client._core, self, timeout, progress))

    async def cancel(self) -> AsyncBatch:
        """Cancels the batch; see `Batch.cancel`."""
        return await self._run(cancel(self._client._core, self))

    async def results(self, to: str | Path | None = None) -> Any:
        """Returns the results; see `Batch.results`."""
        return await self._client._driver.run(results(self._client._core, self, to))

    async def errors(self, to: str | Path | None = None) -> Any:
        """Returns the faults of invalid rows; see `Batch.errors`."""
        return await self._client._driver.run(errors(self._client._core, self, to))

    @property
    def _client(self) -> AsyncClient:
        client: AsyncClient = self.__dict__["client"]
        return client

    async def _run(self, flow: Flow[AsyncBatch]) -> AsyncBatch:
        with _bound_failure(self._client):
            return (await self._client._driver.run(flow))._bind(self._client)


@contextmanager
def _bound_failure(client: Any) -> Iterator[None]:
    """Gives the batch of a `RunFailed` its client, so that its errors can be downloaded."""
    try:
        yield
    except RunFailed as failure:
        failure.job._bind(client)
        raise


# -- flows ---------------------------------------------------------------------------------------------


def request(
    core: Core,
    kind: type[B],
    model: str,
    rows: Source | None,
    *,
    location: str | None,
    path: str | None,
    format: Format | None,
    compress: bool,
    key_column: str | None,
    options: Mapping[str, object],
    idempotency_key: str | None,
) -> Flow[B]:
    """Sends a file, rows, or the name of a file in a location; returns the queued batch."""
    if (rows is None) is not (location is not None and path is not None):
        raise ValueError("pass rows, or location and path; not both")
    route = at("models", model, "batches")
    if rows is None:
        named = {"location": location, "path": path, "format": format}
        body = encoded({name: value for name, value in named.items() if value is not None})
        return (yield from core.post(route, kind, body, options, idempotency_key=idempotency_key))
    schema = None
    if is_table(rows):
        version = options.get("version")
        schema = yield from schema_in_force(core, model, version if isinstance(version, int) else None)
    with tempfile.TemporaryDirectory(prefix="vigia-batch-") as directory:
        pack = partial(_file_to_send, rows, Path(directory), schema, format, key_column, compress=compress)
        file, headers = yield Work(pack)
        sent = core.post(
            route, kind, file, options, timeout=jobs.UPLOAD_SECONDS, idempotency_key=idempotency_key,
            headers=headers,
        )  # fmt: skip
        return (yield from sent)


def batches(core: Core, kind: type[B], model: str, before: int | None) -> Flow[list[B]]:
    return (yield from core.get(at("models", model, "batches"), list[kind], {"before": before}))  # type: ignore[valid-type]


def get_batch(core: Core, kind: type[B], model: str, id: int) -> Flow[B]:
    return (yield from core.get(at("models", model, "batches", id), kind))


def wait(core: Core, batch: B, timeout: float | None, progress: Progress) -> Flow[B]:
    name = f"batch {batch.id} of {batch.model}"
    return (yield from jobs.followed(core, batch, batch._route, name, progress, timeout))


def cancel(core: Core, batch: B) -> Flow[B]:
    return (yield from core.post(f"{batch._route}cancel/", type(batch), b""))


def results(core: Core, batch: BatchFields, to: str | Path | None) -> Flow[Any]:
    address = f"{batch._route}results/"
    if to is not None:
        chosen = _format_by_name(str(to))
        if chosen not in ("csv", "parquet"):
            raise ValueError(f"results are written as .csv or .parquet, not to {Path(to).name}")
        return (yield from _saved(core, address, Path(to), {"format": chosen}))
    pandas = import_pandas()
    chosen = "parquet" if _has_pyarrow() else "csv"
    read = pandas.read_parquet if chosen == "parquet" else pandas.read_csv
    with tempfile.TemporaryDirectory(prefix="vigia-batch-") as directory:
        file = yield from core.download(address, Path(directory) / "results", {"format": chosen})
        frame: pd.DataFrame = yield Work(partial(read, file))
    return frame


def errors(core: Core, batch: BatchFields, to: str | Path | None) -> Flow[Any]:
    address = f"{batch._route}errors/"
    if to is not None:
        return (yield from _saved(core, address, Path(to), {}))
    pandas = import_pandas()
    with tempfile.TemporaryDirectory(prefix="vigia-batch-") as directory:
        file = yield from core.download(address, Path(directory) / "errors", {})
        frame: pd.DataFrame = yield Work(partial(pandas.read_csv, file, keep_default_na=False))
    return frame


def _saved(core: Core, address: str, to: Path, params: Mapping[str, object]) -> Flow[Path]:
    """Downloads a file, which appears under its name only when it is complete."""
    partial_file = to.with_name(f"{to.name}.partial")
    try:
        yield from core.download(address, partial_file, params)
        partial_file.replace(to)
    finally:
        partial_file.unlink(missing_ok=True)
    return to


def _has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


# -- bodies --------------------------------------------------------------------------------------------


def _file_to_send(
    rows: Any,
    directory: Path,
    schema: Any,
    format: Format | None,
    key_column: str | None,
    *,
    compress: bool,
) -> tuple[Path, dict[str, str]]:
    """Returns the file to send and its headers."""
    target = directory / "rows"
    if isinstance(rows, (str, Path)):
        path = Path(rows)
        chosen, is_gzip = _format_of(path.name, format), path.suffix.lower() == ".gz"
        if not path.is_file():
            raise VigiaError(f"there is no file {path}", code="unreadable_file")
        if is_gzip or chosen == "parquet" or not compress:
            return path, _headers(chosen, is_gzip=is_gzip)
        with path.open("rb") as source, _opened_for_writing(target, compress=True) as out:
            shutil.copyfileobj(source, out, 2**20)
        return target, _headers(chosen, is_gzip=True)
    if hasattr(rows, "read"):
        name = str(getattr(rows, "name", ""))
        chosen, is_gzip = _format_of(name, format), name.lower().endswith(".gz")
        compress = compress and chosen != "parquet" and not is_gzip
        with _opened_for_writing(target, compress=compress) as out:
            _copy(rows, out)
        return target, _headers(chosen, is_gzip=is_gzip or compress)
    with _opened_for_writing(target, compress=compress) as out:
        for piece in _pieces(rows, schema, key_column):
            out.write(_lines(piece))
    return target, _headers("jsonl", is_gzip=compress)


def _copy(source: Any, out: IO[bytes]) -> None:
    while piece := source.read(2**20):
        if isinstance(piece, str):
            raise TypeError("open the file in binary mode: open(path, 'rb')")
        out.write(piece)


@contextmanager
def _opened_for_writing(path: Path, *, compress: bool) -> Iterator[IO[bytes]]:
    if not compress:
        with path.open("wb") as plain:
            yield plain
        return
    with gzip.open(path, "wb", _LEVEL) as packed, io.BufferedWriter(packed, 2**20) as out:
        yield out


def _pieces(rows: Any, schema: Any, key_column: str | None) -> Iterator[Sequence[Row]]:
    """Yields the rows of a table, or mappings, some at a time."""
    if schema is not None:
        table = tabled(rows, schema)
        for start in range(0, len(table), _PIECE_ROWS):
            yield rows_of(table.iloc[start : start + _PIECE_ROWS], schema, key_column=key_column)
        return
    if isinstance(rows, Mapping) or not isinstance(rows, Sequence):
        raise TypeError(f"rows must be a frame, a list of dicts, a path or a file, not {type(rows).__name__}")
    for start in range(0, len(rows), _PIECE_ROWS):
        yield keyed(rows[start : start + _PIECE_ROWS], key_column)


def _lines(rows: Sequence[Row]) -> bytes:
    """Returns rows as JSON lines."""
    encoded_rows(rows)  # refuses infinite numbers
    return b"".join(encoded(row) + b"\n" for row in rows)


def _headers(format: str, *, is_gzip: bool) -> dict[str, str]:
    return {"Content-Type": CONTENT_TYPES[format]} | ({"Content-Encoding": "gzip"} if is_gzip else {})


def _format_by_name(name: str) -> str | None:
    """Returns the format that the ending of a name before ``.gz`` tells; None for an unknown ending."""
    return _ENDINGS.get(Path(name.lower().removesuffix(".gz")).suffix.removeprefix("."))


def _format_of(name: str, given: Format | None) -> str:
    """Returns the `given` format of a file, or the one that its name tells."""
    chosen = given or _format_by_name(name)
    if chosen is None:
        raise ValueError(f"{name or 'the file'} has no known ending: pass format='csv', 'parquet' or 'jsonl'")
    if chosen not in CONTENT_TYPES:
        raise ValueError("format must be 'csv', 'parquet' or 'jsonl'")
    return chosen
