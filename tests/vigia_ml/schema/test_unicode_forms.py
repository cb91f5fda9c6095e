"""Tests of normal forms: equal to Python's for real text, and linear for runs of combining marks."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest

from vigia_ml.engines.tokens import without_accents
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.unicode_forms import _LIKE_MARKS, LONGEST_RUN, normal

MARKS = "\u0315\u0300"  # in the wrong order, so that sorting moves each of them
SECONDS = 2.0  # the quadratic form takes minutes for the texts below


@pytest.mark.parametrize("text", ["", "plain", "niño", "nin\u0303o", "nin\u0303o " * 100, "ﬁ Å " * 60])
@pytest.mark.parametrize("form", ["NFC", "NFKD"])
def test_real_text_has_pythons_form(form: str, text: str) -> None:
    assert normal(form, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type]


def test_a_run_that_no_language_has_stays() -> None:
    accepted = "x" * 200 + "e" + "\u0301" * LONGEST_RUN
    assert normal("NFC", accepted) == unicodedata.normalize("NFC", accepted)
    longer = accepted + "\u0301"
    assert normal("NFC", longer) == longer


def test_every_character_that_decomposes_into_a_mark_counts_as_one() -> None:
    found = {
        each
        for each in map(chr, range(sys.maxunicode + 1))
        if not unicodedata.combining(each)
        and unicodedata.decomposition(each)
        and unicodedata.combining(unicodedata.normalize("NFKD", each)[0])
    }
    assert found == set(_LIKE_MARKS)


@pytest.mark.parametrize("unit", [MARKS, "\u0f73\u0f71", "\uff9e\u0300"])
def test_a_name_of_marks_alone_takes_no_time(unit: str) -> None:
    schema = DatasetSchema((Column("a", "number"),), Column("y", "number"))
    column = Column("t", "text", max_length=1_000_000)
    hostile = "a" + unit * 200_000
    began = time.perf_counter()
    assert schema.resolve(hostile) == ("unknown", None)
    assert column.from_json(hostile) == hostile
    assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize("accents", ["unicode", "ascii"])
def test_accents_go_in_linear_time(accents: str) -> None:
    began = time.perf_counter()
    assert without_accents("a" + MARKS * 200_000 + "é", accents) == "ae"
    assert time.perf_counter() - began < SECONDS


def test_pieces_lose_the_accents_that_the_whole_loses() -> None:
    text = ("é" + MARKS * 9 + "\u0f73ﬁ\ufdfa\uff9e漢") * 40
    whole = unicodedata.normalize("NFKD", text)
    assert without_accents(text, "unicode") == "".join(
        each for each in whole if not unicodedata.combining(each)
    )
    assert without_accents(text, "ascii") == whole.encode("ascii", "ignore").decode()
