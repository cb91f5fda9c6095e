"""What is asked of the recommender: read from JSON or from a form, and as it stands in the log.

`QUESTION` is the schema of every version of `movies`: its columns name the inputs of a logged recommendation,
document the request and fill the form. Lists are columns of text to the schema, and arrays in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from recommender.index.query import MOST
from recommender.movie_schema import Refused, read_column
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo
from vigia_ml.schema.row_keys import KEY_FIELD, read_key

LONGEST_TEXT: Final = 10_000
MOST_LISTED: Final = 200
LARGEST_ID: Final = 2**53
USUAL_TOP: Final = 5
FIRST_YEAR, LAST_YEAR = 1800, 2200

QUESTION: Final = DatasetSchema(
    columns=(
        Column("movie_id", "integer", "Movies like this one.", nullable=True, minimum=1, maximum=LARGEST_ID),
        Column(
            "title",
            "text",
            "Movies like the one of this title; one that is spelt a little otherwise is found as well.",
            nullable=True,
            max_length=300,
        ),
        Column("text", "text", "Movies that fit these words.", nullable=True, max_length=LONGEST_TEXT),
        Column("liked", "text", "Ids: movies like all of these together.", nullable=True),
        Column("disliked", "text", "Ids: and unlike these.", nullable=True),
        Column(
            "user",
            "text",
            "Your own reference for a person: alone, movies that fit what the person did so far.",
            nullable=True,
        ),
        Column(
            "top_n",
            "integer",
            f"How many at most; {USUAL_TOP} where it is left out.",
            nullable=True,
            minimum=1,
            maximum=MOST,
        ),
        Column("genres", "text", "Only movies with one of these genres.", nullable=True),
        Column(
            "year_from",
            "integer",
            "Only from this year on.",
            nullable=True,
            minimum=FIRST_YEAR,
            maximum=LAST_YEAR,
        ),
        Column(
            "year_to",
            "integer",
            "Only up to this year.",
            nullable=True,
            minimum=FIRST_YEAR,
            maximum=LAST_YEAR,
        ),
        Column("language", "text", "Only in this language, such as en.", nullable=True, max_length=12),
        Column("exclude", "text", "Ids: none of these.", nullable=True),
        Column(
            "exclude_seen",
            "boolean",
            "Leaves out what the user clicked, watched, liked or disliked; true where a user is named, and "
            "refused where none is.",
            nullable=True,
        ),
        Column(
            "diversity",
            "number",
            "0 to 1: how much those chosen should differ from each other (maximal marginal relevance).",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("explain", "boolean", "Whether reasons are given; true by default.", nullable=True),
    ),
    target=Column("recommendations", "text", "Ids of movies with their scores, best first."),
)
LISTS: Final[Mapping[str, str]] = {"liked": "ids", "disliked": "ids", "exclude": "ids", "genres": "words"}
STARTS: Final = ("movie_id", "title", "text", "liked")
"""What a question can start from; exactly one of them, or the user alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One valid question; what was not given is None (an empty tuple for lists)."""

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
        """The inputs of the log's row, in the order of `QUESTION`."""
        return [_cell(getattr(self, name)) for name in QUESTION.names]


def _cell(value: Any) -> Any:
    return (list(value) or None) if isinstance(value, tuple) else value


def read(data: object, *, text: bool = False) -> Asked:
    """One question.

    Parameters
    ----------
    data : a decoded JSON object, or the cells of a form. text : whether it is the latter; lists are
        separated by commas then.

    Raises
    ------
    InvalidRows : with every fault.
    """
    if not isinstance(data, Mapping):
        fault = Fault(None, "not_an_object", "send one JSON object", echo(data), has_value=True)
        raise InvalidRows([fault], message=fault.message)
    repeated = data.repeated if isinstance(data, RepeatedNames) else ()
    faults = [Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice") for name in repeated]
    found: dict[str, Any] = {}
    for name, value in data.items():
        if len(faults) > REPORTED_FAULTS:
            break
        read_one = _READERS.get(name)
        if read_one is None:
            said = f"{clip(name)} is not read here"
            faults.append(Fault(clip(name), "unknown_field", said, allowed=(*QUESTION.names, KEY_FIELD)))
            continue
        given = read_one(value, text)
        if isinstance(given, list):
            faults.extend(given)
        elif given is not None:
            found["key" if name == KEY_FIELD else name] = given
    faults = faults or _disagreements(found)
    if faults:
        raise InvalidRows(faults, message="the question is invalid")
    return Asked(**found)


def _disagreements(found: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with valid values together."""
    starts = [name for name in STARTS if found.get(name)]
    faults = []
    if len(starts) > 1:
        said = f"give one of {', '.join(STARTS)}, not {' and '.join(starts)}"
        faults += [Fault(name, "ambiguous_question", said) for name in starts]
    elif not starts and "user" not in found:
        said = f"give one of {', '.join(STARTS)}, or a user"
        faults.append(Fault("movie_id", "missing_field", said))
    if found.get("exclude_seen") and "user" not in found:
        said = "exclude_seen leaves out what a user has seen: give a user"
        faults.append(Fault("user", "missing_field", said))
    low, high = found.get("year_from"), found.get("year_to")
    if low is not None and high is not None and low > high:
        faults.append(Fault("year_from", "out_of_bounds", "year_from must not be after year_to"))
    return faults


# -- reading one value: each gives the value, None for none, or its faults ------------------------------

_Read = Callable[[Any, bool], Any]


def _scalar(column: Column) -> _Read:
    def read_scalar(value: Any, text: bool) -> Any:
        try:
            given = read_column(column, value, text=text)
        except Refused as refused:
            return refused.faults
        return None if given == "" else given

    return read_scalar


def _listed(name: str, item: Column) -> _Read:
    def read_list(value: Any, text: bool) -> Any:
        if text:
            value = [part.strip() for part in value.split(",") if part.strip()]
        if value is None:
            return None
        if not isinstance(value, list):
            return [Fault(name, "not_an_array", f"{name} must be an array", echo(value), has_value=True)]
        if len(value) > MOST_LISTED:
            return [Fault(name, "too_long", f"{name} may hold {MOST_LISTED} values at most")]
        given: dict[Any, None] = {}  # in their order, each once
        faults = []
        for each in value:
            try:
                given[read_column(item, each, text=text)] = None
            except Refused as refused:
                faults += refused.faults
        return faults or tuple(given) or None

    return read_list


def _key(value: Any, text: bool) -> Any:
    given = read_key(value, KEY_FIELD)
    return [given] if isinstance(given, Fault) else given


_ITEMS: Final = {
    "ids": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
    "words": {"type": "text", "max_length": 60},
}
_READERS: Final[dict[str, _Read]] = {
    column.name: (
        _listed(column.name, Column(column.name, **_ITEMS[LISTS[column.name]]))  # type: ignore[arg-type]
        if column.name in LISTS
        else _scalar(column)
    )
    for column in QUESTION.columns
} | {KEY_FIELD: _key}
