"""Recommendations in an export of the log."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from predictions.exports import window
from predictions.rollups import counting
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)


def test_recommended_movies_are_a_typed_list_and_lists_of_the_request_are_json(
    movies: ModelVersion, api: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"liked": [1, 2], "genres": ["Drama"], "top_n": 2, "_key": "visit-7"}
    answer = api.post("/api/v1/recommendations/", asked, format="json").json()
    api.post("/api/v1/recommendations/", {"movie_id": 4}, format="json")
    monkeypatch.setattr(window, "latest_end", lambda: counting.database_now() + counting.lag())
    call_command("export_log", out=tmp_path, model=["movies"], stdout=io.StringIO())
    [file] = tmp_path.glob("model=movies/*/*.parquet")
    first, second = pq.read_table(file).to_pylist()
    assert (first["id"], first["key"]) == (answer["id"], "visit-7")
    given = [{"movie_id": each["movie_id"], "score": each["score"]} for each in answer["recommendations"]]
    assert first["prediction"] == given
    assert (first["input_liked"], first["input_genres"], first["input_top_n"]) == ("[1, 2]", '["Drama"]', 2)
    assert (second["input_liked"], second["input_movie_id"]) == (None, 4)
    assert (first["probabilities"], first["actual"]) == (None, None)
