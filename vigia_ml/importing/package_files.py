"""Names of the files of a package, as a push brings them."""

from typing import Final

GRAPH: Final = "graph.onnx"
TRAIN: Final = "train.parquet"
HOLDOUT: Final = "holdout.parquet"
ANSWERS: Final = "answers.parquet"
MANIFEST: Final = "manifest.json"
