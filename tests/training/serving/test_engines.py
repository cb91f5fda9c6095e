"""The engine of a version: training chooses it, verified bytes load it, and it stays small."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.test import Client

from core.errors import ArtifactError
from tests.trained import SAMPLES, train_sample
from training import artifacts, catalogue
from training.models import ModelVersion
from training.registry import activation
from vigia_ml.engines import MatrixEngine, load
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.schema import Column, DatasetSchema, Instance, Seen, matrix
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.row_decoder import CompiledSchema

SCHEMA = DatasetSchema(
    (
        Column("x", "number", nullable=True),
        Column("n", "integer"),
        Column("flag", "boolean", nullable=True),
        Column("closed", "category", levels=("b", "a"), nullable=True),
        Column("open", "category", nullable=True, seen=Seen(levels=("p", "q"))),
        Column("words", "text", nullable=True),
    ),
    Column("y", "number"),
)
ROWS: list[dict[str, Any]] = [
    {"x": 1.5, "n": 3, "flag": True, "closed": "b", "open": "q", "words": "any"},
    {"x": None, "n": -7, "flag": False, "closed": "a", "open": "never seen", "words": "thing"},
    {"x": 0.0, "n": 0, "flag": None, "closed": None, "open": None, "words": None},
]


# -- codes ---------------------------------------------------------------------------------------------


def test_rows_become_one_matrix_of_doubles() -> None:
    encoded = matrix.Coder(SCHEMA).encode(ROWS)
    nan = math.nan
    expected = [[1.5, 3, 1, 0, 1, -1], [nan, -7, 0, 1, -1, -1], [0, 0, nan, nan, nan, nan]]
    np.testing.assert_array_equal(encoded, expected)
    assert encoded.dtype == np.float64
    assert encoded.flags.c_contiguous
    assert matrix.Coder(SCHEMA).encode([]).shape == (0, 6)


def test_rows_columns_and_the_compiled_decoder_give_the_same_codes() -> None:
    by_row = matrix.Coder(SCHEMA).encode(ROWS)
    by_column = matrix.encode_columns(SCHEMA, {name: [row[name] for row in ROWS] for name in SCHEMA.names})
    decoded = CompiledSchema(SCHEMA).from_values(ROWS, [None] * len(ROWS)).matrix()
    np.testing.assert_array_equal(by_row, by_column)
    np.testing.assert_array_equal(by_row, decoded)


# -- versions ------------------------------------------------------------------------------------------


def rows_of(version: ModelVersion, count: int = 20) -> list[dict[str, Any]]:
    """Returns the first rows of the model's sample."""
    schema = version.dataset_schema
    with (SAMPLES / f"{version.registered_model.name}.csv").open("rb") as stream:
        [batch, *_] = CsvReader(stream, schema, with_target=True).batches(count)
    return [{name: batch.columns[name][row] for name in schema.names} for row in range(count)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "rows"), [("churn", 600), ("houses", 600), ("cars", 400), ("cars_v3", 400), ("bikes", 600)]
)
def test_a_run_compiles_the_version_and_both_engines_answer_alike(name: str, rows: int) -> None:
    """Every shipped model is compiled, so that the fast path answers all of them."""
    version = train_sample(name, rows=rows)
    assert version.engine == "onnx"
    assert version.engine_reason.startswith("compiled; ")
    assert version.parity["passed"]
    assert version.parity["worst"] < 1e-12
    assert version.parity["rows"] > 10_000
    assert version.parity["edges_asked"] > 50 or name == "churn", "its steps are linear"
    assert {"onnx", "onnxruntime", "skl2onnx"} <= set(version.libraries)
    compiled, pipeline = artifacts.load(version), artifacts.load_pipeline(version)
    assert isinstance(compiled, MatrixEngine)
    assert (compiled.takes_matrix, pipeline.takes_matrix) == (True, False)
    sample = rows_of(version)
    ours, theirs = compiled.predict(sample), pipeline.predict(sample)
    assert list(ours.classes) == list(theirs.classes)
    if theirs.probabilities is None:
        assert ours.values == pytest.approx(theirs.values, rel=1e-9)
    else:
        assert ours.values == theirs.values
        assert np.asarray(ours.probabilities) == pytest.approx(np.asarray(theirs.probabilities), abs=1e-9)


