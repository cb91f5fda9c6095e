"""The gate of an index: it compares metrics on held-out interactions of two moments, allowing for chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import call_command

from recommender import training_run
from recommender.index.build import Built
from tests.recommender.conftest import build_index
from training.models import ModelVersion, RegisteredModel
from training.registry import lookup

SAMPLES = Path(training_run.__file__).resolve().parent / "samples"


def built(ndcg: float, error: float | None) -> Built:
    metrics = {"ndcg_at_10": ndcg, "coverage": 0.9, "latency_ms": 1.0}
    return Built(b"", metrics, {"ndcg_at_10": 0.05, "coverage": 0.1}, {"error": error})


def passes(ndcg: float, error: float | None, active: float, active_error: float | None) -> bool:
    version = ModelVersion(number=1, metrics={"ndcg_at_10": active}, evaluation={"error": active_error})
    verdict = training_run.verdict(built(ndcg, error), version)
    assert verdict["compared_with"] == 1
    [check] = [check for check in verdict["checks"] if check["name"] == "not_worse_than_active"]
    assert verdict["passed"] == check["passed"]
    return bool(check["passed"])


def test_an_index_is_worse_only_if_the_difference_exceeds_chance() -> None:
    assert passes(0.34, 0.027, 0.38, 0.027), "1.96 standard errors of the difference are 0.075"
    assert not passes(0.30, 0.027, 0.38, 0.027)
    assert not passes(0.34, 0.003, 0.38, 0.003), "many users: chance explains less than the allowed 5 %"
    assert passes(0.365, 0.003, 0.38, 0.003)
    assert not passes(0.34, 0.0, 0.38, None), "a version older than the stored errors"
    assert passes(0.34, 0.02, 0.0, 0.0)


@pytest.mark.real_data
@pytest.mark.django_db
def test_an_index_of_the_published_and_the_sample_movies_passes_the_gate(data_dir: Path) -> None:
    lookup.sync_catalogue()
    call_command("load_movies", str(SAMPLES / "movies.jsonl"))
    call_command("load_interactions", str(SAMPLES / "interactions.csv"))
    model = RegisteredModel.objects.get(name="movies")
    first = build_index()
    assert model.active_version == first
    call_command("load_movies", str(data_dir / "tmdb_5000_movies.csv.gz"))
    second = build_index()
    assert second.gate["passed"], second.gate
    assert RegisteredModel.objects.get(name="movies").active_version == second
