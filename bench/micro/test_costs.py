"""What single steps of an answer cost. The fast way stands beside the one it spares."""

from __future__ import annotations

import json
import time
from collections import Counter
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
from web.metrics.exporter import Instruments

# So that there is a test database at all. What is written to it is committed before, or by the log's writer.
pytestmark = pytest.mark.django_db
Benchmark = Any  # pytest-benchmark has no types
REQUEST_ID = "01a1fae0-7c1e-7b33-8d02-2f5f6d1f9a10"
WRITTEN_GROUPS = 200


def body_of(ready: Ready, count: int) -> bytes:
    rows = ready.rows[:count]
    return json.dumps(rows[0] if count == 1 else rows).encode()


def rows_of(ready: Ready, count: int) -> Rows:
    found = ready.served.compiled.decode(body_of(ready, count), count)
    assert found is not None
    assert len(found) == count
    return found


def prepared(ready: Ready, count: int) -> Prepared:
    return pipeline.prepare(ready.served, rows_of(ready, count), Caller(ready.client_id, REQUEST_ID), 1)


# -- bytes -> valid rows -------------------------------------------------------------------------------


def test_decode_compiled(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("decode", count)
    found = benchmark(ready.served.compiled.decode, body_of(ready, count), count)
    assert len(found) == count


def test_decode_by_the_schema(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("decode", count)
    body, schema = body_of(ready, count), ready.served.schema

    def read() -> list[Any]:
        data = decode_json(body)
        return [schema.read(row) for row in (data if isinstance(data, list) else [data])]

    found = benchmark(read)
    assert [row.values for row in found] == ready.rows[:count]


# -- valid rows -> scores ------------------------------------------------------------------------------


def test_score_onnx(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("score", count)
    rows, engine = rows_of(ready, count), ready.served.engine
    found = benchmark(lambda: engine.score(rows.matrix(), rows.texts(engine.text_columns)))  # type: ignore[attr-defined]
    assert len(found.plain().values) == count


def test_score_sklearn(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("score", count)
    found = benchmark(ready.sklearn.predict, ready.rows[:count])
    assert len(found.values) == count


# -- valid rows -> answer, and its log rows ------------------------------------------------------------


def test_prepare(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("after decoding", count)
    rows, caller = rows_of(ready, count), Caller(ready.client_id, REQUEST_ID)
    found = benchmark(pipeline.prepare, ready.served, rows, caller, 1)
    assert len(found.ids) == count


def test_entry(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("after decoding", count)
    found = benchmark(prepared(ready, count).entry, 1)
    assert len(found.rows) == count


def test_answer_as_json(benchmark: Benchmark, ready: Ready, count: int) -> None:
    benchmark.group = ready.named("after decoding", count)
    made = prepared(ready, count)
    found = benchmark(made.body)
    assert len(json.loads(found)["predictions"]) == count


# -- log rows -> committed -----------------------------------------------------------------------------


@pytest.fixture
def writer(versions: dict[str, Ready]) -> Iterator[Writer]:
    made = Writer(most_rows=10_000)
    yield made
    made.close()


@pytest.mark.parametrize("group", [1, 8, 32, 1_000], ids=lambda group: f"{group} rows")
def test_writer(benchmark: Benchmark, versions: dict[str, Ready], writer: Writer, group: int) -> None:
    """From `submit` to the release after COMMIT, one group at a time."""
    benchmark.group = "writer, churn"
    generation = routing.generation()
    made: list[Entry] = []

    def make() -> tuple[tuple[Entry], dict[str, Any]]:
        made.append(prepared(versions["churn"], group).entry(generation))  # its rows have ids of their own
        return (made[-1],), {}

    def write(entry: Entry) -> None:
        writer.submit(entry)
        assert entry.wait(20)

    benchmark.pedantic(write, setup=make, rounds=WRITTEN_GROUPS, warmup_rounds=5)
    assert all(entry.error is None for entry in made)
    assert writer.written_rows == group * len(made)
    assert writer.groups == len(made)


# -- what an answer adds to the metrics ----------------------------------------------------------------


def test_telemetry_plain_numbers(benchmark: Benchmark, ready: Ready, count: int) -> None:
    """What each request does."""
    benchmark.group = ready.named("counting", count)
    made = prepared(ready, count)
    served, values, classes = made.served, made.values, made.probabilities is not None
    counters.take()

    def add() -> None:
        since = time.perf_counter()
        counters.answered("/r", served, values, time.perf_counter() - since, classes=classes)

    benchmark(add)
    taken = counters.take().answers["/r", served.version_id]
    assert taken.rows == count * sum(taken.buckets)


def test_telemetry_prometheus_client(benchmark: Benchmark, ready: Ready, count: int) -> None:
    """What it would do if it told Prometheus' client itself, without the files of several processes."""
    benchmark.group = ready.named("counting", count)
    made = prepared(ready, count)
    tell, name, number = Instruments(), made.served.model_name, str(made.served.number)

    def add() -> None:
        since = time.perf_counter()
        tell.counters["vigia_requests_total"].labels("/r", "POST", "200").inc()
        tell.histograms["vigia_prediction_seconds"].labels(name).observe(time.perf_counter() - since)
        for value, rows in Counter(made.values).items() if made.probabilities is not None else [(b"", count)]:
            tell.counters["vigia_predictions_total"].labels(name, number, value.decode()).inc(rows)

    benchmark(add)
    found = tell.registry.get_sample_value("vigia_prediction_seconds_count", {"model": name})
    assert found is not None
    assert found > 0
