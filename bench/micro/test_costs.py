"""Costs of the steps of an answer; each fast step is compared with the slower step that it replaces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.micro.conftest import Ready
from core.metrics import counters
from predictions.inference import pipeline
from predictions.inference.pipeline import Caller, Prepared
from predictions.log.writer import Entry, Writer
from training.serving import routing
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import Rows

# The mark creates a test database. Its rows are committed before, or by the log writer.
pytestmark = pytest.mark.django_db
Benchmark = Any  # pytest-benchmark has no types
REQUEST_ID = "01a1fae0-7c1e-7b33-8d02-2f5f6d1f9a10"
WRITTEN_GROUPS = 200


def body_of(ready: Ready, count: int) -> bytes:
    rows = ready.rows[:count]
    return json.dumps(rows[0] if count == 1 else rows).encode()


def rows_of(ready: Ready, count: int) -> Rows:
    rows = ready.served.compiled.decode(body_of(ready, count), count)
    assert rows is not None
    assert len(rows) == count
    return rows


def prepared(ready: Ready, count: int) -> Prepared:
    return pipeline.prepare(
        ready.served, rows_of(ready, count), Caller(ready.client_id, REQUEST_ID), 1, every_class=True
    )


# -- bytes -> valid rows -------------------------------------------------------------------------------


def test_decode_compiled(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("decode", count)
    result = benchmark(ready.served.compiled.decode, body_of(ready, count), count)
    assert len(result) == count


def test_decode_by_the_schema(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("decode", count)
    body, schema = body_of(ready, count), ready.served.schema

    def read() -> list[Any]:
        data = decode_json(body)
        return [schema.read(row) for row in (data if isinstance(data, list) else [data])]

    result = benchmark(read)
    assert [row.values for row in result] == ready.rows[:count]


# -- valid rows -> scores ------------------------------------------------------------------------------


def test_score_onnx(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("score", count)
    rows, engine = rows_of(ready, count), ready.served.engine
    result = benchmark(lambda: engine.score(rows.matrix(), rows.texts(engine.text_columns)))  # type: ignore[attr-defined]
    assert len(result.plain().values) == count


def test_score_sklearn(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("score", count)
    result = benchmark(ready.sklearn.predict, ready.rows[:count])
    assert len(result.values) == count


# -- valid rows -> answer, and its log rows ------------------------------------------------------------


def test_prepare(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("after decoding", count)
    rows, caller = rows_of(ready, count), Caller(ready.client_id, REQUEST_ID)
    result = benchmark(pipeline.prepare, ready.served, rows, caller, 1)
    assert len(result.ids) == count


def test_entry(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("after decoding", count)
    result = benchmark(prepared(ready, count).entry, 1)
    assert len(result.rows) == count


def test_answer_as_json(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.group("after decoding", count)
    answer = prepared(ready, count)
    result = benchmark(answer.body)
    assert len(json.loads(result)["predictions"]) == count


# -- log rows -> committed -----------------------------------------------------------------------------


@pytest.fixture
def writer(versions: dict[str, Ready]) -> Iterator[Writer]:
    writer = Writer(most_rows=10_000)
    yield writer
    writer.close()


@pytest.mark.parametrize("group", [1, 8, 32, 1_000], ids=lambda group: f"{group} rows")
def test_writer(benchmark: Benchmark, versions: dict[str, Ready], writer: Writer, group: int) -> None:
    """Measures from `submit` to the release after COMMIT, one group at a time."""
    benchmark.group = "writer, churn"
    generation = routing.generation()
    entries: list[Entry] = []

    def prepare() -> tuple[tuple[Entry], dict[str, Any]]:
        entries.append(prepared(versions["churn"], group).entry(generation))  # each entry has its own ids
        return (entries[-1],), {}

    def write(entry: Entry) -> None:
        writer.submit(entry)
        assert entry.wait(20)

    benchmark.pedantic(write, setup=prepare, rounds=WRITTEN_GROUPS, warmup_rounds=5)
    assert all(entry.error is None for entry in entries)
    assert writer.written_rows == group * len(entries)
    assert writer.groups == len(entries)


# -- metrics of an answer ------------------------------------------------------------------------------


def test_telemetry(benchmark: Benchmark, ready: Ready, count: int) -> None:
    """Measures the metrics that each request changes."""
    benchmark.group = ready.group("counting", count)
    answer = prepared(ready, count)
    served, values, classes = answer.served, answer.values, answer.probabilities is not None

    def add() -> None:
        since = time.perf_counter()
        counters.answered("/r", served, values, time.perf_counter() - since, classes=classes)

    benchmark(add)
    registry, labels = counters.instruments().registry, {"model": served.model_name}
    assert registry.get_sample_value("vigia_prediction_seconds_count", labels)
