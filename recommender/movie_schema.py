"""Validates one movie from JSON, a form or a file: strictly, reporting every fault at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from recommender.missing import is_missing
from recommender.title_keys import key_of
from vigia_ml.schema import Column, Fault, InvalidRows
from vigia_ml.schema.columns import EXACT_INTEGER, BadValue
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo
from vigia_ml.schema.unicode_forms import normal

LONGEST_TITLE: Final = 300
LONGEST_DESCRIPTION: Final = 20_000
LONGEST_TERM: Final = 100
LONGEST_LANGUAGE: Final = 12
MOST_TERMS: Final[Mapping[str, int]] = {"genres": 50, "keywords": 500}
FIRST_YEAR, LAST_YEAR = 1870, 2100
HIGHEST_RATING: Final = 10
MOST_VOTES: Final = 2**31 - 1
LONGEST_RUNTIME: Final = 32_767
LARGEST_ID: Final = EXACT_INTEGER
LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One valid movie of the catalogue, with the fields of `recommender.models.Movie`."""

    id: int
    title: str
    original_title: str = ""
    description: str = ""
    genres: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    year: int | None = None
    language: str = ""
    popularity: float = 0.0
    rating: float | None = None
    votes: int = 0
    runtime: int | None = None


# -- the fields ----------------------------------------------------------------------------------------

Read = Callable[[Any], Any]
"""Function from a raw value to the field's value, None for an empty one. Raises `Refused`."""


class Refused(Exception):
    """A value that its field does not accept, with every fault (without row or line)."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))

    @classmethod
    def with_fault(cls, field: str, code: str, message: str, value: Any) -> Refused:
        """Returns the refusal of one value with one fault."""
        return cls([Fault(field, code, message, echo(value), has_value=True)])


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a movie: its parsers for JSON and for text, its empty value and its description.

    finish : function from the column's value (not None) to the field's value; None if they are the same.
    optional : the field may be absent or null, and then has the value `empty`.
    """

    name: str
    from_json: Read
    from_text: Read
    finish: Read | None
    description: str
    optional: bool = True
    empty: Any = None
    example: Any = None


def read_column(column: Column, value: Any, *, text: bool) -> Any:
    """Returns the value of one column from JSON or text; None for an empty one. Raises `Refused`.

    NaN is no value here, and not null as in a model's rows: a request that holds it would be answered as
    another one.
    """
    if isinstance(value, float) and math.isnan(value):
        column = replace(column, nullable=False)
    try:
        parsed = column.from_text(value) if text else column.from_json(value)
    except BadValue as error:
        raise Refused([error.fault]) from None
    return check_length(column, parsed) if isinstance(parsed, str) else parsed


def check_length(column: Column, text: str) -> str:
    """Returns the text, or raises `Refused` if it is too long. Composition splits a few characters, so a text
    may have grown since its column checked it."""
    if len(text) > column.max_length:
        message = f"{column.name} must have at most {column.max_length} characters"
        raise Refused.with_fault(column.name, "too_long", message, text)
    return text


def _scalar(column: Column, *, empty: Any = None, finish: Read | None = None) -> Field:
    if finish is None and column.type == "text":
        finish = partial(check_length, column)

    def parse(value: Any, *, text: bool) -> Any:
        parsed = read_column(column, value, text=text)
        return parsed if parsed is None or finish is None else finish(parsed)

    readers = partial(parse, text=False), partial(parse, text=True)
    return Field(column.name, *readers, finish, column.description, column.nullable, empty, column.example)


def _title(value: str) -> str:
    if not key_of(value):  # a title of marks alone, which no search finds
        raise Refused.with_fault("title", "null_not_allowed", "title must not be empty", value)
    return check_length(COLUMNS["title"], value)


def _description(value: str) -> str | None:
    return None if is_missing(value) else check_length(COLUMNS["description"], value)


def _language(value: str) -> str:
    code = value.lower().replace("_", "-")
    if not LANGUAGE.fullmatch(code):
        message = "language must be a code such as en, es or pt-br"
        raise Refused.with_fault("language", "not_a_language", message, value)
    return code


