"""Access to the recommender's page, and its content."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from recommender.models import Movie
from tests.conftest import Staff, assert_error
from training.models import ModelVersion, RegisteredModel
from training.registry import lookup

pytestmark = pytest.mark.django_db


def test_a_login_is_required_and_keeps_the_question(client: Client) -> None:
    response = client.get("/movies/?movie=1")
    assert response.status_code == 302
    assert response["Location"] == "/admin/login/?next=/movies/%3Fmovie%3D1"


def test_without_the_right_to_predict_the_page_names_the_right(staff: Staff) -> None:
    lookup.sync_catalogue()
    other = RegisteredModel.objects.get(name="churn")
    response = staff("predict", only=other).get("/movies/")
    assert response.status_code == 403
    assert "<code>predict</code> for the model <code>movies</code>" in response.content.decode()


def test_without_an_active_index_the_page_shows_the_commands_to_trainers(staff: Staff) -> None:
    lookup.sync_catalogue()
    asks = staff("predict").get("/movies/").content.decode()
    assert "No version of the model" in asks and "load_movies" not in asks
    assert "load_movies" in staff("predict", "train", name="trainer").get("/movies/").content.decode()


def test_the_page_offers_the_catalogues_options_and_has_no_inline_script(
    staff: Staff, movies: ModelVersion
) -> None:
    Movie.objects.filter(pk=4).update(withdrawn_at="2026-01-01T00:00Z")
    response = staff("predict").get("/movies/")
    page = response.content.decode()
    assert 'href="?movie=1">The Lighthouse Keeper' in page
    assert "Robots at Dawn" not in page
    assert 'value="Science Fiction"' in page and '<option value="es">' in page
    assert "data-may-report" not in page and "data-may-read" not in page
    assert page.count("<script") == page.count("<script src=") > 0
    assert " style=" not in page and "onclick" not in page
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_page_offers_feedback_and_log_links_with_the_rights(client: Client, movies: ModelVersion) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get("/movies/").content.decode()
    assert "data-may-report" in page and "data-may-read" in page


def test_suggestions_are_the_most_popular_titles_with_the_beginning(
    staff: Staff, catalogue: RegisteredModel
) -> None:
    Movie.objects.filter(pk=1).update(withdrawn_at="2026-01-01T00:00Z")
    asks = staff("predict", only=catalogue)
    body = asks.get("/api/v1/movies/suggestions/", {"title": " TWÍCE"}).json()
    assert body == {
        "movies": [
            {"id": 8, "title": "Twice Told", "year": 2020},
            {"id": 7, "title": "Twice Told", "year": 1980},
        ]
    }
    assert asks.get("/api/v1/movies/suggestions/", {"title": "the lightship"}).json() == {"movies": []}
    assert asks.get("/api/v1/movies/suggestions/").json() == {"movies": []}
    other = staff("predict", only=RegisteredModel.objects.get(name="churn"), name="stranger")
    assert_error(other.get("/api/v1/movies/suggestions/", {"title": "t"}), 403, "forbidden")
