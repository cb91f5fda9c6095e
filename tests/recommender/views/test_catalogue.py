"""The catalogue over HTTP: every fault is named, no movie is deleted, and changes need the right to train."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from rest_framework.test import APIClient

from recommender import movie_schema
from recommender.models import Movie
from tests.conftest import Post, assert_error, keyed
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/movies/"
MOVIE: dict[str, Any] = {
    "id": 9001, "title": "The Tidal Clock", "original_title": "", "description": "An island shrinks.",
    "genres": ["Drama", "Fantasy"], "keywords": ["island"], "year": 2019, "language": "en",
    "popularity": 12.5, "rating": 7.1, "votes": 310, "runtime": 104,
}  # fmt: skip


def faults(response: Any) -> set[tuple[str | None, str]]:
    error = assert_error(response, 400, "invalid_input")
    return {(fault.get("field"), fault["code"]) for fault in error["details"]}


def caller(*rights: str) -> APIClient:
    user = User.objects.create(username="caller-" + "-".join(rights))
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return keyed(user)


def listed(api: APIClient, query: str = "") -> list[int]:
    answer = api.get(f"{ADDRESS}{query}")
    assert answer.status_code == 200, answer.content
    return [movie["id"] for movie in answer.json()["movies"]]


def generation() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM training_generation")
        value: int = cursor.fetchone()[0]
    return value


# -- one movie -----------------------------------------------------------------------------------------


def test_a_movie_is_added_read_changed_withdrawn_and_readmitted(
    catalogue: RegisteredModel, api: APIClient, client_user: User
) -> None:
    answer = api.post(ADDRESS, MOVIE, format="json")
    assert answer.status_code == 201, answer.content
    here = f"{ADDRESS}9001/"
    assert answer.headers["Location"] == f"http://testserver{here}"
    shown = api.get(here).json()
    assert shown.pop("changed_at")
    assert shown.pop("withdrawn_at") is None
    assert shown == MOVIE

    changed = api.patch(here, {"title": "The Tidal Watch", "year": None}, format="json").json()
    assert (changed["title"], changed["year"], changed["genres"]) == (
        "The Tidal Watch",
        None,
        MOVIE["genres"],
    )
    assert listed(api, "?title=the tidal w") == [9001]

    assert api.delete(here).status_code == 204
    assert api.delete(here).status_code == 204, "withdrawing a withdrawn movie succeeds"
    assert api.get(here).json()["withdrawn_at"] is not None
    assert listed(api, "?title=the tidal") == []
    assert listed(api, "?withdrawn=true") == [9001]
    assert api.patch(here, {"votes": 7}, format="json").json()["withdrawn_at"] is not None

    back = api.put(here, {"title": "The Tidal Clock"}, format="json")
    assert back.status_code == 200
    assert back.json()["withdrawn_at"] is None
    assert back.json()["genres"] == [], "PUT sets all fields"
    history = LogEntry.objects.filter(object_id="9001", user=client_user).order_by("id")
    assert [entry.change_message for entry in history] == [
        "Added.",
        "Changed title, year.",
        "Withdrawn.",
        "Changed votes.",
        f"Changed {', '.join(sorted(MOVIE.keys() - {'id', 'original_title', 'year'}))}. Readmitted.",
    ]


def test_put_adds_a_missing_movie_and_post_refuses_an_existing_one(
    catalogue: RegisteredModel, api: APIClient
) -> None:
    here = f"{ADDRESS}9001/"
    assert api.put(here, MOVIE, format="json").status_code == 201
    before = Movie.objects.get(pk=9001).changed_at
    assert api.put(here, MOVIE, format="json").status_code == 200
    assert Movie.objects.get(pk=9001).changed_at == before, "a PUT without differences writes nothing"
    assert_error(api.post(ADDRESS, MOVIE, format="json"), 409, "movie_exists")
    api.delete(here)
    assert_error(api.post(ADDRESS, MOVIE, format="json"), 409, "movie_exists")
    for method in (api.get, api.delete):
        assert_error(method(f"{ADDRESS}12345678/"), 404, "unknown_movie")
    assert_error(api.patch(f"{ADDRESS}12345678/", {"votes": 1}, format="json"), 404, "unknown_movie")
    assert_error(api.get(f"{ADDRESS}{10**17}/"), 404, "unknown_movie")
    assert_error(api.get(f"{ADDRESS}{'9' * 5000}/"), 404, "not_found")


@pytest.mark.django_db(transaction=True)
def test_only_withdrawing_and_readmitting_raise_the_generation(
    catalogue: RegisteredModel, api: APIClient
) -> None:
    here, seen = f"{ADDRESS}9001/", [generation()]

    def after(answer: Any) -> bool:
        """Returns whether the generation has grown."""
        assert answer.status_code in (200, 201, 204)
        seen.append(generation())
        return seen[-1] > seen[-2]

    assert not after(api.put(here, MOVIE, format="json"))
    assert not after(api.patch(here, {"votes": 7}, format="json"))
    assert after(api.delete(here))
    assert not after(api.delete(here))
    assert not after(api.patch(here, {"votes": 8}, format="json"))
    assert after(api.put(here, MOVIE, format="json"))
    assert after(api.delete(here))


def test_null_and_absent_fields_are_equal(catalogue: RegisteredModel, api: APIClient) -> None:
    empty = {name: None for name in MOVIE if name not in ("id", "title")}
    first = api.post(ADDRESS, {"id": 1001, "title": "A"} | empty, format="json").json()
    second = api.post(ADDRESS, {"id": 1002, "title": "A"}, format="json").json()
    for answer in (first, second):
        assert answer["description"] == answer["language"] == answer["original_title"] == ""
        assert answer["genres"] == answer["keywords"] == []
        assert answer["year"] is answer["rating"] is answer["runtime"] is None
        assert answer["popularity"] == answer["votes"] == 0


# -- refusals ------------------------------------------------------------------------------------------


def test_every_fault_of_a_movie_is_named_at_once(catalogue: RegisteredModel, post: Post) -> None:
    body = {
        "id": 0, "title": " ", "description": 7, "genres": "Drama", "keywords": ["a", "", 3, "x" * 101],
        "year": 1650, "language": "English", "popularity": -1, "rating": 11, "votes": 1.5, "runtime": True,
        "colour": "red",
    }  # fmt: skip
    assert faults(post(ADDRESS, body)) == {
        ("id", "out_of_bounds"), ("title", "null_not_allowed"), ("description", "not_text"),
        ("genres", "not_an_array"), ("keywords", "null_not_allowed"), ("keywords", "not_text"),
        ("keywords", "too_long"), ("year", "out_of_bounds"), ("language", "not_a_language"),
        ("popularity", "out_of_bounds"), ("rating", "out_of_bounds"), ("votes", "not_an_integer"),
        ("runtime", "not_an_integer"), ("colour", "unknown_field"),
    }  # fmt: skip
    assert faults(post(ADDRESS, {})) == {("id", "missing_field"), ("title", "missing_field")}
    assert not Movie.objects.filter(title_key="").exists()


@pytest.mark.parametrize(
    ("field", "literal", "code"),
    [
        ("id", "1e999", "not_finite"), ("id", "true", "not_an_integer"), ("id", '"9001"', "not_an_integer"),
        ("id", "9" * 5000, "not_finite"), ("id", str(2**53 + 1), "out_of_bounds"),
        ("id", "null", "null_not_allowed"),
        ("popularity", "NaN", "not_finite"), ("popularity", "1e39", "out_of_bounds"),
        ("popularity", "true", "not_a_number"), ("votes", "2147483648", "out_of_bounds"),
        ("runtime", "32768", "out_of_bounds"), ("year", "1999.5", "not_an_integer"),
        ("title", '"a\\u0000b"', "bad_text"), ("title", '"\\ud800"', "bad_text"),
        ("title", '"' + "x" * 301 + '"', "too_long"), ("title", '"\\u0301"', "null_not_allowed"),
        ("title", '"' + "\\ufb2c" * 300 + '"', "too_long"), ("title", "[[[[]]]]", "not_text"),
        ("description", '"' + "x" * 20_001 + '"', "too_long"), ("genres", "{}", "not_an_array"),
        ("genres", "[" + ",".join(f'"g{n}"' for n in range(51)) + "]", "too_long"),
        ("genres", '["\\udfff"]', "bad_text"), ("keywords", "[null]", "null_not_allowed"),
        ("keywords", "[[" * 20 + "]]" * 20, "not_text"), ("language", '"e"', "not_a_language"),
        ("language", '"en\\u0000"', "bad_text"),
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
def test_a_hostile_value_is_refused_by_name(
    catalogue: RegisteredModel, post: Post, api: APIClient, field: str, literal: str, code: str
) -> None:
    body = json.dumps(MOVIE | {field: "@@"}).replace('"@@"', literal)
    assert faults(post(ADDRESS, body)) == {(field, code)}
    if field != "id":
        part = json.dumps({field: "@@"}).replace('"@@"', literal)
        answer = api.generic("PATCH", f"{ADDRESS}1/", part, content_type="application/json")
        assert faults(answer) == {(field, code)}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"), (b"{", 400, "invalid_json"), (b"[" * 100_000, 400, "too_deep"),
        (b"\xff\xfe", 400, "not_utf8"), (b"[]", 400, "invalid_input"), (b"null", 400, "invalid_input"),
        (b'"x"', 400, "invalid_input"), (b'{"id": 1, "id": 2, "title": "x"}', 400, "invalid_input"),
        (b'{"keywords": [' + b"1," * 200_000 + b"1]}", 400, "invalid_input"),
        (b'{"\\ud800\\u0000": 1}', 400, "invalid_input"), (b" " * (8 * 2**20 + 1), 413, "too_large"),
    ],
    ids=lambda value: repr(value)[:24],
)  # fmt: skip
def test_a_body_without_a_movie_is_refused(
    catalogue: RegisteredModel, api: APIClient, body: bytes, status: int, code: str
) -> None:
    for method, address in (("POST", ADDRESS), ("PUT", f"{ADDRESS}1/"), ("PATCH", f"{ADDRESS}1/")):
        answer = api.generic(method, address, body, content_type="application/json")
        assert len(json.dumps(assert_error(answer, status, code))) < 30_000


def test_the_id_of_the_body_must_be_that_of_the_address(catalogue: RegisteredModel, api: APIClient) -> None:
    for ask in (api.put, api.patch):
        assert faults(ask(f"{ADDRESS}1/", {"id": 2, "title": "x"}, format="json")) == {("id", "other_movie")}
        assert ask(f"{ADDRESS}1/", {"id": 1, "title": "x"}, format="json").status_code == 200


@pytest.mark.parametrize("number", ["0", "9007199254740993", "9223372036854775807", "9" * 30])
def test_an_id_out_of_bounds_in_the_address_is_refused(
    catalogue: RegisteredModel, api: APIClient, number: str
) -> None:
    for body in ({"title": "x"}, {"title": "x", "id": int(number)}):
        refused = faults(api.put(f"{ADDRESS}{number}/", body, format="json"))
        assert {field for field, _ in refused} == {"id"}, refused
    assert not Movie.objects.filter(pk__gt=1_000).exists()


# -- the list ------------------------------------------------------------------------------------------


def test_the_list_has_filters_and_pages(catalogue: RegisteredModel, api: APIClient) -> None:
    assert listed(api, "?title=TWICE  told") == [7, 8]
    assert listed(api, "?genre=science fiction") == listed(api, "?genre=SCIENCE FICTION") == [4, 5]
    assert listed(api, "?year=2020") == [8]
    assert listed(api, "?language=ES") == [6]
    assert listed(api, "?genre=drama&year=2018&title=city") == [5]
    api.delete(f"{ADDRESS}5/")
    assert listed(api, "?genre=drama") == [1, 2, 6]
    assert listed(api, "?genre=drama&withdrawn=any") == [1, 2, 5, 6]

    ids: list[int] = []
    address = f"{ADDRESS}?limit=4&withdrawn=any"
    while address:
        page = api.get(address)
        body = page.json()
        ids += [movie["id"] for movie in body["movies"]]
        assert (body["next"] is not None) == ("Link" in page.headers)
        address = body["next"]
    assert ids == list(range(1, 12))


@pytest.mark.parametrize(
    "query",
    ["?title=%00", "?genre=%00", "?language=%00", "?title=%25", "?title=_", "?genre=", "?title=%CC%81"],
)
def test_an_odd_filter_finds_nothing_or_everything(
    catalogue: RegisteredModel, api: APIClient, query: str
) -> None:
    assert listed(api, query) in ([], list(range(1, 12)))


@pytest.mark.parametrize(
    "query", ["year=x", "year=99999", "limit=-1", "cursor=z", "withdrawn=maybe", "cursor=0"]
)
def test_an_invalid_parameter_is_refused(catalogue: RegisteredModel, api: APIClient, query: str) -> None:
    assert faults(api.get(f"{ADDRESS}?{query}")) == {(query.partition("=")[0], "bad_parameter")}


# -- rights --------------------------------------------------------------------------------------------


def test_reading_needs_any_right_and_changes_need_the_right_to_train(catalogue: RegisteredModel) -> None:
    trains, reads, has_none = caller("train"), caller("predict"), caller()
    assert listed(reads) == listed(trains) == list(range(1, 12))
    here = f"{ADDRESS}1/"
    for client in (reads, has_none):
        assert_error(client.post(ADDRESS, MOVIE, format="json"), 403, "forbidden")
        for ask in (client.put, client.patch):
            assert_error(ask(here, {"title": "x"}, format="json"), 403, "forbidden")
        assert_error(client.delete(here), 403, "forbidden")
    assert_error(has_none.get(ADDRESS), 403, "forbidden")
    assert_error(has_none.get(here), 403, "forbidden")
    assert_error(APIClient().get(ADDRESS), 401, "not_authenticated")
    assert trains.patch(here, {"title": "x"}, format="json").status_code == 200


# -- the browsable pages -------------------------------------------------------------------------------


def test_a_form_adds_a_movie_and_appears_only_with_the_right(
    catalogue: RegisteredModel, api: APIClient
) -> None:
    page = api.get(ADDRESS, headers={"Accept": "text/html"}).content.decode()
    assert 'name="keywords"' in page
    assert "The Tidal Clock" in page
    cells = {
        "id": "9001", "title": "The Tidal Clock", "genres": "Drama | Fantasy",
        "keywords": "island|new york, city", "year": "2019", "rating": "", "language": "EN",
    }  # fmt: skip
    answer = api.post(ADDRESS, cells, format="multipart")
    assert answer.status_code == 201, answer.content
    row = Movie.objects.get(pk=9001)
    assert (row.genres, row.keywords) == (["Drama", "Fantasy"], ["island", "new york, city"])
    assert (row.year, row.rating, row.language) == (2019, None, "en")
    assert faults(api.post(ADDRESS, {"id": "x", "hue": "red"}, format="multipart")) == {
        ("id", "not_an_integer"), ("title", "missing_field"), ("hue", "unknown_field"),
    }  # fmt: skip

    one = api.get(f"{ADDRESS}9001/", headers={"Accept": "text/html"}).content.decode()
    assert "&quot;new york, city&quot;" in one, "the form shows the current values"
    assert "_method" in one or "data-method" in one
    reader = caller("predict").get(ADDRESS, headers={"Accept": "text/html"}).content.decode()
    assert 'name="keywords"' not in reader


def test_a_form_must_give_each_field_once_and_as_text(catalogue: RegisteredModel, api: APIClient) -> None:
    def send(body: str) -> Any:
        return api.post(ADDRESS, body, content_type="application/x-www-form-urlencoded")

    twice = send("id=9001&title=One&title=Two&csrfmiddlewaretoken=a&csrfmiddlewaretoken=b")
    assert faults(twice) == {("title", "duplicate_field")}
    page = api.post(
        ADDRESS, "id=9001&title=One&title=Two", content_type="application/x-www-form-urlencoded",
        headers={"Accept": "text/html"},
    )  # fmt: skip
    assert (page.status_code, b"duplicate_field" in page.content) == (400, True)
    file = SimpleUploadedFile("plot.txt", b"A clockmaker.")
    sent = {"id": "9001", "title": "One", "description": file}
    assert faults(api.post(ADDRESS, sent, format="multipart")) == {("description", "not_text")}
    file.seek(0)
    page = api.post(ADDRESS, sent, format="multipart", headers={"Accept": "text/html"})
    assert (page.status_code, b"not_text" in page.content) == (400, True)
    assert not Movie.objects.filter(pk=9001).exists()
    assert send("id=9001&title=One&genres=Drama&genres=Fantasy|Comedy").status_code == 201
    assert Movie.objects.get(pk=9001).genres == ["Drama", "Fantasy", "Comedy"]


def test_the_routes_describe_themselves(catalogue: RegisteredModel, api: APIClient) -> None:
    for address in (ADDRESS, f"{ADDRESS}1/", "/api/v1/interactions/"):
        assert api.options(address).status_code == api.head(address).status_code == 200
        assert api.get(address, headers={"Accept": "text/html"}).status_code == 200
    assert_error(api.put(f"{ADDRESS}1/", {"title": "x"}, format="multipart"), 415, "unsupported_media_type")
    assert_error(api.put(ADDRESS, MOVIE, format="json"), 405, "method_not_allowed")


def test_the_example_of_the_forms_is_valid() -> None:
    assert isinstance(movie_schema.read(movie_schema.EXAMPLE), movie_schema.Entry)