TERM_MARKS: Final = {"genres": ("|", ";", ","), "keywords": ("|", ";")}
"""Separators of terms in a text: the first of these that occurs. A keyword may hold a comma
("manhattan, new york city"), a genre hardly ever."""


def terms_of(name: str, items: Iterable[Any]) -> tuple[str, ...]:
    """Returns the terms of a list in their order, each once (ignoring case), without words for missing
    values. Raises `Refused`."""
    column = Column(name, "text", max_length=LONGEST_TERM)
    terms: dict[str, str] = {}
    faults = []
    for each in items:
        try:
            term = read_column(column, each, text=False)
        except Refused as refused:
            faults += refused.faults
            if len(faults) > REPORTED_FAULTS:
                break
        else:
            if not is_missing(term):
                terms.setdefault(term.casefold(), term)
    most = MOST_TERMS[name]
    if not faults and len(terms) > most:
        faults = [Fault(name, "too_long", f"{name} may hold {most} values at most")]
    if faults:
        raise Refused(faults)
    return tuple(terms.values())


def split_terms(name: str, text: str) -> list[str]:
    """Splits a text such as ``"Drama|Science Fiction"`` into terms; see `TERM_MARKS`."""
    mark = next((mark for mark in TERM_MARKS[name] if mark in text), "\n")
    return [term for part in re.split(rf"[\n{re.escape(mark)}]", text) if (term := part.strip())]


def _terms(name: str, description: str, example: list[str]) -> Field:
    def from_json(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise Refused.with_fault(name, "not_an_array", f"{name} must be an array", value)
        return terms_of(name, value)

    def from_text(value: Any) -> Any:
        return terms_of(name, split_terms(name, value)) or None

    return Field(name, from_json, from_text, None, description, True, (), example)


_optional: Final = partial(Column, nullable=True)
COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column
    for column in (
        Column("id", "integer", "Number of the movie in its source.", minimum=1, example=9001),
        Column("title", "text", "", max_length=LONGEST_TITLE, example="The Tidal Clock"),
        _optional(
            "original_title",
            "text",
            "Title in the movie's own language.",
            max_length=LONGEST_TITLE,
            example="",
        ),
        _optional(
            "description",
            "text",
            "Summary of the plot; it has the largest weight in recommendations.",
            max_length=LONGEST_DESCRIPTION,
            example="A clockmaker on a shrinking island finds that the tide keeps better time than she does.",
        ),
        _optional("year", "integer", "Year of release.", minimum=FIRST_YEAR, maximum=LAST_YEAR, example=2019),
        _optional(
            "language",
            "text",
            "Language code such as en, es or pt-br.",
            max_length=LONGEST_LANGUAGE,
            example="en",
        ),
        _optional(
            "popularity",
            "number",
            "Popularity on any scale from 0 on; among equal scores the more popular movie comes first.",
            minimum=0,
            example=12.5,
        ),
        _optional("rating", "number", "Mean of the votes.", minimum=0, maximum=HIGHEST_RATING, example=7.1),
        _optional("votes", "integer", "Number of votes.", minimum=0, maximum=MOST_VOTES, example=310),
        _optional("runtime", "integer", "", "minutes", minimum=0, maximum=LONGEST_RUNTIME, example=104),
    )
}
FIELDS: Final[Mapping[str, Field]] = {
    read.name: read
    for read in (
        _scalar(COLUMNS["id"]),
        _scalar(COLUMNS["title"], finish=_title),
        _scalar(COLUMNS["original_title"], empty=""),
        _scalar(COLUMNS["description"], empty="", finish=_description),
        _terms("genres", "Genres, in any case; each once.", ["Drama", "Fantasy"]),
        _terms("keywords", "Subjects of the movie as words or phrases.", ["island", "clockmaker"]),
        _scalar(COLUMNS["year"]),
        _scalar(COLUMNS["language"], empty="", finish=_language),
        _scalar(COLUMNS["popularity"], empty=0.0),
        _scalar(COLUMNS["rating"]),
        _scalar(COLUMNS["votes"], empty=0),
        # Sources write 0 minutes for an unknown length.
        _scalar(COLUMNS["runtime"], finish=lambda minutes: minutes or None),
    )
}
EXAMPLE: Final = {name: read.example for name, read in FIELDS.items()}


