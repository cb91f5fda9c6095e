"""A catalogue small enough for calculations by hand, and an index of it from a real training run."""

from __future__ import annotations

from typing import Any

import pytest

from recommender.declaration import NAME
from recommender.models import Movie
from tests.trained import _fields
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.registry import activation, lookup
from training.runs import requests as run_requests

MOVIES: list[dict[str, Any]] = [
    {"id": number, "title": title, "genres": genres, "year": year, "language": language,
     "popularity": popularity, "description": description, "keywords": keywords}
    for number, title, genres, year, language, popularity, description, keywords in (
        (1, "The Lighthouse Keeper", ["Drama"], 1999, "en", 9.0,
         "A keeper guards a lighthouse on a lonely island and waits for a ship.", ["lighthouse", "island"]),
        (2, "Storm over the Island", ["Drama", "Adventure"], 2005, "en", 7.0,
         "A storm drives a ship onto the island where a lighthouse stands dark.", ["island", "storm"]),
        (3, "Ship of Salt", ["Adventure"], 2010, "en", 5.0,
         "A ship full of salt crosses the ocean with a mutinous crew.", ["ship"]),
        (4, "Robots at Dawn", ["Science Fiction"], 2015, "en", 8.0,
         "Robots wake at dawn and build a city without people.", ["robot", "city"]),
        (5, "City of Robots", ["Science Fiction", "Drama"], 2018, "en", 6.0,
         "In a city of robots the last people learn to hide.", ["robot", "city"]),
        (6, "El faro", ["Drama"], 2001, "es", 2.0,
         "Un farero vive solo en un faro y escribe cartas al mar.", ["lighthouse"]),
        (7, "Twice Told", ["Comedy"], 1980, "en", 1.0, "Two clowns tell the same joke.", ["clown"]),
        (8, "Twice Told", ["Comedy"], 2020, "en", 3.0,
         "Two clowns tell the joke again, in a circus.", ["clown"]),
        (9, "Untold", ["Comedy"], 2021, "en", 4.0, "", []),
        (10, "Blank", [], 2022, "en", 0.0, "", []),
        (11, "A Circus Winter", ["Comedy"], 2003, "en", 2.5,
         "A circus spends the winter with its clowns.", ["clown", "winter"]),
    )
]  # fmt: skip

_BUILT: dict[str, list[dict[str, Any]]] = {}


def add_movies() -> None:
    """Saves the movies one by one, as the admin does."""
    for each in MOVIES:
        Movie.objects.create(**each)


def build_index() -> ModelVersion:
    """Builds a version of `movies` from the current catalogue."""
    run = run_requests.request_again(RegisteredModel.objects.get(name=NAME), by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return ModelVersion.objects.select_related("registered_model").get(run=run)


@pytest.fixture
def catalogue(db: None) -> RegisteredModel:
    """Returns the registered model with the small catalogue and no version."""
    lookup.sync_catalogue()
    add_movies()
    return RegisteredModel.objects.get(name=NAME)


@pytest.fixture
def movies(catalogue: RegisteredModel) -> ModelVersion:
    """Returns an active index of the small catalogue."""
    return active_index(NAME)


def active_index(key: str) -> ModelVersion:
    """Returns an active index of the current catalogue, the first version of `movies`. The index is built
    once per session and `key`; later calls write the same rows again."""
    model = RegisteredModel.objects.get(name=NAME)
    known = _BUILT.get(key)
    if known is None:
        version = build_index()
        _BUILT[key] = [_fields(version.dataset), _fields(version.run), _fields(version)]
    else:
        dataset = Dataset.objects.create(**known[0] | {"registered_model": model})
        run = TrainingRun.objects.create(**known[1] | {"registered_model": model, "dataset": dataset})
        links = {"registered_model": model, "run": run, "dataset": dataset, "number": 1}
        version = ModelVersion.objects.create(**known[2] | links | {"status": "candidate"})
    if version.status != "active":
        activation.activate(version, by=None, reason="a test needs it", override=True)
        version.refresh_from_db()
    return version
