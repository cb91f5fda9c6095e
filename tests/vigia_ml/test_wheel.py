"""The library as users install it: a wheel, in an otherwise empty environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A notebook's steps: read a CSV, fit and compile a pipeline, predict a row.
NOTEBOOK = """
import json, sys
from pathlib import Path

from churn import MODEL
from vigia_ml import Column, DatasetSchema, Malformed, ModelDeclaration
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.selection import choose
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.fitting import fit, parquet
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.json_body import decode_json

assert isinstance(MODEL, ModelDeclaration) and isinstance(MODEL.schema, DatasetSchema)
with open("churn.csv", "rb") as stream:
    reader = CsvReader(stream, MODEL.schema, with_target=True)
    with parquet.DatasetWriter(Path("rows.parquet"), MODEL.schema) as writer:
        for batch in reader.batches(10_000):
            writer.write_columns(batch.columns, batch.keys)
fitted = fit.fit(MODEL, parquet.read_frame(Path("rows.parquet"), MODEL.schema))
choice = choose(
    fitted.pipeline, fitted.schema, MODEL.task, fitted.train_features, MODEL.seed, fitted.threshold
)
assert choice.engine == "onnx", choice.reason
row = MODEL.schema.read(MODEL.schema.example).values
pipeline = SklearnEngine.from_bytes(SklearnEngine(fitted.pipeline, fitted.schema).to_bytes(), fitted.schema)
answers = [
    engine.predict([row]).probabilities
    for engine in (OnnxEngine.from_bytes(choice.compiled, fitted.schema), pipeline)
]
try:
    decode_json(b"{")
except Malformed as error:
    code = error.code
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"answers": answers, "metrics": fitted.metrics, "code": code, "modules": modules}))
"""
SERVER = {
    "config",
    "web",
    "recommender",
    "predictions",
    "training",
    "core",
    "django",
    "rest_framework",
    "celery",
}


def run(directory: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from a copy of the source, because building leaves directories behind."""
    directory = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, directory)
    shutil.copytree(ROOT / "vigia_ml", directory / "vigia_ml", ignore=shutil.ignore_patterns("__pycache__"))
    run(directory, sys.executable, "-m", "venv", "builder")
    run(directory, "builder/bin/pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".")
    [built] = (directory / "dist").iterdir()
    return built


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith("/METADATA")]
        output = archive.read(metadata).decode()
    assert {name.partition("/")[0] for name in names} == {"vigia_ml", metadata.partition("/")[0]}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vigia_ml").rglob("*.py")}
    assert modules | {"vigia_ml/py.typed"} <= set(names)
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?:(?!extra).)*$", output, re.MULTILINE)
    assert sorted(required) == ["httpx", "msgspec", "typer"], "all else comes with [models]"
    assert "Name: vigia-ml\n" in output


def test_an_empty_environment_fits_compiles_and_answers_a_catalogue_model(
    wheel: Path, tmp_path: Path
) -> None:
    pinned = re.findall(r"^(\w.*?==.*?) \\$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    (tmp_path / "pinned.txt").write_text("\n".join(pinned))
    shutil.copy(ROOT / "training" / "catalogue" / "churn.py", tmp_path)
    shutil.copy(ROOT / "training" / "samples" / "churn.csv", tmp_path)
    (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    run(tmp_path, sys.executable, "-m", "venv", "empty")
    install = ["empty/bin/pip", "install", "--quiet", "--no-compile", "--constraint", "pinned.txt"]
    run(tmp_path, *install, f"{wheel}[models]")

    output: dict[str, Any] = json.loads(run(tmp_path, "empty/bin/python", "notebook.py"))

    compiled, fitted = output["answers"]
    assert compiled[0] == pytest.approx(fitted[0], rel=1e-6)
    assert output["metrics"]["roc_auc"] > 0.75
    assert output["code"] == "invalid_json"
    assert not SERVER & set(output["modules"])


def test_columns_are_declared_without_the_libraries_that_fit(wheel: Path, tmp_path: Path) -> None:
    """The environment lacks the extra; a schema does not need numpy either."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from vigia_ml import Column, DatasetSchema\n"
        "schema = DatasetSchema((Column('size', 'number'),), Column('price', 'number'))\n"
        "assert schema.read({'size': '3'}, text=True).values == {'size': 3.0}\n"
        "print(sorted({'numpy', 'pandas', 'sklearn', 'onnxruntime', 'django'} & set(sys.modules)))\n"
    )
    assert run(tmp_path, sys.executable, "-I", "-c", script, wheel) == "[]\n"
