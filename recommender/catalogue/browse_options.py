"""What the page on movies offers before anybody has asked: movies to begin with, and what to narrow by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from recommender.models import Movie

OFFERED: Final = 10
LOOKED_THROUGH: Final = 2_000
"""The most popular movies: to walk through a large catalogue would take seconds."""
MOST_CHOICES: Final = 40


@dataclass(frozen=True, slots=True)
class Choices:
    """popular : to begin with. genres, languages : those of the most popular movies, by name."""

    popular: list[Movie]
    genres: list[str]
    languages: list[str]


def choices() -> Choices:
    """What there is to choose from in the catalogue as it is now."""
    there = Movie.objects.filter(withdrawn_at__isnull=True).order_by("-popularity", "id")
    genres: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for listed, language in there.values_list("genres", "language")[:LOOKED_THROUGH]:
        genres.update(listed)
        languages[language] += 1
    del languages[""]
    return Choices(
        popular=list(there.only("title", "year")[:OFFERED]),
        genres=sorted(name for name, _ in genres.most_common(MOST_CHOICES)),
        languages=sorted(code for code, _ in languages.most_common(MOST_CHOICES)),
    )
