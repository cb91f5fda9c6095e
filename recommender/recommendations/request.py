"""Recommendation requests: their schema, and parsing them from JSON or from a form.

`QUESTION` is the schema of every version of `movies`: its columns name the inputs of a logged recommendation,
document the request and fill the form. The schema treats lists as text columns; in JSON they are arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from recommender.index.query import LARGEST_TOP
from recommender.movie_schema import Read, Reading, Refused, read_column
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.faults import echo
from vigia_ml.schema.row_keys import KEY_FIELD, read_key

LONGEST_TEXT: Final = 10_000
MOST_LISTED: Final = 200
LARGEST_ID: Final = 2**53
USUAL_TOP: Final = 5
FIRST_YEAR, LAST_YEAR = 1800, 2200

_optional: Final = partial(Column, nullable=True)
_year: Final = partial(_optional, type="integer", minimum=FIRST_YEAR, maximum=LAST_YEAR)
QUESTION: Final = DatasetSchema(
    columns=(
        _optional(
            "movie_id",
            "integer",
            "Id of a movie: recommends similar movies.",
            minimum=1,
            maximum=LARGEST_ID,
        ),
        _optional(
            "title",
            "text",
            "Title of a movie: recommends similar movies. Small differences in spelling are accepted.",
            max_length=300,
        ),
        _optional(
            "text", "text", "Free text: recommends movies that match its words.", max_length=LONGEST_TEXT
        ),
        _optional("liked", "text", "Ids of movies: recommends movies similar to all of them."),
        _optional("disliked", "text", "Ids of movies: lowers the score of similar movies."),
        _optional(
            "user",
            "text",
            "The client's reference for a person. Alone: recommends movies by the person's interactions.",
        ),
        _optional(
            "top_n",
            "integer",
            f"Number of movies at most; default {USUAL_TOP}.",
            minimum=1,
            maximum=LARGEST_TOP,
        ),
        _optional("genres", "text", "Genres: recommends only movies with one of them."),
        _year("year_from", description="First year of release."),
        _year("year_to", description="Last year of release."),
        _optional(
            "language", "text", "Language code such as en: recommends only movies in it.", max_length=12
        ),
        _optional("exclude", "text", "Ids of movies that are not recommended."),
        _optional(
            "exclude_seen",
            "boolean",
            "Whether to leave out movies that the user clicked, watched, liked or disliked. Default with a "
            "user: true; not accepted without a user.",
        ),
        _optional(
            "diversity",
            "number",
            "Weight from 0 to 1 of differences between the recommended movies (maximal marginal relevance).",
            minimum=0.0,
            maximum=1.0,
        ),
        _optional("explain", "boolean", "Whether the response gives reasons; default true."),
    ),
    target=Column("recommendations", "text", "Ids of movies with scores, best first."),
)
LISTS: Final[Mapping[str, str]] = {"liked": "ids", "disliked": "ids", "exclude": "ids", "genres": "words"}
STARTS: Final = ("movie_id", "title", "text", "liked")
"""Fields that a request can start from: exactly one of them, or the user alone."""


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """One valid request; an absent field is None, or an empty tuple for lists."""

    movie_id: int | None = None
    title: str | None = None
    text: str | None = None
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    user: str | None = None
    top_n: int | None = None
    genres: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    language: str | None = None
    exclude: tuple[int, ...] = ()
    exclude_seen: bool | None = None
    diversity: float | None = None
    explain: bool | None = None
    key: str | None = None

    @property
    def most(self) -> int:
        return USUAL_TOP if self.top_n is None else self.top_n

    @property
    def explains(self) -> bool:
        return self.explain is not False

    @property
    def excludes_seen(self) -> bool:
        return self.user is not None and self.exclude_seen is not False

    def cells(self) -> list[Any]:
        """Returns the inputs of the log's row, in the order of `QUESTION`."""
        values = (getattr(self, name) for name in QUESTION.names)
        return [(list(value) or None) if isinstance(value, tuple) else value for value in values]


def read(data: object, *, text: bool = False) -> RecommendationRequest:
    """Parses one request. Raises `InvalidRows` with every fault.

    data : a decoded JSON object, or the cells of a form. text : whether `data` are cells, in which commas
    separate the items of lists.
    """
    if not isinstance(data, Mapping):
        raise InvalidRows.single(
            None, "not_an_object", "send one JSON object", value=echo(data), has_value=True
        )
    reading = Reading.of(data, _READERS[text], "a recommendation request")
    values = {
        "key" if name == KEY_FIELD else name: value
        for name, value in reading.values.items()
        if value is not None
    }
    faults = reading.faults or _conflicts(values)
    if faults:
        raise InvalidRows(faults, message="the recommendation request is invalid")
    return RecommendationRequest(**values)


def _conflicts(values: Mapping[str, Any]) -> list[Fault]:
    """Returns the faults of values that are valid alone but not together."""
    starts = [name for name in STARTS if values.get(name)]
    faults = []
    if len(starts) > 1:
        message = f"give one of {', '.join(STARTS)}, not {' and '.join(starts)}"
        faults += [Fault(name, "ambiguous_question", message) for name in starts]
    elif not starts and "user" not in values:
        message = f"give one of {', '.join(STARTS)}, or a user"
        faults.append(Fault("movie_id", "missing_field", message))
    if values.get("exclude_seen") and "user" not in values:
        message = "exclude_seen needs a user: give user, or omit exclude_seen"
        faults.append(Fault("user", "missing_field", message))
    low, high = values.get("year_from"), values.get("year_to")
    if low is not None and high is not None and low > high:
        faults.append(Fault("year_from", "out_of_bounds", "year_from must not be after year_to"))
    return faults


# -- parsers of one value ------------------------------------------------------------------------------


def _list_of(item: Column, value: Any, *, text: bool) -> tuple[Any, ...] | None:
    if text:
        value = [part.strip() for part in value.split(",") if part.strip()]
    if value is None:
        return None
    if not isinstance(value, list):
        raise Refused.with_fault(item.name, "not_an_array", f"{item.name} must be an array", value)
    if len(value) > MOST_LISTED:
        raise Refused([Fault(item.name, "too_long", f"{item.name} may hold {MOST_LISTED} values at most")])
    parsed: dict[Any, None] = {}  # in their order, each once
    faults = []
    for each in value:
        try:
            parsed[read_column(item, each, text=text)] = None
        except Refused as refused:
            faults += refused.faults
    if faults:
        raise Refused(faults)
    return tuple(parsed) or None


def _key(value: Any) -> str | None:
    parsed = read_key(value, KEY_FIELD)
    if isinstance(parsed, Fault):
        raise Refused([parsed])
    return parsed


def _reader(column: Column, *, text: bool) -> Read:
    kind = LISTS.get(column.name)
    if kind is None:
        return partial(read_column, column, text=text)
    if kind == "ids":
        item = Column(column.name, "integer", minimum=1, maximum=LARGEST_ID)
    else:
        item = Column(column.name, "text", max_length=60)
    return partial(_list_of, item, text=text)


_READERS: Final = {
    text: {column.name: _reader(column, text=text) for column in QUESTION.columns} | {KEY_FIELD: _key}
    for text in (False, True)
}
"""Readers of the fields of a form (True) and of a JSON object."""