LISTING = {
    "year": 2014, "km_driven": 60_000, "fuel": "Diesel", "seller_type": "Individual",
    "transmission": "Manual", "owner": "First Owner",
}  # fmt: skip
NAMES = (
    "Maruti Swift VDI", "  MARUTI   swift vdi ", "Maruti", "Land Rover", "Land Rover Discovery 4 3.0 TDV6",
    "BMW 5 Series 520d", "Mercedes-Benz E250 CDI", "Nobody Has Built This", "4=maruti 0=diesel", "missing",
    "x", "Škoda Octavia 1.9 TDI", "ॐ १.४", "0", "a\u00a0b", "Maruti Maruti Maruti",
)  # fmt: skip
TECHNICAL = (
    {"mileage": "23.4 kmpl", "engine": "1248 CC", "max_power": "74 bhp", "torque": "190Nm@ 2000rpm"},
    {"mileage": "17.3 km/kg", "engine": "1,248 CC", "max_power": "bhp", "torque": "22.4 kgm at 1750-2750rpm"},
    {"mileage": None, "engine": None, "max_power": None, "torque": None},
    {"mileage": "kmpl", "engine": "", "max_power": "0", "torque": "115@ 2,500(kgm@ rpm)"},
    {"mileage": "9" * 40, "engine": "1e3", "max_power": "-74", "torque": "510@ 1600-2400"},
)  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["cars", "cars_v3"])
def test_a_compiled_version_reads_texts_as_its_pipeline_does(name: str) -> None:
    version = train_sample(name, rows=400)
    schema = version.dataset_schema
    compiled, pipeline = artifacts.load(version), artifacts.load_pipeline(version)
    assert isinstance(compiled, MatrixEngine)
    assert compiled.text_columns
    for technical in ({"seats": 5} | each for each in TECHNICAL) if name == "cars_v3" else ({},):
        for listed in NAMES:
            row = schema.read(LISTING | technical | {"name": listed})
            assert isinstance(row, Instance), row
            [ours] = compiled.predict([row.values]).values
            try:
                with np.errstate(over="ignore"):
                    [theirs] = pipeline.predict([row.values]).values
            except ValueError:  # a number beyond single precision, which scikit-learn refuses
                assert math.isnan(ours), row
            else:
                assert ours == pytest.approx(theirs, rel=1e-12), row


@pytest.mark.django_db
def test_a_missing_text_is_reported_and_not_guessed() -> None:
    version = train_sample("cars", rows=400)
    engine = artifacts.load(version)
    assert isinstance(engine, MatrixEngine)
    with pytest.raises(ValueError, match="reads 1 text columns, not 0"):
        engine.score(matrix.Coder(version.dataset_schema).encode([version.dataset_schema.example]))


@pytest.mark.django_db
def test_the_database_holds_no_compiled_version_without_its_bytes(churn: ModelVersion) -> None:
    with pytest.raises(IntegrityError, match="version_onnx_is_compiled"), transaction.atomic():
        train_sample("churn", rows=600, activate=False, compiled_sha256="")


@pytest.mark.django_db
def test_changed_compiled_bytes_are_rejected(churn: ModelVersion) -> None:
    name = f"artifacts/{churn.compiled_sha256[:2]}/{churn.compiled_sha256}"
    good = artifacts.fetch_compiled(churn)
    second = train_sample("churn", rows=600, activate=False)
    try:
        default_storage.save(name, ContentFile(good[:-1] + b"x"))
        with pytest.raises(ArtifactError, match="compiled engine of churn 1 was changed"):
            artifacts.load(churn)
        with pytest.raises(ArtifactError, match="digest does not match"):
            activation.activate(second, by=None, reason="same bytes")
        assert artifacts.load_pipeline(churn).name == "sklearn", "the pipeline is whole"
        default_storage.delete(name)
        with pytest.raises(ArtifactError, match="compiled engine of churn 1 is not in the store"):
            artifacts.load(churn)
    finally:
        default_storage.save(name, ContentFile(good))
    assert artifacts.load(churn).name == "onnx"


