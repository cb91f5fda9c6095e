"""Start options of the recommender's page: popular movies, and genres and languages to filter by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from recommender.models import Movie

SHOWN_MOVIES: Final = 10
SCANNED_MOVIES: Final = 2_000
"""Number of the most popular movies that are read; reading a large catalogue would take seconds."""
MOST_CHOICES: Final = 40


@dataclass(frozen=True, slots=True)
class Choices:
    """Options of the page: the most popular movies; their genres and languages, sorted by name."""

    popular: list[Movie]
    genres: list[str]
    languages: list[str]


def choices() -> Choices:
    """Returns the options that the catalogue offers now."""
    movies = Movie.objects.filter(withdrawn_at__isnull=True).order_by("-popularity", "id")
    genres: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for listed, language in movies.values_list("genres", "language")[:SCANNED_MOVIES]:
        genres.update(listed)
        languages[language] += 1
    del languages[""]
    return Choices(
        popular=list(movies.only("title", "year")[:SHOWN_MOVIES]),
        genres=sorted(name for name, _ in genres.most_common(MOST_CHOICES)),
        languages=sorted(code for code, _ in languages.most_common(MOST_CHOICES)),
    )
