"""Memory of a training run in relation to its frame: `make bench-memory`.

One process writes a generated table of 20 columns as a dataset; another trains on it as a run does: read,
split, fit, evaluate, choose an engine. For each stage the command prints the memory of the process at the end
and the peak during the stage, less the memory before the first row (the interpreter and its libraries).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vigia_ml.declaration import ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

ROWS = int(os.environ.get("MEMORY_ROWS", "1000000"))
LEVELS = tuple(f"level_{number}" for number in range(8))
SCHEMA = DatasetSchema(
    columns=(
        *(Column(f"number_{n}", "number", nullable=True) for n in range(12)),
        *(Column(f"count_{n}", "integer") for n in range(2)),
        *(Column(f"flag_{n}", "boolean") for n in range(2)),
        *(Column(f"kind_{n}", "category", levels=LEVELS) for n in range(4)),
    ),
    target=Column("answer", "boolean"),
)


def build(seed: int) -> Any:
    """Returns a small model, so that the measurement shows the memory of the run itself."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    numbers = [column.name for column in SCHEMA.columns if column.type != "category"]
    kinds = [column.name for column in SCHEMA.columns if column.type == "category"]
    features = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler(copy=False)), numbers),
            ("kinds", OrdinalEncoder(categories=[list(LEVELS)] * len(kinds)), kinds),
        ],
        sparse_threshold=0,
    )
    return Pipeline([("features", features), ("model", SGDClassifier(loss="log_loss", random_state=seed))])


DECLARED = ModelDeclaration(
    name="wide",
    title="Twenty columns",
    description="Generated rows.",
    task="binary",
    schema=SCHEMA,
    build=build,
    primary_metric="roc_auc",
)


def write(path: Path, rows: int) -> None:
    """Writes the table, generated from a seed, batch by batch."""
    from vigia_ml.fitting.parquet import ROW_GROUP, DatasetWriter

    rng = np.random.default_rng(1)
    with DatasetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, ROW_GROUP):
            count = min(ROW_GROUP, rows - start)
            columns: dict[str, list[Any]] = {}
            for column in SCHEMA.columns:
                if column.type == "number":
                    columns[column.name] = rng.normal(size=count).tolist()
                elif column.type == "category":
                    columns[column.name] = rng.choice(LEVELS, count).tolist()
                else:
                    columns[column.name] = rng.integers(
                        0, 2 if column.type == "boolean" else 1000, count
                    ).tolist()
            columns = {
                name: [bool(v) for v in values] if name.startswith("flag") else values
                for name, values in columns.items()
            }
            leaning = np.array(columns["number_0"]) + rng.normal(size=count) > 0
            columns["answer"] = leaning.tolist()
            writer.write_columns(columns, [None] * count)


def memory() -> tuple[float, float]:
    """Returns (MiB held now, peak since the last call)."""
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    )
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    return float(status["VmRSS"].split()[0]) / 1024, float(status["VmHWM"].split()[0]) / 1024


def measure(path: Path) -> dict[str, Any]:
    """Trains on the dataset; returns the memory of each stage, in MiB above the memory at the start."""
    import sklearn.linear_model  # noqa: F401 - loads the library before the measurement

    from vigia_ml.engines.selection import choose
    from vigia_ml.fitting import fit as fitting
    from vigia_ml.fitting import parquet

    before, _ = memory()
    stages: list[tuple[str, float, float, float]] = []
    began = [("reading", time.monotonic())]

    def report(stage: str, percent: int) -> None:
        held, most = memory()
        name, since = began[-1]
        stages.append((name, held - before, most - before, time.monotonic() - since))
        began.append((stage, time.monotonic()))

    frame = parquet.read_frame(path, SCHEMA)
    size = (
        float(frame.memory_usage(index=False).sum()) / 2**20
    )  # cells share their texts: eight bytes per cell
    fitted = fitting.fit(DECLARED, frame, report, release=True)
    del frame
    report("compiling", 80)
    chosen = choose(fitted.pipeline, fitted.schema, DECLARED.task, fitted.train_features, DECLARED.seed)
    report("", 85)
    return {"frame": size, "stages": stages, "engine": chosen.engine, "metrics": fitted.metrics}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[2]))))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.parquet"
        write(path, ROWS)
        command = [sys.executable, "-m", "bench.memory", "measure", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    size = f"a frame of {result['frame']:.0f} MiB"
    print(f"{ROWS:,} rows × {len(SCHEMA.columns)} columns and the target: {size}")  # noqa: T201
    print(f"{result['engine']}, roc_auc {result['metrics']['roc_auc']:.6f}")  # noqa: T201
    print("| stage | at the end | peak | peak / frame | seconds |\n|---|--:|--:|--:|--:|")  # noqa: T201
    for stage, held, most, seconds in result["stages"]:
        share = most / result["frame"]
        print(f"| {stage} | {held:.0f} MiB | {most:.0f} MiB | {share:.2f} | {seconds:.1f} |")  # noqa: T201


if __name__ == "__main__":
    main()
