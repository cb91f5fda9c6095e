"""The tokenizer."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from recommender.index import tokenizer
from recommender.index.config import PLAIN, Field, Settings
from recommender.index.stop_words import STOP_WORDS

KNOWN = ("en", "es")


def test_the_english_stop_words_are_those_of_scikit_learn() -> None:
    assert STOP_WORDS["en"] == ENGLISH_STOP_WORDS


def test_words_have_two_letters_or_more_and_keep_accents() -> None:
    assert tokenizer.words("A Niño's café, 3D!") == ["niño", "café", "3d"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी फ़िल्म की कहानी", ["हिन्दी", "फ़िल्म", "की", "कहानी"]),
        ("தமிழ் திரைப்படம்", ["தமிழ்", "திரைப்படம்"]),
        ("ภาพยนตร์ ม้า", ["ภาพยนตร์", "ม้า"]),
        ("မြန်မာ ရုပ်ရှင်", ["မြန်မာ", "ရုပ်ရှင်"]),
        ("ភាសាខ្មែរ", ["ភាសាខ្មែរ"]),
        ("İSTANBUL'da İstanbul", ["istanbul", "da", "istanbul"]),
        ("e\u0301tude café cafe\u0301", ["étude", "café", "café"]),
        ("می‌خواهم", ["می‌خواهم"]),
    ],
)
def test_a_word_keeps_its_combining_marks(text: str, expected: list[str]) -> None:
    assert tokenizer.words(text) == [unicodedata.normalize("NFC", word) for word in expected]


def test_without_combining_marks_words_equal_those_of_scikit_learn() -> None:
    analyze = CountVectorizer().build_analyzer()
    for text in (
        "Can't stop: 3-D, L'été à Nîmes!",
        "x_y __ a1 1a",
        "Привет, мир ёлка",
        "千と千尋 の神隠し",
        "Straße 42",
    ):
        assert tokenizer.words(text) == analyze(text)


def test_words_that_only_ask_for_a_movie_do_not_count() -> None:
    assert tokenizer.without_request_words(tokenizer.words("A film about a lighthouse")) == [
        "about",
        "lighthouse",
    ]
    assert tokenizer.without_request_words(["film"]) == ["film"]


@pytest.mark.parametrize(
    ("text", "declared", "expected"),
    [
        ("in the heart of the city a boy learns to love", "fr", "en"),  # a French film, described in English
        ("un chico que aprende a querer en la ciudad", "en", "es"),
        ("sin city", "en", "en"),  # one stop word of Spanish proves nothing
        ("dans la ville", "fr", "fr"),
        ("", "", ""),
    ],
)
def test_the_text_decides_about_its_language(text: str, declared: str, expected: str) -> None:
    assert tokenizer.language_of(tokenizer.words(text), declared, KNOWN) == expected


def test_a_language_without_a_list_keeps_every_word() -> None:
    assert tokenizer.without_stop_words(["der", "hai"], "de") == ["der", "hai"]


def test_a_label_counts_once_and_in_lower_case() -> None:
    assert tokenizer.labels(["Science  Fiction", "science fiction", " ", "3D"]) == ["science fiction", "3d"]


def test_a_free_text_holds_labels_of_several_words_and_with_hyphens() -> None:
    held = set(tokenizer.phrases("A post-apocalyptic Space Opera, please."))
    assert {"post-apocalyptic", "space opera", "a post-apocalyptic space opera"} <= held


def test_settings_survive_json() -> None:
    settings = Settings((Field("title", 0.3, stop_words=KNOWN, suffices=False), Field("together")))
    for each in (settings, PLAIN):
        assert Settings.from_json(json.loads(json.dumps(asdict(each)))) == each


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (lambda: Field("plot"), "no field 'plot'"),
        (lambda: Field("title", -1), "title: the weight is -1"),
        (lambda: Field("title", stop_words=("xx",)), "title: no stop words for xx"),
        (lambda: Settings(()), "one at least"),
        (lambda: Settings((Field("title"), Field("title"))), "declared once"),
    ],
)
def test_an_invalid_setting_is_refused_by_name(declared: object, text: str) -> None:
    assert callable(declared)
    with pytest.raises(ValueError, match=text):
        declared()
