"""The catalogue: what changes a movie, and what finds one.

Every change is one transaction, with its author on record in the movie's history. Files of many movies are
loaded by `recommender.catalogue.import_movies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import regex
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet, TextField, Value
from django.utils import timezone

from recommender.declaration import NAME
from recommender.errors import MovieExists, UnknownMovie
from recommender.models import Movie, lowered
from recommender.movie_schema import LARGEST_ID, Entry
from recommender.title_keys import key_of
from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.schema.columns import is_storable

PAGE: Final = 100
LARGEST_PAGE: Final = 1_000
SUGGESTED: Final = 10
MOST_WORDS: Final = 20
LOCK: Final = 22_124
"""Class of the advisory locks of those that change many movies: 0, one file at a time; 1, see `alone`."""
Movies = QuerySet[Movie, Movie]
_TITLE_WORD: Final = regex.compile(r"\w+")


def registered_model() -> RegisteredModel:
    """The registered model whose rights hold for the catalogue, or `UnknownModel`."""
    return lookup.get_model(NAME)


# -- changing ------------------------------------------------------------------------------------------


def add(entry: Entry, *, by: User | None) -> Movie:
    """A new movie. Raises `MovieExists`, also for one that is withdrawn."""
    row = Movie(**_values(asdict(entry)))
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            _note([row], ADDITION, "Added.", by)
    except IntegrityError:
        raise MovieExists(entry.id) from None
    return row


def put(entry: Entry, *, by: User | None) -> tuple[Movie, bool]:
    """The movie as `entry` has it, in the catalogue whatever it was before; and whether it is new."""
    with transaction.atomic():
        row = _locked().filter(pk=entry.id).first()
        if row is None:
            try:
                with transaction.atomic():
                    return add(entry, by=by), True
            except MovieExists:  # since a moment ago
                row = _locked().get(pk=entry.id)
        _apply(row, asdict(entry) | {"withdrawn_at": None}, by)
    return row, False


def change(movie_id: int, changes: Mapping[str, Any], *, by: User | None) -> Movie:
    """The movie with some fields changed; one that is withdrawn stays so. Raises `UnknownMovie`.

    changes : names and valid values of fields of `Entry`, without the id.
    """
    with transaction.atomic():
        row = _storable(_locked(), movie_id)
        _apply(row, changes, by)
    return row


def withdraw(ids: Iterable[int], *, by: User | None) -> int:
    """Takes movies out of the catalogue: from the commit on none is recommended. How many were in it."""
    now = timezone.now()
    return _switch(ids, by, "Withdrawn.", {"withdrawn_at": now, "changed_at": now}, were_withdrawn=False)


def readmit(ids: Iterable[int], *, by: User | None) -> int:
    """Puts withdrawn movies back. How many were withdrawn."""
    changed = {"withdrawn_at": None, "changed_at": timezone.now()}
    return _switch(ids, by, "Readmitted.", changed, were_withdrawn=True)


def _switch(
    ids: Iterable[int], by: User | None, said: str, changed: Mapping[str, Any], *, were_withdrawn: bool
) -> int:
    ids = list(ids)
    with transaction.atomic():
        if len(ids) > 1:
            alone()
        wanted = _locked().filter(pk__in=ids, withdrawn_at__isnull=not were_withdrawn)
        rows = list(wanted.order_by("pk").only("pk", "title", "year"))
        Movie.objects.filter(pk__in=[row.pk for row in rows]).update(**changed)
        _note(rows, CHANGE, said, by)
    return len(rows)


def alone() -> None:
    """Until the end of the transaction nobody else changes several movies: two that did, each in an order of
    its own, would wait for one another."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 1)", [LOCK])


def _locked() -> Movies:
    """Movies that nobody else changes until the end of the transaction. Their ids never change, so what is
    recorded of them meanwhile (feedback, interactions) does not wait."""
    return Movie.objects.select_for_update(no_key=True)


def _apply(row: Movie, wanted: Mapping[str, Any], by: User | None) -> None:
    """Writes what differs, if anything does."""
    differing = {name: value for name, value in _values(wanted).items() if getattr(row, name) != value}
    if not differing:
        return
    was_withdrawn = row.is_withdrawn
    for name, value in differing.items():
        setattr(row, name, value)
    row.changed_at = timezone.now()
    row.save(update_fields=[*differing, "title_key", "changed_at"])
    fields = ", ".join(sorted(differing.keys() - {"withdrawn_at"}))
    said = f"Changed {fields}." if fields else ""
    if was_withdrawn and not row.is_withdrawn:
        said = f"{said} Readmitted.".lstrip()
    _note([row], CHANGE, said, by)


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As the columns have them: lists where an entry has tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _note(rows: Sequence[Movie], flag: int, said: str, by: User | None) -> None:
    """One line in each movie's history; nobody's deeds (the command line's) have none."""
    if by is None or not rows:
        return
    kind = ContentType.objects.get_for_model(Movie)
    LogEntry.objects.bulk_create(
        LogEntry(
            user=by,
            content_type=kind,
            object_id=str(row.pk),
            object_repr=str(row)[:200],
            action_flag=flag,
            change_message=said,
        )
        for row in rows
    )


