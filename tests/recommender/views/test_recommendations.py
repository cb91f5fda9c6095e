"""Recommendations over HTTP: every kind of request, the log, and feedback."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from core.uuid7 import lowest_at
from predictions.models import Prediction
from recommender.catalogue import service as catalogue_service
from recommender.catalogue import title_search
from recommender.interactions import feedback
from recommender.models import Interaction, Movie
from recommender.recommendations import user_profile
from tests.conftest import keyed
from tests.recommender.conftest import MOVIES, active_index
from training.access import client_keys
from training.models import ModelVersion, RegisteredModel

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/v1/recommendations/"
TITLES = {each["id"]: each["title"] for each in MOVIES}


def ask(api: APIClient, address: str = ADDRESS, **question: Any) -> dict[str, Any]:
    answer = api.post(address, question, format="json")
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def ids(body: dict[str, Any]) -> list[int]:
    return [each["movie_id"] for each in body["recommendations"]]


def refusal(api: APIClient, status: int, **question: Any) -> dict[str, Any]:
    answer = api.post(ADDRESS, question, format="json")
    assert answer.status_code == status, answer.content
    error: dict[str, Any] = answer.json()["error"]
    return error


# -- answers -------------------------------------------------------------------------------------------


def test_similar_movies_come_nearest_first_and_their_shares_add_up(
    movies: ModelVersion, api: APIClient
) -> None:
    body = ask(api, movie_id=1, top_n=3)
    assert ids(body)[0] == 2
    assert 1 not in ids(body)
    assert body["matched"] == {"movie_id": 1, "title": TITLES[1]}
    scores = [each["score"] for each in body["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    for each in body["recommendations"]:
        assert sum(why["share"] for why in each["because"]) == pytest.approx(1, abs=1e-4)
    first = body["recommendations"][0]["because"]
    assert ("description", "lighthouse") in {(why["field"], why["term"]) for why in first}


def test_an_answer_is_logged_with_its_request(movies: ModelVersion, api: APIClient) -> None:
    body = ask(api, movie_id=1, top_n=2, _key="visit-7")
    row = Prediction.objects.get(pk=body["id"])
    assert (row.version, row.key, row.registered_model.name) == (movies, "visit-7", "movies")
    scored = [{"movie_id": each["movie_id"], "score": each["score"]} for each in body["recommendations"]]
    assert row.prediction == scored
    inputs = {name: value for name, value in row.inputs.items() if value is not None}
    assert inputs == {"movie_id": 1, "top_n": 2}
    shown = api.get(f"/api/v1/predictions/{row.pk}/").json()
    assert shown["prediction"] == scored
    listed = api.get("/api/v1/models/movies/predictions/", {"key": "visit-7"}).json()
    assert [each["id"] for each in listed["predictions"]] == [body["id"]]


def test_a_title_is_found_exactly_or_nearly(movies: ModelVersion, api: APIClient) -> None:
    exact = ask(api, title="  the LIGHTHOUSE keeper ")
    near = ask(api, title="The Lighthose Keper")
    assert exact["matched"] == near["matched"] == {"movie_id": 1, "title": TITLES[1]}
    assert ids(exact) == ids(near) == ids(ask(api, movie_id=1))


@pytest.mark.parametrize("newest", [title_search.NEWEST, 0])
def test_withdrawn_movies_do_not_hide_the_movie_that_a_title_names(
    catalogue: RegisteredModel, api: APIClient, monkeypatch: pytest.MonkeyPatch, newest: int
) -> None:
    """The test covers a search of all titles and of the index's titles alone."""
    monkeypatch.setattr(title_search, "NEWEST", newest)
    title = "The Very Long Journey of Captain Nemo"
    for number in range(12):
        Movie.objects.create(id=100 + number, title=f"{title} I{number}", description="A long journey.")
    Movie.objects.create(id=200, title=f"{title} of Steel", description="A journey in a ship of steel.")
    active_index("a title that many have")
    assert len(refusal(api, 409, title=title)["details"]) == title_search.MOST_CANDIDATES
    catalogue_service.withdraw(range(100, 112), by=None)
    assert ask(api, title=title)["matched"] == {"movie_id": 200, "title": f"{title} of Steel"}


