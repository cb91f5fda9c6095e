"""The fast path answers plain questions as Django does, behind the same fence."""

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
    """A client with one key that sends questions to the fast path and to Django."""

    def __init__(self, user: User) -> None:
        self.fast_path, self.client, self.key = FastPath(), Client(), client_keys.issue(user)

    def quick(self, question: Any, path: str = ADDRESS, **headers: str) -> Reply | None:
        return ask(self.fast_path, path, question, f"Token {self.key}", X_Request_ID="mine", **headers)

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
def test_the_fast_path_and_django_give_the_same_answer(
    asker: Asker, path: str, question: dict[str, Any]
) -> None:
    assert asker.quick(question, path) is None, "the fast path knows no key yet"
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


def test_the_fast_path_declines_questions_that_need_the_catalogue(asker: Asker) -> None:
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


def test_the_fast_path_declines_free_text_for_a_large_index(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker.ordinary({"movie_id": 1})
    assert asker.quick({"text": "clowns"}) is not None
    monkeypatch.setattr(service, "SMALL", 5)
    assert asker.quick({"text": "clowns"}) is None


def test_the_fast_path_notices_a_withdrawal_at_its_commit(asker: Asker) -> None:
    asker.ordinary({"movie_id": 1})
    before = asker.quick({"movie_id": 1})
    assert before is not None and b"Storm over the Island" in before.body, "and the answer is cached"
    catalogue.withdraw([2], by=None)
    assert asker.quick({"movie_id": 1}) is None, "the log's fence noticed the withdrawal"
    after = asker.ordinary({"movie_id": 1}).json()
    quick = asker.quick({"movie_id": 1})
    assert quick is not None
    assert 2 not in {each["movie_id"] for each in after["recommendations"]}
    assert json.loads(quick.body)["recommendations"] == after["recommendations"]


def test_a_repeated_question_gets_the_same_answer_with_a_new_id(asker: Asker) -> None:
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


def test_the_fast_path_declines_a_repeated_field_and_django_refuses_it(asker: Asker) -> None:
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


def test_the_fast_path_never_scans_all_rows(asker: Asker) -> None:
    """The fast path runs in the event loop, and scanning a large index takes a tenth of a second."""
    asker.ordinary({"movie_id": 1})
    engine = engine_cache.served(RegisteredModel.objects.get(name="movies")).engine
    assert isinstance(engine, IndexEngine)
    full = Question((Seed(movie_id=1),), 2)
    assert engine.at_hand(full) == engine.recommend(full)
    movie_ids = [each.movie_id for each in engine.recommend(Question((Seed(movie_id=1),), 100)).items]
    narrow = replace_neighbours(engine, 2)
    assert narrow.at_hand(full) == engine.recommend(full)
    assert narrow.at_hand(full, frozenset(movie_ids[:1])) is None
    assert narrow.recommend(full, frozenset(movie_ids[:1])) == engine.recommend(
        full, frozenset(movie_ids[:1])
    )


def replace_neighbours(engine: IndexEngine, count: int) -> IndexEngine:
    """Returns the same index with fewer precomputed neighbours."""
    changed = copy.copy(engine)
    changed._neighbours = engine._neighbours[:, :count]
    return changed
