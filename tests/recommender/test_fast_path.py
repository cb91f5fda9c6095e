"""Plain questions are answered on the fast path: as Django would, behind the same fence."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from predictions.models import Prediction
from recommender.catalogue import service as catalogue
from recommender.index.engine import IndexEngine
from recommender.index.query import Question, Seed
from recommender.recommendations import service
from tests.fast_path import ask
from training.access import client_keys
from training.models import ModelVersion, RegisteredModel
from training.serving import engine_cache
from web.fast_path import FastPath, Reply

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/v1/recommendations/"


class Asker:
    """One key, by both ways."""

    def __init__(self, user: User) -> None:
        self.fast_path, self.client, self.key = FastPath(), Client(), client_keys.issue(user)

    def quick(self, question: Any, path: str = ADDRESS, **changed: str) -> Reply | None:
        return ask(self.fast_path, path, question, f"Token {self.key}", X_Request_ID="mine", **changed)

    def ordinary(self, question: Any, path: str = ADDRESS) -> Any:
        sent = {"Authorization": f"Token {self.key}", "X-Request-ID": "mine"}
        return self.client.post(path, question, content_type="application/json", headers=sent)


@pytest.fixture
def asker(movies: ModelVersion, client_user: User) -> Iterator[Asker]:
    yield Asker(client_user)
    connections.close_all()


@pytest.mark.parametrize(
    ("path", "question"),
    [
        (ADDRESS, {"movie_id": 1, "top_n": 3}),
        ("/recommend", {"movie_id": 1, "top_n": 3}),
        (ADDRESS, {"text": " Clowns of a lonely\u00a0circus ", "top_n": None}),
        (ADDRESS, {"text": "qwertz"}),
    ],
)
def test_the_fast_path_says_what_django_says(asker: Asker, path: str, question: dict[str, Any]) -> None:
    assert asker.quick(question, path) is None, "nothing is known yet"
    plain = asker.ordinary(question, path)
    quick = asker.quick(question, path)
    assert quick is not None
    assert quick.status == plain.status_code == 200
    ours, theirs = json.loads(quick.body), plain.json()
    assert {ours.pop("id", ""), theirs.pop("id", "")} <= {
        "",
        *map(str, Prediction.objects.values_list("pk", flat=True)),
    }
    assert ours == theirs
    headers = {name.decode(): value.decode() for name, value in quick.headers}
    assert headers.pop("content-length") == str(len(quick.body))
    assert headers == {
        name.lower(): value for name, value in plain.headers.items() if name != "Content-Length"
    }
    assert quick.headers.encoded.lower() == b"".join(b"%b: %b\r\n" % each for each in quick.headers).lower()
    first, second = Prediction.objects.order_by("id")
    assert (first.cells, first.prediction) == (second.cells, second.prediction)


def test_what_takes_a_look_into_the_catalogue_goes_the_ordinary_way(asker: Asker) -> None:
    asker.ordinary({"movie_id": 1})
    assert asker.quick({"movie_id": 1}) is not None
    for question in (
        {"title": "Ship of Salt"}, {"text": ""}, {"text": "a" * 400}, {"text": 'a "lonely" island'},
        {"text": "robots", "language": "en"}, {"text": "robots", "movie_id": 1}, {"text": "x\0"},
        {"movie_id": 1, "genres": ["Drama"]}, {"movie_id": 99}, {"movie_id": 1.5}, {"movie_id": "1"},
        {"movie_id": 0}, {"movie_id": 1, "top_n": 101}, {"movie_id": None}, [{"movie_id": 1}],
        {"movie_id": 2**70},
    ):  # fmt: skip
        assert asker.quick(question) is None, question
    assert asker.quick({"movie_id": 1}, f"{ADDRESS}?version=1") is None


def test_a_large_index_is_asked_by_text_in_a_thread(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    asker.ordinary({"movie_id": 1})
    assert asker.quick({"text": "clowns"}) is not None
    monkeypatch.setattr(service, "SMALL", 5)
    assert asker.quick({"text": "clowns"}) is None


def test_a_withdrawal_reaches_the_fast_path_at_its_commit(asker: Asker) -> None:
    asker.ordinary({"movie_id": 1})
    before = asker.quick({"movie_id": 1})
    assert before is not None and b"Storm over the Island" in before.body, "and it is kept"
    catalogue.withdraw([2], by=None)
    assert asker.quick({"movie_id": 1}) is None, "the log's fence has noticed"
    after = asker.ordinary({"movie_id": 1}).json()
    quick = asker.quick({"movie_id": 1})
    assert quick is not None
    assert 2 not in {each["movie_id"] for each in after["recommendations"]}
    assert json.loads(quick.body)["recommendations"] == after["recommendations"]


def test_what_is_asked_for_again_is_the_same_answer_under_an_id_of_its_own(asker: Asker) -> None:
    asker.ordinary({"movie_id": 1})
    first, again = (asker.quick({"movie_id": 1, "top_n": 2}) for _ in range(2))
    assert first is not None and again is not None
    ours, theirs = json.loads(first.body), json.loads(again.body)
    assert ours.pop("id") != theirs.pop("id")
    assert ours == theirs
    shorter = asker.quick({"movie_id": 1, "top_n": 1})
    assert shorter is not None
    assert json.loads(shorter.body)["recommendations"] == ours["recommendations"][:1]
    rows = list(Prediction.objects.order_by("id"))[1:]
    assert [len(row.prediction) for row in rows] == [2, 2, 1]


def test_a_field_that_is_given_twice_is_refused_by_both_ways(asker: Asker) -> None:
    asker.ordinary({"movie_id": 1})
    for body in (
        b'{"movie_id":1,"movie_id":2}',
        b'{"text":"clowns","text":"robots"}',
        b'{"movie_id":1,"top_n":null,"top_n":3}',
        b'{"top_n":1,"movie_id":1,"top_n":1}',
    ):
        assert asker.quick(body) is None, body
        assert asker.ordinary(body).status_code == 400
    assert asker.quick(b' {"top_n" : null, "movie_id" : 1 }') is not None


def test_what_takes_a_look_through_all_rows_is_not_done_on_the_fast_path(asker: Asker) -> None:
    """It runs in the event loop, and a large index takes a tenth of a second for it."""
    asker.ordinary({"movie_id": 1})
    engine = engine_cache.served(RegisteredModel.objects.get(name="movies")).engine
    assert isinstance(engine, IndexEngine)
    full = Question((Seed(movie_id=1),), 2)
    assert engine.at_hand(full) == engine.recommend(full)
    found = [each.movie_id for each in engine.recommend(Question((Seed(movie_id=1),), 100)).items]
    narrow = replace_neighbours(engine, 2)
    assert narrow.at_hand(full) == engine.recommend(full)
    assert narrow.at_hand(full, frozenset(found[:1])) is None
    assert narrow.recommend(full, frozenset(found[:1])) == engine.recommend(full, frozenset(found[:1]))


def replace_neighbours(engine: IndexEngine, count: int) -> IndexEngine:
    """The same index with fewer neighbours computed beforehand."""
    made = copy.copy(engine)
    made._neighbours = engine._neighbours[:, :count]
    return made