def test_an_ambiguous_title_names_the_candidates(movies: ModelVersion, api: APIClient) -> None:
    error = refusal(api, 409, title="twice told")
    assert error["code"] == "ambiguous_title"
    assert error["details"] == [
        {"movie_id": 8, "title": "Twice Told", "year": 2020},
        {"movie_id": 7, "title": "Twice Told", "year": 1980},
    ]


@pytest.mark.parametrize("question", [{"movie_id": 999}, {"title": "Nothing like it"}, {"liked": [1, 999]}])
def test_an_unknown_movie_is_refused(movies: ModelVersion, api: APIClient, question: dict[str, Any]) -> None:
    assert refusal(api, 404, **question)["code"] == "unknown_movie"
    assert not Prediction.objects.exists()


def test_a_text_finds_matching_movies(movies: ModelVersion, api: APIClient) -> None:
    body = ask(api, text="robots in a city")
    assert set(ids(body)[:2]) == {4, 5}
    assert "matched" not in body


def test_an_empty_answer_has_a_reason(movies: ModelVersion, api: APIClient) -> None:
    body = ask(api, text="xylophone quartz")
    assert (body["recommendations"], body["reason"]) == ([], "nothing_to_compare")
    assert ask(api, movie_id=10)["reason"] == "nothing_to_compare"
    assert ask(api, movie_id=4, year_from=2100)["reason"] == "filtered_out"
    assert Prediction.objects.filter(prediction=[]).count() == 3


def test_a_movie_without_text_is_compared_by_genres_and_popularity(
    movies: ModelVersion, api: APIClient
) -> None:
    body = ask(api, movie_id=9)
    assert body["basis"] == "genres"
    assert ids(body) == [8, 11, 7]


def test_a_movie_without_text_is_compared_by_genres_beside_other_seeds(
    movies: ModelVersion, api: APIClient
) -> None:
    for movie, kind in ((9, "liked"), (10, "watched")):
        Interaction.objects.create(user="u4", movie_id=movie, kind=kind, at="2026-01-02T03:04:05Z")
    for question, expected in (
        ({"movie_id": 9, "disliked": [4]}, [8, 11, 7]),
        ({"movie_id": 9, "disliked": [8]}, [11, 7]),
        ({"liked": [9, 10]}, [8, 11, 7]),
        ({"user": "u4"}, [8, 11, 7]),
    ):
        body = ask(api, **question)
        assert (body["basis"], ids(body)) == ("genres", expected), question


def test_filters_apply_to_every_kind_of_request(movies: ModelVersion, api: APIClient) -> None:
    for start in ({"movie_id": 1}, {"title": TITLES[1]}, {"text": MOVIES[0]["description"]}, {"liked": [1]}):
        every = ids(ask(api, **start, top_n=100))
        for narrowed, fits in (
            ({"genres": ["adventure"]}, lambda movie: "Adventure" in movie["genres"]),
            ({"year_from": 2001, "year_to": 2009}, lambda movie: 2001 <= movie["year"] <= 2009),
            ({"language": "es"}, lambda movie: movie["language"] == "es"),
            ({"language": "ES"}, lambda movie: movie["language"] == "es"),
            ({"exclude": [2]}, lambda movie: movie["id"] != 2),
        ):
            expected = [each for each in every if fits(MOVIES[each - 1])]
            assert ids(ask(api, **start, **narrowed, top_n=100)) == expected


def test_disliked_movies_are_not_recommended(movies: ModelVersion, api: APIClient) -> None:
    liked = ask(api, liked=[1, 4], top_n=100)
    both = ask(api, liked=[1, 4], disliked=[5], top_n=100)
    assert 5 in ids(liked)
    assert 5 not in ids(both)
    assert not {1, 4} & set(ids(liked))


