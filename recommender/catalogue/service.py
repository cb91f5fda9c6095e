"""The catalogue's service: changes and finds movies.

Every change is one transaction and records its author in the movie's history.
`recommender.catalogue.import_movies` loads files of movies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

import regex
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.db import IntegrityError, connection, transaction
from django.db.models import Model, QuerySet, TextField, Value
from django.utils import timezone

from recommender.errors import MovieExists, UnknownMovie
from recommender.models import Movie, lowered
from recommender.movie_schema import LARGEST_ID, Entry
from recommender.title_keys import key_of
from vigia_ml.schema.columns import is_storable

PAGE: Final = 100
LARGEST_PAGE: Final = 1_000
SUGGESTED: Final = 10
MOST_WORDS: Final = 20
LOCK: Final = 22_124
"""Class of the advisory locks for bulk changes: 0 allows one import at a time; 1, see `lock_bulk_changes`."""
Movies = QuerySet[Movie, Movie]
Row = TypeVar("Row", bound=Model)
_TITLE_WORD: Final = regex.compile(r"\w+")


# -- changing ------------------------------------------------------------------------------------------


def add(entry: Entry, *, by: User | None) -> Movie:
    """Adds a movie and returns it. Raises `MovieExists`, also when the existing movie is withdrawn."""
    row = Movie(**_values(asdict(entry)))
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            _note([row], ADDITION, "Added.", by)
    except IntegrityError:
        raise MovieExists(entry.id) from None
    return row


def put(entry: Entry, *, by: User | None) -> tuple[Movie, bool]:
    """Adds or replaces a movie and readmits it; returns the movie and whether it is new."""
    with transaction.atomic():
        row = _locked().filter(pk=entry.id).first()
        if row is None:
            try:
                with transaction.atomic():
                    return add(entry, by=by), True
            except MovieExists:  # another transaction has just added it
                row = _locked().get(pk=entry.id)
        _apply(row, asdict(entry) | {"withdrawn_at": None}, by)
    return row, False


def change(movie_id: int, changes: Mapping[str, Any], *, by: User | None) -> Movie:
    """Changes some fields of a movie and returns it; a withdrawn movie stays withdrawn. Raises
    `UnknownMovie`.

    changes : names and valid values of fields of `Entry`, without the id.
    """
    with transaction.atomic():
        row = _storable(_locked(), movie_id)
        _apply(row, changes, by)
    return row


def withdraw(ids: Iterable[int], *, by: User | None) -> int:
    """Withdraws movies: after the commit no recommendation names them. Returns how many it withdrew."""
    return _switch(ids, by, "Withdrawn.", to_withdrawn=True)


def readmit(ids: Iterable[int], *, by: User | None) -> int:
    """Readmits withdrawn movies. Returns how many it readmitted."""
    return _switch(ids, by, "Readmitted.", to_withdrawn=False)


def _switch(ids: Iterable[int], by: User | None, message: str, *, to_withdrawn: bool) -> int:
    ids, now = list(ids), timezone.now()
    with transaction.atomic():
        if len(ids) > 1:
            lock_bulk_changes()
        affected = _locked().filter(pk__in=ids, withdrawn_at__isnull=to_withdrawn)
        rows = list(affected.order_by("pk").only("pk", "title", "year"))
        Movie.objects.filter(pk__in=[row.pk for row in rows]).update(
            withdrawn_at=now if to_withdrawn else None, changed_at=now
        )
        _note(rows, CHANGE, message, by)
    return len(rows)


def lock_bulk_changes() -> None:
    """Blocks other bulk changes until the end of the transaction: two of them that lock the same movies in
    different orders would deadlock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 1)", [LOCK])


def _locked() -> Movies:
    """Returns a queryset that locks its movies until the end of the transaction. The lock excludes keys: ids
    never change, so writing interactions and feedback about these movies does not wait."""
    return Movie.objects.select_for_update(no_key=True)


def _apply(row: Movie, fields: Mapping[str, Any], by: User | None) -> None:
    """Writes the fields that differ, if any do."""
    differing = {name: value for name, value in _values(fields).items() if getattr(row, name) != value}
    if not differing:
        return
    was_withdrawn = row.is_withdrawn
    for name, value in differing.items():
        setattr(row, name, value)
    row.changed_at = timezone.now()
    row.save(update_fields=[*differing, "title_key", "changed_at"])
    names = ", ".join(sorted(differing.keys() - {"withdrawn_at"}))
    message = f"Changed {names}." if names else ""
    if was_withdrawn and not row.is_withdrawn:
        message = f"{message} Readmitted.".lstrip()
    _note([row], CHANGE, message, by)


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields as column values: lists in place of an entry's tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _note(rows: Sequence[Movie], flag: int, message: str, by: User | None) -> None:
    """Adds one line to each movie's history; changes without a user (from the command line) add none."""
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
            change_message=message,
        )
        for row in rows
    )