# -- one object ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reading:
    """The values of one JSON object or form parsed so far, and its faults."""

    values: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def of(cls, raw: Mapping[str, Any], readers: Mapping[str, Read], kind: str) -> Reading:
        """Parses the fields that an object names. kind : the kind of object, for messages."""
        reading = cls(faults=repeated_fields(raw))
        for name, value in raw.items():
            if len(reading.faults) > REPORTED_FAULTS:
                break
            if name in readers:
                reading.add(name, readers[name], value)
            else:
                message = f"{clip(name)} is not a field of {kind}"
                reading.faults.append(Fault(clip(name), "unknown_field", message, allowed=tuple(readers)))
        return reading

    def add(self, name: str, read: Read, value: Any) -> None:
        try:
            self.values[name] = read(value)
        except Refused as refused:
            self.faults += refused.faults

    def require(self, names: Iterable[str]) -> None:
        """Adds a fault for each of these fields that the object does not name."""
        known = self.values.keys() | {fault.field for fault in self.faults}
        missing = [name for name in names if name not in known]
        self.faults += [Fault(name, "missing_field", f"{name} is missing") for name in missing]


def repeated_fields(raw: Mapping[str, Any]) -> list[Fault]:
    """Returns a fault for each field that an object names twice."""
    repeated = raw.repeated if isinstance(raw, RepeatedNames) else ()
    return [Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice") for name in repeated]


# -- one movie -----------------------------------------------------------------------------------------

_JSON_READERS: Final = {name: known.from_json for name, known in FIELDS.items()}
_TEXT_READERS: Final = {name: known.from_text for name, known in FIELDS.items()}


def read(raw: object, *, movie_id: int | None = None) -> Entry:
    """Returns the movie of a decoded JSON object. Raises `InvalidRows` with every fault.

    movie_id : the id in the address; the object may then omit it.
    """
    reading = _parse(raw, movie_id)
    if movie_id is not None and not any(fault.field == "id" for fault in reading.faults):
        reading.add("id", FIELDS["id"].from_json, movie_id)  # an address may name any number
    return _entry(reading)


def read_cells(cells: Mapping[str, str]) -> Entry:
    """Returns the movie of a form's cells, of which an empty one counts as absent; raises as `read`."""
    return _entry(Reading.of(cells, _TEXT_READERS, "a movie"))


def _entry(reading: Reading) -> Entry:
    reading.require(name for name, known in FIELDS.items() if not known.optional)
    return Entry(**_valid(reading))


def read_changes(raw: object, *, movie_id: int) -> dict[str, Any]:
    """Returns the fields that a JSON object names, without the id; raises as `read`."""
    reading = _parse(raw, movie_id)
    reading.values.pop("id", None)
    return _valid(reading)


def _valid(reading: Reading) -> dict[str, Any]:
    """Returns the values, with a field's empty value in place of null."""
    if reading.faults:
        raise InvalidRows(reading.faults, rows=1, bad=1, message="the movie is invalid")
    return {name: FIELDS[name].empty if value is None else value for name, value in reading.values.items()}


def _parse(raw: object, movie_id: int | None) -> Reading:
    if not isinstance(raw, Mapping):
        fault = Fault(None, "not_an_object", "a movie must be a JSON object", echo(raw), has_value=True)
        raise InvalidRows([fault], rows=1, bad=1, message="the movie is invalid")
    reading = Reading.of(raw, _JSON_READERS, "a movie")
    body_id = reading.values.get("id")
    if movie_id is not None and body_id not in (None, movie_id):
        message = f"id must be {movie_id}, the id in the address, or be absent"
        reading.faults.append(Fault("id", "other_movie", message, echo(body_id), has_value=True))
    return reading


def plain(text: str) -> str:
    """Returns the comparison form of a name: composed, casefolded, without spaces around it."""
    return normal("NFC", text.strip()).casefold()
