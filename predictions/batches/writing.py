"""The answers of a chunk as CSV and as Parquet, its faults as CSV, and the parts joined."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from predictions.inference.pipeline import Prepared
from predictions.log.csv_export import neutral
from predictions.models import BatchChunk
from vigia_ml.schema import Fault

if TYPE_CHECKING:
    import pyarrow as pa

ERRORS: Final = ("row", "column", "code", "message", "value", "line")
ROW_GROUP: Final = 50_000


def parquet_name(result: str) -> str:
    """Returns the name of the Parquet beside a chunk's result in CSV."""
    return f"{result.removesuffix('.csv')}.parquet"


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The answers of a chunk by column, in the order of the file.

    rows : numbers of the rows, from 0. probabilities : None for a regression. by_class : class -> its
    probabilities; empty for a regression, and if the model's switch is off. warnings : JSON, "" for none.
    """

    rows: Sequence[int]
    keys: Sequence[str | None]
    ids: Sequence[str]
    predictions: Sequence[Any]
    probabilities: Sequence[float] | None
    by_class: dict[str, Sequence[float]]
    warnings: Sequence[str]

    @classmethod
    def of(cls, prepared: Prepared, first_row: int, places: Sequence[int]) -> AnswerColumns:
        """Returns the answers to the rows at `places` behind `first_row`."""
        by_class: dict[str, Sequence[float]] = {}
        if prepared.by_class is not None:
            objects = _decoded(prepared.by_class)
            by_class = {name: [each[name] for each in objects] for name in objects[0]}
        numbers = prepared.probabilities
        return cls(
            [first_row + place for place in places],
            prepared.rows.keys,
            [each.decode() for each in prepared.ids],
            _decoded(prepared.values),
            None if numbers is None else _decoded(numbers),
            by_class,
            ["" if each == b"[]" else each.decode() for each in prepared.warnings],
        )

    def as_csv(self) -> bytes:
        """Returns the rows as CSV without a header, safe to open in a spreadsheet."""
        # Most keys begin with a letter or a digit, and no formula does.
        keys = [key if key is None or _is_plain(key[0]) else neutral(key) for key in self.keys]
        known = {value: neutral(value) for value in set(self.predictions) if isinstance(value, str)}
        values = [known[value] for value in self.predictions] if known else self.predictions
        columns = [self.rows, keys, self.ids, values]
        if self.probabilities is not None:
            columns.append(self.probabilities)
        out = io.StringIO(newline="")
        csv.writer(out).writerows(zip(*columns, *self.by_class.values(), self.warnings, strict=True))
        return out.getvalue().encode()

    def as_parquet(self) -> bytes:
        """Returns the rows as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {
            "row": pa.array(self.rows, pa.int64()),
            "key": pa.array(self.keys, pa.string()),
            "id": pa.array(self.ids, pa.string()),
            "prediction": _predictions(self.predictions),
        }
        if self.probabilities is not None:
            columns["probability"] = pa.array(self.probabilities, pa.float64())
        for name, values in self.by_class.items():
            columns[f"probability_{name}"] = pa.array(values, pa.float64())
        columns["warnings"] = pa.array([each or None for each in self.warnings], pa.string())
        out = io.BytesIO()
        # A part is read once, soon; only the joined file is compressed well.
        pq.write_table(
            pa.table(columns), out, compression="lz4", use_dictionary=False, write_statistics=False
        )
        return out.getvalue()


def _is_plain(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()


def _decoded(texts: Sequence[bytes]) -> list[Any]:
    values: list[Any] = msgspec.json.decode(b"[%s]" % b",".join(texts))
    return values


def _predictions(values: Sequence[Any]) -> pa.Array:
    """Returns predictions as numbers, truth values or texts; a chunk must not decide between kinds of
    numbers."""
    import pyarrow as pa

    kinds = set(map(type, values))
    if kinds <= {int, float}:
        return pa.array([float(value) for value in values], pa.float64())
    return pa.array(values, pa.bool_() if kinds == {bool} else pa.string())


def header(*, probability: bool, classes: Sequence[str]) -> bytes:
    """Returns the first line of the results."""
    names = ["row", "key", "id", "prediction"]
    names += ["probability"] if probability else []
    names += [f"probability_{name}" for name in classes]
    return _line([*map(neutral, names), "warnings"])


def errors_header() -> bytes:
    return _line(ERRORS)


def errors_csv(chunk: BatchChunk, faults: Iterable[tuple[int, Fault]]) -> bytes:
    """Returns the faults of a chunk as CSV without a header. faults : (position in the chunk, fault)."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(
        [
            chunk.first_row + place,
            neutral(fault.field or ""),
            fault.code,
            neutral(fault.message),
            neutral(_text(fault.value)) if fault.has_value else "",
            "" if fault.line is None else fault.line,
        ]
        for place, fault in faults
    )
    return out.getvalue().encode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _line(cells: Sequence[object]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()


def joined(parts: Iterable[bytes], target: Any) -> None:
    """Joins Parquet parts of one schema into a file, in their order; memory holds a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[pa.Table] = []
    writer = None
    for table in _tables(parts):
        waiting.append(table)
        if writer is None:
            writer = pq.ParquetWriter(target, table.schema, compression="zstd")
        if sum(each.num_rows for each in waiting) >= ROW_GROUP:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
            waiting = []
    if writer is not None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
        writer.close()


def _tables(parts: Iterable[bytes]) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    for part in parts:
        yield pq.read_table(io.BytesIO(part), use_threads=False)
