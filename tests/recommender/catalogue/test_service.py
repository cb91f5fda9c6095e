"""Search keys of titles, and the catalogue's service."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from recommender.catalogue import service
from recommender.errors import MovieExists, UnknownMovie
from recommender.models import Movie
from recommender.movie_schema import Entry
from recommender.title_keys import LONGEST_KEY, article_first, key_of
from tests.conftest import at_once
from training.models import RegisteredModel


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("  El  LABERINTO\tdel Búho ", "el laberinto del buho"),
        ("Ça ira: Straße", "ca ira: strasse"),
        ("\N{LATIN SMALL LIGATURE FI}lm", "film"),
        ("千と千尋の神隠し", "千と千尋の神隠し"),
        ("\N{COMBINING ACUTE ACCENT}", ""),
        ("ﾊﾟﾊﾟ", "パパ"),
        ("ม้า", "ม้า"),
        ("हिन्दी", "हिन्दी"),
        ("Мой ёжик", "мой ежик"),
        ("שָׁלוֹם", "שלום"),
        ("İstanbul", "istanbul"),
        (" ", ""),
        ("\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 300, None),
    ],
)
def test_a_key_ignores_case_accents_and_spaces(title: str, key: str | None) -> None:
    assert key is None or key_of(title) == key
    assert len(key_of(title)) <= LONGEST_KEY


def test_titles_that_differ_in_a_letter_have_different_keys() -> None:
    """Voicing in kana, tones in Thai and vowels in Devanagari are letters."""
    for one, other in (("パパ", "ハハ"), ("ม้า", "มา"), ("की", "का"), ("Мой", "Мои"), ("가", "각")):
        assert key_of(one) != key_of(other)


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Matrix, The", "The Matrix"),
        ("Avventura, L'", "L'Avventura"),
        ("Good, the Bad and the Ugly, The", "The Good, the Bad and the Ugly"),
        ("Blechtrommel, Die", "Die Blechtrommel"),
        ("Die, Mommie, Die", "Die, Mommie, Die"),
        ("Up, Up and Away", "Up, Up and Away"),
    ],
)
def test_a_trailing_article_moves_to_the_front(written: str, title: str) -> None:
    assert article_first(written) == title


def test_a_key_is_its_own_key_and_prefixes_of_titles_give_prefixes_of_keys() -> None:
    for code in range(0x3100):
        title = f"a {chr(code)}b {chr(code)}"
        key = key_of(title)
        assert key_of(key) == key, hex(code)
        assert all(key.startswith(key_of(title[:typed])) for typed in range(len(title))), hex(code)
    for length in range(290, 310):  # the limit falls after a word, and within one
        key = key_of("x" * length + " y" * 20)
        assert key_of(key) == key


@pytest.mark.django_db
def test_titles_are_found_by_equality_and_by_their_beginning(catalogue: RegisteredModel) -> None:
    assert [row.pk for row in service.by_title("  twice TOLD")] == [8, 7], "the more popular movie first"
    assert service.by_title("Twice") == service.by_title("") == service.by_title("a\x00") == []
    assert [row.pk for row in service.suggestions("THE  l")] == [1]
    assert [row.pk for row in service.suggestions("t")] == [1, 8, 7, 2], "then words anywhere"
    assert [row.pk for row in service.suggestions("t", most=1)] == [1]
    service.withdraw([8], by=None)
    assert [row.pk for row in service.suggestions("twice")] == [7]
    assert [row.pk for row in service.suggestions("TOLD tw")] == [7], "words anywhere in the title"
    assert service.suggestions("told 'x | !") == []
    assert [row.pk for row in service.by_title("twice told")] == [8, 7], "the list includes withdrawn movies"
    for odd in ("", "%", "_", "\\", "\ud800"):
        assert service.suggestions(odd) == []


@pytest.mark.django_db
def test_values_of_a_column_are_distinct_and_ascending(catalogue: RegisteredModel) -> None:
    Movie.objects.filter(pk=10).update(language="", year=None)
    assert service.values_of("language") == ["en", "es"]
    assert service.values_of("year") == [1980, 1999, 2001, 2003, 2005, 2010, 2015, 2018, 2020, 2021]
    with pytest.raises(ValueError, match="no index"):
        service.values_of("title")


@pytest.mark.django_db
def test_withdrawing_and_readmitting_return_the_number_of_changed_movies(catalogue: RegisteredModel) -> None:
    assert service.withdraw([1, 2, 4711], by=None) == 2
    assert service.withdraw([1, 2, 3], by=None) == 1
    assert service.readmit([1, 4], by=None) == 1
    assert service.withdraw([], by=None) == service.readmit([], by=None) == 0
    with pytest.raises(UnknownMovie):
        service.change(4711, {"year": 1999}, by=None)
    with pytest.raises(MovieExists):
        service.add(Entry(2, "Withdrawn, but it exists"), by=None)


@pytest.mark.django_db(transaction=True)
def test_one_of_several_concurrent_puts_adds_the_movie(catalogue: RegisteredModel) -> None:
    results: list[bool] = []
    at_once(*[lambda: results.append(service.put(Entry(500, "Both"), by=None)[1])] * 4)
    assert sorted(results) == [False, False, False, True]
    assert Movie.objects.get(pk=500).title_key == "both"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "assignment",
    [
        "id = -1",
        "title_key = ''",
        "year = 1492",
        "popularity = 'NaN'",
        "popularity = 'Infinity'",
        "rating = 11",
    ],
)
def test_the_database_refuses_invalid_values(catalogue: RegisteredModel, assignment: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE recommender_movie SET {assignment} WHERE id = 1")