def test_a_user_gets_recommendations_by_the_profile_without_seen_movies(
    movies: ModelVersion, api: APIClient
) -> None:
    at = "2026-01-02T03:04:05Z"
    for movie, kind in ((1, "liked"), (4, "disliked"), (3, "clicked")):
        Interaction.objects.create(user="u1", movie_id=movie, kind=kind, at=at)
    body = ask(api, user="u1", top_n=100)
    assert ids(body)[0] == 2
    assert not {1, 3, 4} & set(ids(body))
    assert 3 in ids(ask(api, user="u1", movie_id=2, exclude_seen=False))
    assert 3 not in ids(ask(api, user="u1", movie_id=2))
    Interaction.objects.create(user="u1", movie_id=1, kind="disliked", at="2026-01-03T03:04:05Z")
    assert user_profile.of("u1").weights == {4: -1.0, 3: 0.3}, "liked and disliked cancel each other out"
    Interaction.objects.create(user="u2", movie_id=1, kind="liked", at=at)
    Interaction.objects.create(user="u2", movie_id=1, kind="disliked", at=at)
    for more in ({}, {"disliked": [4]}):
        undecided = ask(api, user="u2", **more)
        assert (undecided["recommendations"], undecided["reason"]) == ([], "nothing_to_compare")
    stranger = ask(api, user="nobody")
    assert (stranger["recommendations"], stranger["reason"]) == ([], "no_interactions")


def test_seen_movies_are_recommended_if_exclude_seen_is_false(movies: ModelVersion, api: APIClient) -> None:
    for movie, kind in ((1, "liked"), (2, "watched")):
        Interaction.objects.create(user="u5", movie_id=movie, kind=kind, at="2026-01-02T03:04:05Z")
    Interaction.objects.create(user="u6", movie_id=4, kind="liked", at="2026-01-02T03:04:05Z")
    without, again = (ask(api, user="u5", top_n=100, exclude_seen=seen) for seen in (True, False))
    assert ids(without) == [each for each in ids(again) if each not in {1, 2}]
    assert {1, 2} <= set(ids(again))
    assert ids(ask(api, user="u6", exclude_seen=False))[:2] == [4, 5]
    assert 4 not in ids(ask(api, user="u6", exclude_seen=False, exclude=[4]))
    assert 2 not in ids(ask(api, user="u5", exclude_seen=False, disliked=[2]))
    for start in ({"movie_id": 3}, {"title": TITLES[3]}, {"text": MOVIES[2]["description"]}, {"liked": [3]}):
        assert {1, 2} & set(ids(ask(api, **start, user="u5", exclude_seen=False, top_n=100))), start
        assert not {1, 2} & set(ids(ask(api, **start, user="u5", top_n=100)))


def test_a_user_with_very_many_interactions_gets_no_seen_movie(movies: ModelVersion, api: APIClient) -> None:
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    watched = [2, *[1] * 600]
    Interaction.objects.bulk_create(
        Interaction(user="u3", movie_id=movie, kind="watched", at=begin + dt.timedelta(hours=hour))
        for hour, movie in enumerate(watched)
    )
    assert not {1, 2} & set(ids(ask(api, user="u3", top_n=100)))


def test_diversity_and_explanations_can_be_set(movies: ModelVersion, api: APIClient) -> None:
    plain, diverse = ask(api, movie_id=1, top_n=4), ask(api, movie_id=1, top_n=4, diversity=0.9)
    assert ids(plain)[0] == ids(diverse)[0]
    assert ids(plain) != ids(diverse)
    assert all("because" not in each for each in ask(api, movie_id=1, explain=False)["recommendations"])


def test_a_new_movie_can_be_a_seed_at_once_and_is_recommended_after_the_next_run(
    movies: ModelVersion, api: APIClient
) -> None:
    new = Movie.objects.create(
        id=50, title="Lighthouse of Robots", description="Robots guard a lighthouse.", genres=["Drama"]
    )
    body = ask(api, movie_id=50)
    assert body["matched"] == {"movie_id": 50, "title": new.title}
    assert ask(api, title="lighthouse of robots")["matched"] == body["matched"]
    assert {1, 4} & set(ids(body))
    assert 50 not in ids(ask(api, movie_id=1, top_n=100))


