"""The layout of a file of movies: TMDB's columns or our own, as CSV or JSON lines."""

from __future__ import annotations

import ast
import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final

from recommender.files.tabular import NO_TARGET, Layout
from recommender.missing import is_missing
from recommender.movie_schema import COLUMNS, FIELDS, Read, Refused, split_terms, terms_of
from recommender.title_keys import article_first, other_name, without_year
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema, Fault
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.numerals import MISSING_WORDS

LONGEST_CELL: Final = 100_000
ALIASES: Final = {
    "id": ("movie_id", "movieId", "tmdb_id"),
    "tconst": (),
    "title_type": ("titleType",),
    "title": ("name", "titulo", "título", "primaryTitle"),
    "original_title": ("originalTitle",),
    "description": ("overview", "plot", "synopsis", "summary", "sinopsis"),
    "genres": ("genre", "géneros"),
    "keywords": ("tags",),
    "year": ("release_year", "startYear", "año"),
    "release_date": ("released",),
    "language": ("original_language", "lang"),
    "popularity": (),
    "rating": ("vote_average",),
    "votes": ("vote_count",),
    "runtime": ("runtime_minutes", "runtimeMinutes", "duration_minutes"),
}
LISTS: Final = ("genres", "keywords")
MOVIE_TYPES: Final = frozenset(("movie", "tvmovie", "short", "tvshort", "video", "tvspecial", "tvminiseries"))
_TCONST: Final = re.compile(r"tt0*([1-9]\d{0,14})", re.ASCII)
_EXTRA: Final = {
    "id": replace(COLUMNS["id"], nullable=True),  # IMDb has `tconst` in its place
    "tconst": Column("tconst", "text", nullable=True, max_length=40),
    "title_type": Column("title_type", "text", nullable=True, max_length=40),
    "genres": Column("genres", "text", nullable=True, max_length=LONGEST_CELL),
    "keywords": Column("keywords", "text", nullable=True, max_length=LONGEST_CELL),
    "release_date": Column("release_date", "text", nullable=True, max_length=40),
}


def _column(name: str, aliases: tuple[str, ...]) -> Column:
    column = _EXTRA[name] if name in _EXTRA else COLUMNS[name]
    return replace(column, aliases=aliases, missing=tuple(MISSING_WORDS) if column.is_numeric else ())


SCHEMA: Final = DatasetSchema(
    columns=tuple(_column(name, aliases) for name, aliases in ALIASES.items()),
    target=NO_TARGET,
    fold_names=True,
)
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ].*)?)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """One movie of a file: the fields that the file gives (always `id` and `title`), as `Entry` holds
    them."""

    values: dict[str, Any]


def assemble(row_values: dict[str, Any]) -> Row | list[Fault] | None:
    """Returns the movie of a row's values, or every fault, or None for a row that IMDb marks as no movie.

    row_values : values by canonical name, as the columns read them.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    title_type = row_values.pop("title_type", None)
    if title_type is not None and title_type.casefold() not in MOVIE_TYPES:
        return None
    tconst = row_values.pop("tconst", None)
    if row_values.get("id") is None:
        number = _TCONST.fullmatch(tconst or "")
        if number is None:
            empty = "id" in row_values or tconst is not None
            message = "id must be a number, or tconst like tt0111161" if empty else "id is missing"
            faults.append(Fault("id", "null_not_allowed" if empty else "missing_field", message))
        else:
            row_values["id"] = int(number[1])
    for name, value in row_values.items():
        finish = _FINISH.get(name)
        if isinstance(value, str) and name != "title" and is_missing(value):
            value = None  # noqa: PLW2901
        if value is not None and finish is not None:
            try:
                value = finish(value)  # noqa: PLW2901
            except Refused as refused:
                faults += refused.faults
                continue
        values[name] = _EMPTY[name] if value is None else value
    if "release_date" in values:
        release_year = values.pop("release_date")
        values["year"] = release_year if values.get("year") is None else values["year"]
    if isinstance(values.get("title"), str):
        _split_title(values)
    if "rating" in values and not values.get("votes", 1) and not values["rating"]:
        values["rating"] = None  # the mean of no votes
    return faults or Row(values)


def _split_title(values: dict[str, Any]) -> None:
    """Splits MovieLens's "Postman, The (Postino, Il) (1994)" into "The Postman", 1994, originally "Il
    Postino".

    A year stays in the title if the file gives another year.
    """
    title, year = without_year(values["title"])
    if year is not None and values.get("year") in (None, year):
        values["year"] = year
        title, other = other_name(title)
        if other and not values.get("original_title"):
            values["original_title"] = article_first(other)
    else:
        title = values["title"]
    values["title"] = article_first(title)


def list_of(name: str, value: Any) -> tuple[str, ...]:
    """Returns the terms of a JSON list of texts or of objects with a name, of one such object, of the text of
    either, or of a text with separators (`recommender.movie_schema.TERM_MARKS`). It skips blank terms."""
    if isinstance(value, str):
        return _list_in(name, value.strip())
    if isinstance(value, dict) and "name" in value:
        value = [value]
    if not isinstance(value, list):
        raise Refused.with_fault(name, "not_an_array", f"{name} must be a list", value)
    terms = [item.get("name") if isinstance(item, dict) else item for item in value]
    return terms_of(name, (term for term in terms if not (isinstance(term, str) and not term.strip())))


@lru_cache(maxsize=4_000)
def _list_in(name: str, text: str) -> tuple[str, ...]:
    if not text.startswith(("[", "{")):
        return terms_of(name, split_terms(name, text))
    try:
        return list_of(name, decode_json(text.encode("utf-8", "surrogatepass")))
    except Malformed as error:
        literal = _python_literal(text)
        if literal is not None:
            return list_of(name, literal)
        message = f"{name} is not a JSON list: {error.message.replace('the body', 'the cell')}"
        raise Refused.with_fault(name, error.code, message, text) from None


def _python_literal(text: str) -> list[Any] | dict[str, Any] | None:
    """Returns the value of a text such as ``[{'id': 18, 'name': 'Drama'}]``, which Kaggle's files hold in
    place of JSON; None for any other text.

    It reads literals only: no name, call or operator.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, (list, dict)) else None


def year_of(date: str) -> int:
    """Returns the year of a date: 1999 for "1999", "1999-12" and "1999-12-31"."""
    match = _DATE.fullmatch(date.strip())
    if match is None or not _is_date(int(match[1]), int(match[2] or 1), int(match[3] or 1)):
        raise Refused.with_fault("release_date", "not_a_time", "release_date must be an ISO 8601 date", date)
    year: int = FIELDS["year"].from_json(int(match[1]))
    return year


def _is_date(year: int, month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= monthrange(max(year, 1), month)[1]


_FINISH: Final[Mapping[str, Read]] = (
    {name: field.finish for name, field in FIELDS.items() if field.finish is not None}
    | {name: partial(list_of, name) for name in LISTS}
    | {"release_date": year_of}
)
_EMPTY: Final = {name: field.empty for name, field in FIELDS.items()} | {"release_date": None}
LAYOUT: Final[Layout[Row]] = Layout(
    SCHEMA,
    assemble,
    raw=frozenset(LISTS),
    needs=(("id", "tconst"),),
    others="episodes, series or games by their titleType",
)
