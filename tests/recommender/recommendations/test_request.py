"""Parsing of recommendation requests: strict, with every fault at once."""

from __future__ import annotations

from typing import Any

import pytest

from recommender.recommendations import request
from recommender.recommendations.request import QUESTION
from vigia_ml.schema import InvalidRows


def faults(data: object, *, text: bool = False) -> list[tuple[str | None, str]]:
    with pytest.raises(InvalidRows) as raised:
        request.read(data, text=text)
    return [(fault.field, fault.code) for fault in raised.value.faults]


def test_cells_are_in_the_order_of_the_schema() -> None:
    parsed = request.read({"liked": [3, 1, 3], "top_n": 7, "genres": ["Drama"], "_key": "k"})
    cells = dict(zip(QUESTION.names, parsed.cells(), strict=True))
    assert {name: value for name, value in cells.items() if value is not None} == {
        "liked": [3, 1],
        "top_n": 7,
        "genres": ["Drama"],
    }
    assert parsed.key == "k"


def test_a_form_separates_lists_by_commas_and_may_leave_fields_empty() -> None:
    form = {
        "movie_id": "",
        "title": "",
        "liked": "1, 2 ,3",
        "diversity": "0.5",
        "explain": "no",
        "genres": "",
    }
    parsed = request.read(form, text=True)
    assert (parsed.liked, parsed.diversity, parsed.explain, parsed.genres) == ((1, 2, 3), 0.5, False, ())


def test_the_length_of_a_text_counts_after_composition() -> None:
    assert request.read({"title": "\u0958" * 150}, text=True).title == "\u0915\u093c" * 150
    assert faults({"title": "\u0958" * 151}, text=True) == [("title", "too_long")]
    assert faults({"movie_id": "1", "genres": "Drama, " + "\u0958" * 31}, text=True) == [
        ("genres", "too_long")
    ]


def test_seen_movies_are_left_out_unless_exclude_seen_is_false() -> None:
    assert request.read({"user": "u"}).excludes_seen
    assert request.read({"user": "u", "exclude_seen": True}).excludes_seen
    assert not request.read({"user": "u", "exclude_seen": False}).excludes_seen
    assert not request.read({"movie_id": 1, "exclude_seen": False}).excludes_seen


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], [(None, "not_an_object")]),
        ({}, [("movie_id", "missing_field")]),
        ({"disliked": [1]}, [("movie_id", "missing_field")]),
        ({"movie_id": 1, "text": "a"}, [("movie_id", "ambiguous_question"), ("text", "ambiguous_question")]),
        ({"movie_id": True}, [("movie_id", "not_an_integer")]),
        ({"movie_id": "1"}, [("movie_id", "not_an_integer")]),
        ({"movie_id": 1.5}, [("movie_id", "not_an_integer")]),
        ({"movie_id": 0}, [("movie_id", "out_of_bounds")]),
        ({"movie_id": 10**400}, [("movie_id", "not_finite")]),
        ({"movie_id": 1, "top_n": 101}, [("top_n", "out_of_bounds")]),
        ({"movie_id": 1, "top_n": 0}, [("top_n", "out_of_bounds")]),
        ({"movie_id": 1, "diversity": float("nan")}, [("diversity", "not_finite")]),
        ({"liked": "1,2"}, [("liked", "not_an_array")]),
        ({"liked": [1, [2], None]}, [("liked", "not_an_integer"), ("liked", "null_not_allowed")]),
        ({"liked": list(range(1, 300))}, [("liked", "too_long")]),
        ({"title": "\ud800"}, [("title", "bad_text")]),
        ({"title": "a\x00"}, [("title", "bad_text")]),
        ({"text": "a" * 10_001}, [("text", "too_long")]),
        ({"text": "\u0958" * 5_001}, [("text", "too_long")]),
        ({"movie_id": 1, "genres": ["\u0958" * 31]}, [("genres", "too_long")]),
        ({"movie_id": 1, "year_from": 2000, "year_to": 1999}, [("year_from", "out_of_bounds")]),
        ({"movie_id": 1, "exclude_seen": True}, [("user", "missing_field")]),
        ({"exclude_seen": True}, [("movie_id", "missing_field"), ("user", "missing_field")]),
        ({"movie_id": "x", "colour": 1, "top_n": []},
         [("movie_id", "not_an_integer"), ("colour", "unknown_field"), ("top_n", "not_an_integer")]),
    ],
)  # fmt: skip
def test_faults_name_field_and_code(data: Any, expected: list[tuple[str | None, str]]) -> None:
    assert faults(data) == expected