def test_an_id_matches_the_indexs_title_and_a_title_matches_the_catalogues(
    movies: ModelVersion, api: APIClient
) -> None:
    catalogue_service.change(1, {"title": "The Keeper's Lamp"}, by=None)
    assert ask(api, movie_id=1)["matched"] == {"movie_id": 1, "title": TITLES[1]}
    assert ask(api, title="the keeper's lamp")["matched"] == {"movie_id": 1, "title": "The Keeper's Lamp"}


def test_a_withdrawn_movie_is_neither_a_seed_nor_recommended(movies: ModelVersion, api: APIClient) -> None:
    assert 2 in ids(ask(api, movie_id=1))
    catalogue_service.withdraw([2], by=None)
    assert 2 not in ids(ask(api, movie_id=1, top_n=100))
    assert refusal(api, 404, movie_id=2)["code"] == "unknown_movie"
    catalogue_service.readmit([2], by=None)
    assert 2 in ids(ask(api, movie_id=1))


def test_the_tutorials_route_returns_five_titles(movies: ModelVersion, api: APIClient) -> None:
    body = ask(api, "/recommend", movie_id=1)
    expected = [TITLES[each] for each in ids(ask(api, movie_id=1))]
    assert body == {"recommendations": expected}
    assert Prediction.objects.count() == 2


def test_feedback_accepts_the_longest_user_of_a_request(movies: ModelVersion, api: APIClient) -> None:
    """A letter that composition splits in two counts as two."""
    longest = "\u0958" * 100
    body = ask(api, movie_id=1, user=longest)
    entries = {"movie_id": body["recommendations"][0]["movie_id"], "kind": "liked"}
    answer = api.post(f"{ADDRESS}{body['id']}/feedback/", entries, format="json")
    assert answer.status_code == 200, answer.content
    assert Interaction.objects.get().user == "\u0915\u093c" * 100
    (fault,) = refusal(api, 400, movie_id=1, user=longest + "\u0958")["details"]
    assert (fault["field"], fault["code"]) == ("user", "too_long")


# -- the platform's promises ---------------------------------------------------------------------------


def test_a_retry_gets_the_stored_answer(movies: ModelVersion, api: APIClient) -> None:
    first = api.post(ADDRESS, {"movie_id": 1}, format="json", HTTP_IDEMPOTENCY_KEY="a")
    again = api.post(ADDRESS, {"movie_id": 1}, format="json", HTTP_IDEMPOTENCY_KEY="a")
    other = api.post(ADDRESS, {"movie_id": 2}, format="json", HTTP_IDEMPOTENCY_KEY="a")
    assert (again.json(), again["Idempotent-Replayed"]) == (first.json(), "true")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert Prediction.objects.count() == 1


def test_a_retry_gets_the_stored_answer_after_a_withdrawal(movies: ModelVersion, api: APIClient) -> None:
    first = api.post(ADDRESS, {"movie_id": 1}, format="json", HTTP_IDEMPOTENCY_KEY="a")
    assert 2 in ids(first.json())
    catalogue_service.withdraw([2], by=None)
    again = api.post(ADDRESS, {"movie_id": 1}, format="json", HTTP_IDEMPOTENCY_KEY="a")
    assert (again.json(), again["Idempotent-Replayed"]) == (first.json(), "true")
    assert 2 not in ids(ask(api, movie_id=1))


def test_rights_are_those_of_the_registered_model(movies: ModelVersion) -> None:
    stranger = keyed(client_keys.client_with_every_right("other"))
    user = client_keys.client_with_every_right("other")
    user.user_permissions.clear()
    user.groups.clear()
    for method, address in (
        ("post", ADDRESS),
        ("post", "/recommend"),
        ("get", f"{ADDRESS}quality/"),
        ("post", f"{ADDRESS}{uuid.uuid4()}/feedback/"),
    ):
        answer = getattr(stranger, method)(address, {"movie_id": 1}, format="json")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert APIClient().post(ADDRESS, {"movie_id": 1}, format="json").status_code == 401


