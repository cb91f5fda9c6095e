"""The catalogue and its interactions in the admin: the same rights as over HTTP, fast lists at any length."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from recommender.catalogue import service as catalogue_service
from recommender.models import Interaction, Movie
from tests.conftest import Staff
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
MOVIES, INTERACTIONS = "/admin/recommender/movie/", "/admin/recommender/interaction/"
SCRIPT = "<script>alert(1)</script>"
FORM: dict[str, Any] = {
    "id": "9001", "title": "The Tidal Clock", "original_title": "", "description": "An island shrinks.",
    "genres": "Drama\nFantasy", "keywords": "island | new york, city", "year": "2019", "language": "EN",
    "popularity": "12.5", "rating": "7.1", "votes": "310", "runtime": "",
}  # fmt: skip


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def shown(response: Any) -> list[int]:
    assert response.status_code == 200, response
    return [row.pk for row in response.context["cl"].result_list]


def record(movie_id: int, kind: str = "liked", user: str = "u-1") -> Interaction:
    return Interaction.objects.create(user=user, movie_id=movie_id, kind=kind, at=timezone.now())


# -- the list ------------------------------------------------------------------------------------------


def test_the_most_popular_movies_come_first_and_pages_continue_by_position(
    admin: Client, catalogue: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recommender.admin.movies import MovieAdmin

    by_popularity = list(Movie.objects.order_by("-popularity", "pk").values_list("pk", flat=True))
    assert shown(admin.get(MOVIES)) == by_popularity
    Movie.objects.update(popularity=1.5)  # the id breaks ties
    monkeypatch.setattr(MovieAdmin, "list_per_page", 4)
    listed: list[int] = []
    page, address = None, "?"
    while address:
        page = admin.get(f"{MOVIES}{address}")
        listed += shown(page)
        address = page.context["cl"].next_page
    assert listed == list(range(1, 12))
    assert page is not None
    assert shown(admin.get(MOVIES + page.context["cl"].first_page)) == [1, 2, 3, 4]


def test_movies_are_found_by_title_id_year_language_and_withdrawal(
    admin: Client, catalogue: RegisteredModel
) -> None:
    catalogue_service.withdraw([7], by=None)
    assert shown(admin.get(f"{MOVIES}?q=twice")) == [8]
    assert shown(admin.get(f"{MOVIES}?q=twice&withdrawn=yes")) == [7]
    assert shown(admin.get(f"{MOVIES}?q=7")) == [7], "an id is found, withdrawn or not"
    assert shown(admin.get(f"{MOVIES}?year=2018")) == [5]
    assert shown(admin.get(f"{MOVIES}?language=es")) == [6]
    assert shown(admin.get(f"{MOVIES}?withdrawn=yes")) == [7]
    for odd in ("?q=%CC%81", "?q=zzz", "?q=99999999999999999999999"):
        assert shown(admin.get(MOVIES + odd)) == []
    for refused in ("?after=x", "?after=nan,1", "?after=1,99999999999999999999", "?after=inf,1"):
        assert admin.get(MOVIES + refused).status_code == 302, "back to the list"
    assert admin.get(f"{MOVIES}?title=x").status_code == 400, "no index serves any other condition"


def test_lists_run_the_same_few_queries_at_any_length(admin: Client, catalogue: RegisteredModel) -> None:
    def queries(address: str) -> list[str]:
        with CaptureQueriesContext(connection) as context:
            assert admin.get(address).status_code == 200
        return [query["sql"] for query in context.captured_queries]

    record(1)
    few = [queries(address) for address in (MOVIES, INTERACTIONS)]
    Movie.objects.bulk_create(
        Movie(id=n, title=f"M {n}", title_key=f"m {n}", year=1999) for n in range(100, 300)
    )
    Interaction.objects.bulk_create(
        Interaction(user="u", movie_id=n, kind="liked", at=timezone.now()) for n in range(100, 300)
    )
    for before, address in zip(few, (MOVIES, INTERACTIONS), strict=True):
        now = queries(address)
        assert len(now) == len(before) <= 12
        for query in now:
            if "recommender_" in query:
                assert not re.search(r"count\s*\(", query, re.IGNORECASE), query
                assert "LIMIT" in query or "RECURSIVE" in query, query


# -- changing ------------------------------------------------------------------------------------------


def test_a_form_adds_changes_and_withdraws_a_movie(admin: Client, catalogue: RegisteredModel) -> None:
    assert 'name="keywords"' in admin.get(f"{MOVIES}add/").content.decode()
    assert admin.post(f"{MOVIES}add/", FORM).status_code == 302
    row = Movie.objects.get(pk=9001)
    assert (row.genres, row.keywords, row.language) == (
        ["Drama", "Fantasy"],
        ["island", "new york, city"],
        "en",
    )
    assert (row.title_key, row.runtime, row.popularity) == ("the tidal clock", None, 12.5)
    here = f"{MOVIES}9001/change/"
    page = admin.get(here).content.decode()
    assert "island\nnew york, city" in page
    changed = FORM | {"title": "The Tidal Watch", "withdrawn": "on"}
    assert admin.post(here, changed).status_code == 302
    row.refresh_from_db()
    assert (row.title_key, row.is_withdrawn) == ("the tidal watch", True)
    assert "withdrawn" in admin.get(here).content.decode()
    admin.post(here, changed | {"withdrawn": ""})
    row.refresh_from_db()
    assert not row.is_withdrawn
    history = (
        LogEntry.objects.filter(object_id="9001").order_by("id").values_list("change_message", flat=True)
    )
    assert list(history) == ["Added.", "Changed title.", "Withdrawn.", "Readmitted."]
    assert "Changed title." in admin.get(f"{MOVIES}9001/history/").content.decode()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "0", "must be at least 1"),
        ("id", "1", "already exists"),
        ("id", str(2**53 + 1), "beyond 2^53"),
        ("title", "", "required"),
        ("title", "\N{COMBINING ACUTE ACCENT}", "must not be empty"),
        ("title", "x" * 301, "at most 300 characters"),
        ("title", "a\x00b", "Null characters are not allowed"),
        ("genres", "\n".join(f"g{n}" for n in range(51)), "may hold 50 values at most"),
        ("keywords", "x" * 101, "at most 100 characters"),
        ("year", "1492", "must be at least 1870"),
        ("language", "english", "must be a code such as"),
        ("popularity", "1e300", "must be between"),
        ("popularity", "nan", "Enter a number"),
        ("rating", "11", "at most 10"),
        ("runtime", "99999", "at most 32767"),
    ],
)
def test_the_form_refuses_what_the_api_refuses(
    admin: Client, catalogue: RegisteredModel, field: str, value: str, message: str
) -> None:
    page = admin.post(f"{MOVIES}add/", FORM | {"language": "en", field: value})
    assert page.status_code == 200
    [messages] = page.context["adminform"].form.errors.values()
    assert message in " ".join(messages)
    assert not Movie.objects.filter(pk=9001).exists()


def test_selected_movies_are_withdrawn_and_readmitted(admin: Client, catalogue: RegisteredModel) -> None:
    def act(action: str, ids: list[int]) -> str:
        chosen = {"action": action, "_selected_action": [str(pk) for pk in ids]}
        return admin.post(MOVIES, chosen, follow=True).content.decode()

    assert "2 movies were withdrawn" in act("withdraw_selected", [1, 2])
    assert set(Movie.objects.filter(withdrawn_at__isnull=False).values_list("pk", flat=True)) == {1, 2}
    chosen = {"action": "readmit_selected", "_selected_action": ["1"]}
    assert (
        "1 movie was readmitted"
        in admin.post(f"{MOVIES}?withdrawn=yes", chosen, follow=True).content.decode()
    )
    assert Movie.objects.filter(withdrawn_at__isnull=False).values_list("pk", flat=True).get() == 2
    assert admin.post(f"{MOVIES}3/delete/", {"post": "yes"}).status_code == 403, "a movie cannot be deleted"


# -- rights --------------------------------------------------------------------------------------------


def test_any_right_shows_the_catalogue_and_train_changes_it(catalogue: RegisteredModel, staff: Staff) -> None:
    reads = staff("predict", name="reader")
    assert len(shown(reads.get(MOVIES))) == 11
    assert "The Lighthouse Keeper" in (page := reads.get(f"{MOVIES}1/change/").content.decode())
    assert 'name="title"' not in page
    assert reads.get(f"{MOVIES}add/").status_code == 403
    assert reads.post(f"{MOVIES}1/change/", FORM).status_code == 403
    reads.post(MOVIES, {"action": "withdraw_selected", "_selected_action": ["1"]})
    assert not Movie.objects.get(pk=1).is_withdrawn
    assert reads.get(INTERACTIONS).status_code == 403, "interactions name people"

    trains = staff("train", only=catalogue, name="trainer")
    assert trains.post(f"{MOVIES}add/", FORM).status_code == 302
    other = RegisteredModel.objects.exclude(pk=catalogue.pk).first()
    assert other is not None
    stranger = staff("train", "read_log", only=other, name="stranger")
    for address in (MOVIES, INTERACTIONS, f"{MOVIES}1/change/"):
        assert stranger.get(address).status_code == 403
    assert "Catalogue" not in stranger.get("/admin/").content.decode()
    assert "Catalogue" in trains.get("/admin/").content.decode()


# -- interactions --------------------------------------------------------------------------------------


def test_interactions_are_listed_newest_first_and_cannot_be_changed(
    admin: Client, catalogue: RegisteredModel, staff: Staff
) -> None:
    first, second, third = record(1), record(2, "disliked"), record(1, "watched", user=SCRIPT)
    assert shown(admin.get(INTERACTIONS)) == [third.pk, second.pk, first.pk]
    assert shown(admin.get(f"{INTERACTIONS}?q=u-1")) == [second.pk, first.pk]
    assert shown(admin.get(f"{INTERACTIONS}?movie=1")) == [third.pk, first.pk]
    assert shown(admin.get(f"{INTERACTIONS}?kind=disliked")) == [second.pk]
    assert shown(admin.get(f"{INTERACTIONS}?q=nobody")) == shown(admin.get(f"{INTERACTIONS}?movie=x")) == []
    assert admin.get(f"{INTERACTIONS}?q=%00").status_code == admin.get(f"{MOVIES}?q=%00").status_code == 200
    page = admin.get(INTERACTIONS).content.decode()
    assert SCRIPT not in page
    assert "The Lighthouse Keeper" in page
    assert admin.get(f"{INTERACTIONS}add/").status_code == 403
    assert admin.post(f"{INTERACTIONS}{first.pk}/change/", {"user": "x"}).status_code == 403
    assert admin.post(f"{INTERACTIONS}{first.pk}/delete/", {"post": "yes"}).status_code == 403
    assert f"?movie={1}" in admin.get(f"{MOVIES}1/change/").content.decode()
    reader = staff("read_log", only=catalogue, name="auditor")
    assert len(shown(reader.get(INTERACTIONS))) == 3
    assert reverse("admin:recommender_interaction_changelist") in reader.get("/admin/").content.decode()


def test_texts_of_sources_are_escaped(admin: Client, catalogue: RegisteredModel) -> None:
    Movie.objects.create(id=500, title=SCRIPT, description=SCRIPT, genres=[SCRIPT], popularity=99)
    for address in (MOVIES, f"{MOVIES}500/change/", f"{MOVIES}500/history/"):
        page = admin.get(address).content.decode()
        assert SCRIPT not in page, address
