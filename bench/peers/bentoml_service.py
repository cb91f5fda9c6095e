"""BentoML: the same pydantic model and pipeline, with its adaptive batching."""

import os
from pathlib import Path

import bentoml
import joblib

from bench.peers.churn_types import Answer, Customer, answers


# A request of 1,000 rows must fit into a batch; otherwise BentoML refuses it.
@bentoml.service(workers=2, traffic={"timeout": 30})
class Churn:
    def __init__(self) -> None:
        self.pipeline = joblib.load(Path(os.environ["BENCH_MODELS"]) / "churn-frame.joblib")

    @bentoml.api(route="/churn", batchable=True, max_batch_size=4000, max_latency_ms=10_000)
    def churn(self, customers: list[Customer]) -> list[Answer]:
        return answers(self.pipeline, customers)