# -- finding -------------------------------------------------------------------------------------------


def get(movie_id: int) -> Movie:
    """The movie, withdrawn or not, or `UnknownMovie`."""
    return _storable(Movie.objects.all(), movie_id)


def _storable(rows: Movies, movie_id: int) -> Movie:
    row = rows.filter(pk=movie_id).first() if 0 < movie_id <= LARGEST_ID else None
    if row is None:
        raise UnknownMovie(movie_id)
    return row


def by_title(title: str) -> list[Movie]:
    """All movies of exactly this title but for case, accents and spaces; the most popular first.

    Withdrawn ones as well: what is asked about may be one. See `recommender.title_keys`.
    """
    key = key_of(title)
    if not key or not is_storable(key):
        return []
    return list(Movie.objects.filter(title_key=key).order_by("-popularity", "pk")[:PAGE])


def suggestions(typed: str, most: int = SUGGESTED) -> list[Movie]:
    """Movies for a title that is still being typed: the most popular ones whose title begins so, then the
    most popular ones whose title has all these words (or words that begin so) anywhere."""
    rows = Movie.objects.filter(withdrawn_at__isnull=True).order_by("-popularity", "pk")
    rows = rows.only("pk", "title", "year", "popularity", "withdrawn_at")
    found = list(titled(rows, typed)[:most])
    if len(found) < most:
        others = with_words(rows, typed).exclude(pk__in=[row.pk for row in found])
        found += others[: most - len(found)]
    return found


def with_words(rows: Movies, typed: str) -> Movies:
    """Those whose title has a word that begins so for each word typed; none without a word."""
    words = [word for word in _TITLE_WORD.findall(key_of(typed)) if is_storable(word)][:MOST_WORDS]
    if not words:
        return rows.none()
    # Served by the index `movie_title_words`; words hold no character that a tsquery reads as its own.
    asked = " & ".join(f"'{word}':*" for word in words)
    return rows.extra(where=["to_tsvector('simple', title_key) @@ to_tsquery('simple', %s)"], params=[asked])


def titled(rows: Movies, beginning: str) -> Movies:
    """Those whose title begins so; none for an empty beginning."""
    key = key_of(beginning)
    return rows.filter(title_key__startswith=key) if key and is_storable(key) else rows.none()


def of_genre(rows: Movies, genre: str) -> Movies:
    """Those of a genre, in upper or lower case."""
    wanted = lowered(Value([genre.strip()], output_field=ArrayField(TextField())))
    return rows.alias(lowered_genres=lowered("genres")).filter(lowered_genres__contains=wanted)


def values_of(name: str) -> list[Any]:
    """The distinct values of ``year`` or ``language``, ascending, without null and "": one look into the
    index for each."""
    if name not in ("year", "language"):
        raise ValueError(f"{name!r}: no index would serve it")
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE found (value) AS (
                SELECT min({name}) FROM recommender_movie
                UNION ALL
                SELECT (SELECT min({name}) FROM recommender_movie WHERE {name} > found.value)
                FROM found WHERE found.value IS NOT NULL
            ) SELECT value FROM found WHERE value IS NOT NULL
            """  # noqa: S608 - the name of a column of ours
        )
        return [value for (value,) in cursor.fetchall() if value != ""]


@dataclass(frozen=True, slots=True)
class CatalogueQuery:
    """Which movies: with a title that begins so, of a genre, a year, a language; withdrawn or not (None:
    both); with ids above `after`; with one of these ids."""

    ids: tuple[int, ...] = ()
    title: str | None = None
    genre: str | None = None
    year: int | None = None
    language: str | None = None
    withdrawn: bool | None = False
    after: int | None = None
    limit: int = PAGE


def page(wanted: CatalogueQuery) -> tuple[list[Movie], int | None]:
    """(movies by id, cursor of the next page or None). Always by an index."""
    rows = Movie.objects.all()
    if any(given is not None and not is_storable(given) for given in (wanted.genre, wanted.language)):
        return [], None
    if wanted.ids:
        rows = rows.filter(pk__in=wanted.ids)
    if wanted.title is not None:
        rows = titled(rows, wanted.title)
    if wanted.genre is not None:
        rows = of_genre(rows, wanted.genre)
    if wanted.year is not None:
        rows = rows.filter(year=wanted.year)
    if wanted.language is not None:
        rows = rows.filter(language=wanted.language.lower())
    if wanted.withdrawn is not None:
        rows = rows.filter(withdrawn_at__isnull=not wanted.withdrawn)
    if wanted.after is not None:
        rows = rows.filter(pk__gt=wanted.after)
    found = list(rows.order_by("pk")[: wanted.limit + 1])
    more = len(found) > wanted.limit
    found = found[: wanted.limit]
    return found, found[-1].pk if more else None