def test_without_an_active_version_requests_are_refused(catalogue: RegisteredModel, api: APIClient) -> None:
    assert refusal(api, 503, movie_id=1)["code"] == "no_active_version"


def test_routes_for_rows_name_the_route_of_recommendations(movies: ModelVersion, api: APIClient) -> None:
    base = "/api/v1/models/movies"
    for method, address, body in (
        ("post", f"{base}/predictions/", {"movie_id": 1}),
        ("post", f"{base}/outcomes/", [{"key": "a", "actual": 1}]),
        ("get", f"{base}/quality/", {}),
        ("get", f"{base}/drift/?since=2026-01-01", {}),
        ("post", f"{base}/evaluations/", {"instances": [{}]}),
        ("post", f"{base}/versions/1/replays/", {}),
        ("post", f"{base}/rollouts/", {"version": 1, "kind": "shadow", "reason": "try"}),
        ("post", f"{base}/training-runs/", [1]),
    ):
        arguments = {} if method == "get" else {"data": json.dumps(body), "content_type": "application/json"}
        answer = getattr(api, method)(address, **arguments)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unsupported_for_model"), address
        assert ADDRESS in answer.json()["error"]["message"]


def test_hostile_requests_get_the_error_shape(movies: ModelVersion, api: APIClient) -> None:
    for raw, status in (
        (b'{"movie_id": 1e999}', 400),
        (b'{"title": "\\ud800"}', 400),
        (b'{"text": "a\\u0000b"}', 400),
        (b'{"liked": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400),
        (b'{"movie_id": 1, "movie_id": 2}', 400),
        (b"", 400),
        (b"\xff", 400),
        (b'"text"', 400),
    ):
        answer = api.post(ADDRESS, raw, content_type="application/json")
        assert answer.status_code == status, (raw[:40], answer.content)
        assert set(answer.json()) == {"error"}


def test_a_form_must_give_each_field_once_except_lists(movies: ModelVersion, api: APIClient) -> None:
    def send(body: str) -> Any:
        return api.post(ADDRESS, body, content_type="application/x-www-form-urlencoded")

    [fault] = send("movie_id=1&movie_id=2").json()["error"]["details"]
    assert (fault["field"], fault["code"]) == ("movie_id", "duplicate_field")
    assert not Prediction.objects.exists()
    one = send("liked=1&liked=2,3&explain=false").json()
    assert one["recommendations"] == ask(api, liked=[1, 2, 3], explain=False)["recommendations"]


# -- feedback ------------------------------------------------------------------------------------------


def test_feedback_is_linked_to_the_log_and_repeating_it_is_harmless(
    movies: ModelVersion, api: APIClient
) -> None:
    body = ask(api, movie_id=1, user="u2")
    address = f"{ADDRESS}{body['id']}/feedback/"
    second = body["recommendations"][1]["movie_id"]
    entries = [{"movie_id": second, "kind": "clicked"}, {"movie_id": second, "kind": "liked"}]
    assert api.post(address, entries, format="json").json() == {
        "id": body["id"],
        "recorded": 2,
        "repeated": 0,
    }
    assert api.post(address, entries[0], format="json").json()["repeated"] == 1
    row = Interaction.objects.get(kind="clicked")
    assert (row.user, row.rank, row.version, str(row.recommendation)) == ("u2", 2, movies, body["id"])
    stranger = api.post(address, {"movie_id": 1, "kind": "clicked"}, format="json")
    assert stranger.json()["error"]["details"][0]["code"] == "not_recommended"
    assert api.post(f"{ADDRESS}{uuid.uuid4()}/feedback/", entries, format="json").status_code == 404
    shown = api.get(f"{ADDRESS}{body['id']}/").json()
    assert [(each["kind"], each["rank"]) for each in shown["feedback"]] == [("clicked", 2), ("liked", 2)]
    assert shown["recommendations"][0]["title"] == body["recommendations"][0]["title"]
    assert shown["lineage"]["activation"]["reason"]


def test_feedback_from_before_the_answer_is_refused_beyond_the_tolerance_of_clocks(
    movies: ModelVersion, api: APIClient
) -> None:
    body = ask(api, movie_id=1, user="u2")
    address, now = f"{ADDRESS}{body['id']}/feedback/", dt.datetime.now(dt.UTC)
    first, second = (each["movie_id"] for each in body["recommendations"][:2])
    early = (now - dt.timedelta(minutes=6)).isoformat()
    entries = [
        {"movie_id": first, "kind": "liked", "at": now.isoformat()},
        {"movie_id": second, "kind": "liked", "at": early},
    ]
    [fault] = api.post(address, entries, format="json").json()["error"]["details"]
    assert (fault["row"], fault["field"], fault["code"]) == (1, "at", "before_the_answer")
    assert fault["value"] == early
    assert not Interaction.objects.exists()
    entries[1]["at"] = (now - dt.timedelta(minutes=4)).isoformat()
    assert api.post(address, entries, format="json").json()["recorded"] == 2


def test_feedback_from_the_future_or_with_a_repeated_field_is_refused(
    movies: ModelVersion, api: APIClient
) -> None:
    """The newest interactions have the most influence on a profile and on the hold-out."""
    body = ask(api, movie_id=1, user="u2")
    movie = body["recommendations"][0]["movie_id"]
    for raw, code in (
        (b'{"movie_id": %d, "kind": "liked", "at": "9999-12-31"}', "in_the_future"),
        (b'{"movie_id": %d, "kind": "liked", "kind": "disliked"}', "duplicate_field"),
    ):
        sent = raw % movie
        refused = api.post(f"{ADDRESS}{body['id']}/feedback/", sent, content_type="application/json")
        assert [each["code"] for each in refused.json()["error"]["details"]] == [code]
    assert not Interaction.objects.exists()


def test_click_through_is_by_version_and_excludes_empty_answers(movies: ModelVersion, api: APIClient) -> None:
    bodies = [ask(api, movie_id=1) for _ in range(3)] + [ask(api, movie_id=10)]
    for body in bodies[:2]:
        entries = {"movie_id": body["recommendations"][0]["movie_id"], "kind": "clicked"}
        api.post(f"{ADDRESS}{body['id']}/feedback/", entries, format="json")
    disliked = {"movie_id": bodies[2]["recommendations"][1]["movie_id"], "kind": "disliked"}
    api.post(f"{ADDRESS}{bodies[2]['id']}/feedback/", disliked, format="json")
    (quality,) = api.get(f"{ADDRESS}quality/").json()["versions"]
    counts = {name: quality[name] for name in ("version", "answered", "empty", "clicked", "disliked")}
    assert counts == {"version": 1, "answered": 4, "empty": 1, "clicked": 2, "disliked": 1}
    assert quality["click_through"]["value"] == pytest.approx(2 / 3)
    assert quality["mean_rank"] == 1


def test_feedback_on_answers_that_left_the_log_does_not_count(movies: ModelVersion, api: APIClient) -> None:
    """Housekeeping removes months of the log, and a share above 1 has no interval."""
    yesterday = timezone.now() - dt.timedelta(days=1)
    for place in range(40):
        gone = uuid.UUID(int=lowest_at(yesterday).int + place)
        Interaction.objects.create(
            recommendation=gone, movie_id=2, kind="clicked", rank=1, version=movies, at=yesterday
        )
    for _ in range(35):
        ask(api, movie_id=1)
    (quality,) = api.get(f"{ADDRESS}quality/").json()["versions"]
    assert (quality["answered"], quality["clicked"], quality["click_through"]["value"]) == (35, 0, 0)


def test_counting_ends_at_its_time_limit(
    movies: ModelVersion, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "COUNTING_SECONDS", 0.2)
    ask(api, movie_id=1)
    monkeypatch.setattr(feedback, "_ANSWERED", "SELECT pg_sleep(10), %s, %s, %s")
    answer = api.get(f"{ADDRESS}quality/")
    assert answer.status_code == 400
    assert "shorter" in answer.json()["error"]["message"]
    assert api.get("/api/v1/movies/").status_code == 200