# -- finding -------------------------------------------------------------------------------------------


def get(movie_id: int) -> Movie:
    """Returns the movie, withdrawn or not. Raises `UnknownMovie`."""
    return _storable(Movie.objects.all(), movie_id)


def _storable(rows: Movies, movie_id: int) -> Movie:
    row = rows.filter(pk=movie_id).first() if 0 < movie_id <= LARGEST_ID else None
    if row is None:
        raise UnknownMovie(movie_id)
    return row


def by_title(title: str) -> list[Movie]:
    """Returns the movies with this title, ignoring case, accents and spaces; the most popular first.

    The list includes withdrawn movies, because a question may name one. See `recommender.title_keys`.
    """
    key = key_of(title)
    if not key or not is_storable(key):
        return []
    return list(Movie.objects.filter(title_key=key).order_by("-popularity", "pk")[:PAGE])


def suggestions(typed: str, most: int = SUGGESTED) -> list[Movie]:
    """Returns movies for a title that a user is typing: the most popular movies whose title begins with the
    text, then the most popular movies whose title contains all its words, or words that begin with them."""
    rows = Movie.objects.filter(withdrawn_at__isnull=True).order_by("-popularity", "pk")
    rows = rows.only("pk", "title", "year", "popularity", "withdrawn_at")
    movies = list(titled(rows, typed)[:most])
    if len(movies) < most:
        others = with_words(rows, typed).exclude(pk__in=[row.pk for row in movies])
        movies += others[: most - len(movies)]
    return movies


def with_words(rows: Movies, typed: str) -> Movies:
    """Returns the movies whose title has, for each typed word, a word that begins with it; no movie
    for a text without words."""
    words = [word for word in _TITLE_WORD.findall(key_of(typed)) if is_storable(word)][:MOST_WORDS]
    if not words:
        return rows.none()
    # The index `movie_title_words` serves this; words hold no character that is tsquery syntax.
    terms = " & ".join(f"'{word}':*" for word in words)
    return rows.extra(where=["to_tsvector('simple', title_key) @@ to_tsquery('simple', %s)"], params=[terms])


def titled(rows: Movies, beginning: str) -> Movies:
    """Returns the movies whose title begins with the text; for an empty text, no movie."""
    key = key_of(beginning)
    return rows.filter(title_key__startswith=key) if key and is_storable(key) else rows.none()


def of_genre(rows: Movies, genre: str) -> Movies:
    """Returns the movies of a genre, ignoring case."""
    genres = lowered(Value([genre.strip()], output_field=ArrayField(TextField())))
    return rows.alias(lowered_genres=lowered("genres")).filter(lowered_genres__contains=genres)


def values_of(name: str) -> list[Any]:
    """Returns the distinct values of ``year`` or ``language``, ascending, without null and "", by one index
    look-up per value."""
    if name not in ("year", "language"):
        raise ValueError(f"{name!r} has no index; accepted: year, language")
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE listed (value) AS (
                SELECT min({name}) FROM recommender_movie
                UNION ALL
                SELECT (SELECT min({name}) FROM recommender_movie WHERE {name} > listed.value)
                FROM listed WHERE listed.value IS NOT NULL
            ) SELECT value FROM listed WHERE value IS NOT NULL
            """  # noqa: S608 - one of two constant column names
        )
        return [value for (value,) in cursor.fetchall() if value != ""]


def page(
    *,
    ids: Sequence[int],
    title: str | None,
    genre: str | None,
    year: int | None,
    language: str | None,
    withdrawn: bool | None,
    after: int | None,
    limit: int,
) -> tuple[list[Movie], int | None]:
    """Returns (movies by id, cursor of the next page or None). An index serves every filter.

    ids : if any, only these. title : its beginning. withdrawn : None for both. after : ids above it.
    """
    rows = Movie.objects.all()
    if any(text is not None and not is_storable(text) for text in (genre, language)):
        return [], None
    if ids:
        rows = rows.filter(pk__in=ids)
    if title is not None:
        rows = titled(rows, title)
    if genre is not None:
        rows = of_genre(rows, genre)
    if year is not None:
        rows = rows.filter(year=year)
    if language is not None:
        rows = rows.filter(language=language.lower())
    if withdrawn is not None:
        rows = rows.filter(withdrawn_at__isnull=not withdrawn)
    if after is not None:
        rows = rows.filter(pk__gt=after)
    return first_rows(rows.order_by("pk"), limit)


def first_rows(rows: QuerySet[Row, Row], limit: int) -> tuple[list[Row], int | None]:
    """Returns (the first `limit` rows, the key of the last of them if more follow)."""
    shown = list(rows[: limit + 1])
    return shown[:limit], shown[limit - 1].pk if len(shown) > limit else None
