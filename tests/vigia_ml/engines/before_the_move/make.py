"""Made the artifact here, in the tree of commit b32c225, where the library was part of `training/`:

git worktree add /tmp/before b32c225 && cd /tmp/before && python …/make.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = 400
sys.path.insert(0, ".")

if __name__ == "__main__":
    from training.engines.sklearn import SklearnEngine  # type: ignore[import-not-found]
    from training.schema.reading import CsvReader  # type: ignore[import-not-found]

    from training import catalogue, datasets, fitting  # type: ignore[attr-defined]

    declared = catalogue.get("churn")
    parquet = HERE / "rows.parquet"
    with Path("training/samples/churn.csv").open("rb") as stream:
        reader = CsvReader(stream, declared.schema, with_target=True)
        batch = next(iter(reader.batches(ROWS)))
        with datasets.DatasetWriter(parquet, declared.schema) as writer:
            writer.write_columns(batch.columns, batch.keys)
    frame = datasets.read_frame(parquet, declared.schema)
    parquet.unlink()
    engine = SklearnEngine(fitting.fit(declared, frame).pipeline, declared.schema)
    (HERE / "churn.joblib").write_bytes(engine.to_bytes())
    example = declared.schema.read(declared.schema.example).values
    scores = engine.predict([example])
    (HERE / "churn.json").write_text(json.dumps({"probabilities": scores.probabilities}) + "\n")
