"""One movie as it is given, by JSON, by a form or in a file: read strictly, every fault at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from recommender.missing import says_nothing
from recommender.title_keys import key_of
from vigia_ml.schema import Column, Fault
from vigia_ml.schema.columns import EXACT_INTEGER, BadValue
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo

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
    """One movie of the catalogue, valid; the fields of `recommender.models.Movie`."""

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
"""A value as it came -> the field's value, None where nothing was given. Raises `Refused`."""


class Refused(Exception):
    """A value its field does not take, with every fault (without a place)."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how it is read from JSON and from text, what stands for nothing, and words about it.

    finish : what its column has read (not None) -> the field's value; None where that is all.
    optional : it may be left out or null, which gives `empty`.
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
    """A value of one column, from JSON or from text; None where nothing was given. Raises `Refused`."""
    try:
        found = column.from_text(value) if text else column.from_json(value)
    except BadValue as bad:
        raise Refused([bad.fault]) from None
    return check_length(column, found) if isinstance(found, str) else found


def check_length(column: Column, found: str) -> str:
    """A text that a column has read: composing takes a few characters apart, so it may have grown."""
    if len(found) > column.max_length:
        said = f"{column.name} must have at most {column.max_length} characters"
        raise Refused([Fault(column.name, "too_long", said, echo(found), has_value=True)])
    return found


def _scalar(column: Column, *, empty: Any = None, finish: Read | None = None) -> Field:
    if finish is None and column.type == "text":
        finish = partial(check_length, column)

    def from_json(value: Any) -> Any:
        found = read_column(column, value, text=False)
        return found if found is None or finish is None else finish(found)

    def from_text(value: Any) -> Any:
        found = read_column(column, value, text=True)
        return found if found is None or finish is None else finish(found)

    said = column.description
    return Field(column.name, from_json, from_text, finish, said, column.nullable, empty, column.example)


def _title(value: str) -> str:
    if not key_of(value):  # of marks alone, which nobody could look for
        fault = Fault("title", "null_not_allowed", "title must not be empty", echo(value), has_value=True)
        raise Refused([fault])
    return check_length(COLUMNS["title"], value)


def _description(value: str) -> str | None:
    return None if says_nothing(value) else check_length(COLUMNS["description"], value)


def _language(value: str) -> str:
    code = value.lower().replace("_", "-")
    if not LANGUAGE.fullmatch(code):
        said = "language must be a code such as en, es or pt-br"
        raise Refused([Fault("language", "not_a_language", said, echo(value), has_value=True)])
    return code


TERM_MARKS: Final = {"genres": ("|", ";", ","), "keywords": ("|", ";")}
"""What separates terms in a text: the first of these that occurs. A keyword may hold a comma
("manhattan, new york city"), a genre hardly."""


def terms_of(name: str, given: Iterable[Any]) -> tuple[str, ...]:
    """The terms of a list, each once (in lower or upper case), in their order, without those that say that
    nothing is known. Raises `Refused`."""
    column = Column(name, "text", max_length=LONGEST_TERM)
    found: dict[str, str] = {}
    faults = []
    for each in given:
        try:
            term = read_column(column, each, text=False)
        except Refused as refused:
            faults += refused.faults
            if len(faults) > REPORTED_FAULTS:
                break
        else:
            if not says_nothing(term):
                found.setdefault(term.casefold(), term)
    most = MOST_TERMS[name]
    if not faults and len(found) > most:
        faults = [Fault(name, "too_long", f"{name} may hold {most} values at most")]
    if faults:
        raise Refused(faults)
    return tuple(found.values())


def split_terms(name: str, text: str) -> list[str]:
    """``"Drama|Science Fiction"`` -> its terms; see `TERM_MARKS`."""
    mark = next((mark for mark in TERM_MARKS[name] if mark in text), "\n")
    return [term for part in re.split(rf"[\n{re.escape(mark)}]", text) if (term := part.strip())]


def _terms(name: str, description: str, example: list[str]) -> Field:
    def from_json(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            fault = Fault(name, "not_an_array", f"{name} must be an array", echo(value), has_value=True)
            raise Refused([fault])
        return terms_of(name, value)

    def from_text(value: Any) -> Any:
        return terms_of(name, split_terms(name, value)) or None

    return Field(name, from_json, from_text, None, description, True, (), example)


COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column
    for column in (
        Column("id", "integer", "The source's own number.", minimum=1, example=9001),
        Column("title", "text", "", max_length=LONGEST_TITLE, example="The Tidal Clock"),
        Column(
            "original_title",
            "text",
            "In its own language.",
            nullable=True,
            max_length=LONGEST_TITLE,
            example="",
        ),
        Column(
            "description",
            "text",
            "What it is about; recommendations go by it first.",
            nullable=True,
            max_length=LONGEST_DESCRIPTION,
            example="A clockmaker on a shrinking island finds that the tide keeps better time than she does.",
        ),
        Column(
            "year",
            "integer",
            "Of its release.",
            nullable=True,
            minimum=FIRST_YEAR,
            maximum=LAST_YEAR,
            example=2019,
        ),
        Column(
            "language",
            "text",
            "A code such as en, es or pt-br.",
            nullable=True,
            max_length=LONGEST_LANGUAGE,
            example="en",
        ),
        Column(
            "popularity",
            "number",
            "On any scale from 0 on; of equal scores the more popular movie comes first.",
            nullable=True,
            minimum=0,
            example=12.5,
        ),
        Column(
            "rating",
            "number",
            "Mean of its votes.",
            nullable=True,
            minimum=0,
            maximum=HIGHEST_RATING,
            example=7.1,
        ),
        Column("votes", "integer", "How many.", nullable=True, minimum=0, maximum=MOST_VOTES, example=310),
        Column(
            "runtime",
            "integer",
            "",
            "minutes",
            nullable=True,
            minimum=0,
            maximum=LONGEST_RUNTIME,
            example=104,
        ),
    )
}
FIELDS: Final[Mapping[str, Field]] = {
    read.name: read
    for read in (
        _scalar(COLUMNS["id"]),
        _scalar(COLUMNS["title"], finish=_title),
        _scalar(COLUMNS["original_title"], empty=""),
        _scalar(COLUMNS["description"], empty="", finish=_description),
        _terms("genres", "Any case; each once.", ["Drama", "Fantasy"]),
        _terms("keywords", "What it is about in single words or phrases.", ["island", "clockmaker"]),
        _scalar(COLUMNS["year"]),
        _scalar(COLUMNS["language"], empty="", finish=_language),
        _scalar(COLUMNS["popularity"], empty=0.0),
        _scalar(COLUMNS["rating"]),
        _scalar(COLUMNS["votes"], empty=0),
        # Sources write 0 minutes for a length that is not known.
        _scalar(COLUMNS["runtime"], finish=lambda minutes: minutes or None),
    )
}
NAMES: Final = tuple(FIELDS)
EXAMPLE: Final = {name: read.example for name, read in FIELDS.items()}


# -- one movie -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reading:
    """Values of one movie so far, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def take(self, name: str, read: Read, value: Any) -> None:
        """Reads one field; null or an empty text gives what stands for nothing."""
        try:
            found = read(value)
        except Refused as refused:
            self.faults += refused.faults
            return
        self.values[name] = FIELDS[name].empty if found is None else found

    def once(self, raw: Mapping[str, Any]) -> None:
        """Names the fields that are given twice."""
        for name in raw.repeated if isinstance(raw, RepeatedNames) else ():
            self.faults.append(Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice"))

    def unknown(self, name: str) -> None:
        said = f"{clip(name)} is not a field of a movie"
        self.faults.append(Fault(clip(name), "unknown_field", said, allowed=NAMES))

    def missing(self) -> None:
        """Names the fields that must be given and are not; the others get what stands for nothing."""
        refused = {fault.field for fault in self.faults}
        for name, known in FIELDS.items():
            if name in self.values or name in refused:
                continue
            if known.optional:
                self.values[name] = known.empty
            else:
                self.faults.append(Fault(name, "missing_field", f"{name} is missing"))

    def entry(self) -> Entry | list[Fault]:
        self.missing()
        return self.faults or Entry(**self.values)


def read(raw: object, *, movie_id: int | None = None) -> Entry | list[Fault]:
    """One decoded JSON object as a whole movie.

    Parameters
    ----------
    movie_id : the id the address names; then the object may leave it out.

    Returns
    -------
    The entry, or every fault.
    """
    reading = _given(raw, movie_id)
    if movie_id is not None and not any(fault.field == "id" for fault in reading.faults):
        reading.take("id", FIELDS["id"].from_json, movie_id)  # an address may name any number
    return reading.entry() if isinstance(raw, Mapping) else reading.faults


def read_cells(cells: Mapping[str, str]) -> Entry | list[Fault]:
    """The cells of a form as a whole movie, or every fault; an empty cell is as left out."""
    reading = Reading()
    reading.once(cells)
    for name, cell in cells.items():
        known = FIELDS.get(name)
        if known is None:
            reading.unknown(name)
        else:
            reading.take(name, known.from_text, cell)
    return reading.entry()


def read_changes(raw: object, *, movie_id: int) -> dict[str, Any] | list[Fault]:
    """The fields a JSON object names, or every fault."""
    reading = _given(raw, movie_id)
    reading.values.pop("id", None)
    return reading.faults or reading.values


def _given(raw: object, movie_id: int | None) -> Reading:
    reading = Reading()
    if not isinstance(raw, Mapping):
        said = "a movie must be a JSON object"
        reading.faults.append(Fault(None, "not_an_object", said, echo(raw), has_value=True))
        return reading
    reading.once(raw)
    for name, value in raw.items():
        if len(reading.faults) > REPORTED_FAULTS:
            break
        known = FIELDS.get(name)
        if known is None:
            reading.unknown(name)
        else:
            reading.take(name, known.from_json, value)
    given = reading.values.get("id")
    if movie_id is not None and given not in (None, movie_id):
        said = f"id must be that of the address, {movie_id}, or be left out"
        reading.faults.append(Fault("id", "other_movie", said, echo(given), has_value=True))
    return reading


def plain(text: str) -> str:
    """A name of a column or field as it is compared: no case, no space around, composed."""
    return unicodedata.normalize("NFC", text.strip()).casefold()