@pytest.mark.django_db
def test_compiled_bytes_signed_with_another_key_are_rejected(churn: ModelVersion, settings: Any) -> None:
    settings.ARTIFACT_KEY = "another"
    with pytest.raises(ArtifactError, match="compiled engine of churn 1 was not signed"):
        artifacts.load(churn)


@pytest.mark.django_db
def test_signed_bytes_that_are_not_a_model_are_reported(churn: ModelVersion) -> None:
    stored = artifacts.store(b"no model")
    churn.compiled_sha256, churn.compiled_hmac = stored.sha256, stored.hmac
    with pytest.raises(ArtifactError, match="churn 1 cannot be loaded by this code"):
        artifacts.load(churn)


@pytest.mark.django_db
def test_a_compiled_engine_refuses_a_schema_with_other_codes(churn: ModelVersion) -> None:
    data = artifacts.fetch_compiled(churn)
    with pytest.raises(ValueError, match="compiled for other columns or levels"):
        OnnxEngine.from_bytes(data, catalogue.get("houses").schema)


@pytest.mark.django_db
def test_a_matrix_of_another_shape_is_a_value_error(churn: ModelVersion) -> None:
    engine = load("onnx", artifacts.fetch_compiled(churn), churn.dataset_schema)
    assert isinstance(engine, MatrixEngine)
    with pytest.raises(ValueError, match="ONNX Runtime rejected the rows"):
        engine.score(np.zeros((1, 3)))


@pytest.mark.django_db
def test_the_example_of_the_form_has_an_answer_in_both_engines(churn: ModelVersion) -> None:
    read = churn.dataset_schema.read(churn.dataset_schema.example)
    assert isinstance(read, Instance)
    [ours], [theirs] = (
        engine.predict([read.values]).probabilities or []
        for engine in (artifacts.load(churn), artifacts.load_pipeline(churn))
    )
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.django_db
def test_api_and_admin_show_the_engine_and_the_reason(churn: ModelVersion, api: Any) -> None:
    shown = api.get("/api/v1/models/churn/versions/1/").json()
    assert shown["engine"] == "onnx"
    assert shown["engine_reason"] == churn.engine_reason
    assert shown["parity"]["passed"] is True
    assert shown["lineage"]["compiled_sha256"] == churn.compiled_sha256
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get(f"/admin/training/modelversion/{churn.pk}/change/").content.decode()
    assert churn.engine_reason in page
    assert "rows compared in both engines" in page


# -- the serving process -------------------------------------------------------------------------------

SERVE = """
import json, pathlib, sys
import numpy as np
from vigia_ml.engines import load
from vigia_ml.schema import DatasetSchema
schema = DatasetSchema.from_json(json.loads(pathlib.Path(sys.argv[2]).read_text()))
engine = load("onnx", pathlib.Path(sys.argv[1]).read_bytes(), schema)
[row] = engine.predict([schema.example]).probabilities
assert abs(sum(row) - 1) < 1e-12
heavy = {"sklearn", "pandas", "scipy", "joblib", "skl2onnx", "onnx", "pyarrow"} & set(sys.modules)
assert not heavy, heavy

def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

matrix = np.zeros((1500, len(schema.columns)))
engine.score(matrix)
before = resident()
for rows in range(1, 1500, 2):
    engine.score(matrix[:rows])
print(before, resident() - before)
"""


@pytest.mark.django_db
def test_serving_imports_no_scikit_learn_and_memory_does_not_grow_with_sizes(
    churn: ModelVersion, tmp_path: Path
) -> None:
    import json

    (tmp_path / "model").write_bytes(artifacts.fetch_compiled(churn))
    (tmp_path / "schema").write_text(json.dumps(churn.schema))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SERVE, tmp_path / "model", tmp_path / "schema"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resident, grown = map(float, done.stdout.split())
    assert resident < 100, "MiB, Python, numpy and ONNX Runtime included"
    assert grown < 10, "MiB: nothing is kept for each number of rows"
