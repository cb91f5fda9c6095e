"""Generated catalogues of any size, with invented words distributed as in TMDB's 4,803 movies.

A word of rank r occurs in s / (a + r) of the texts (Zipf and Mandelbrot). For descriptions a and s follow
from TMDB's counts without stop words: the most frequent word in 16 % of the texts, 25 different words in the
mean, and a sum of squared document frequencies of .37 n^2; likewise for titles and keywords. The lengths of
texts follow a negative binomial distribution of the same mean and variance. Genres are drawn one by one with
TMDB's shares. Words are independent of each other: there are no topics, so the nearest movie is less near
than in a real catalogue, which makes a search harder, not easier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from recommender.index.catalogue_snapshot import Interaction
from recommender.index.query import Movie

VOCABULARY: Final = 1_080_000
PIECE: Final = 50_000
GENRES: Final = {
    "Drama": 0.478, "Comedy": 0.359, "Thriller": 0.265, "Action": 0.24, "Romance": 0.186, "Adventure": 0.164,
    "Crime": 0.145, "Science Fiction": 0.111, "Horror": 0.108, "Family": 0.107, "Fantasy": 0.088,
    "Mystery": 0.072, "Animation": 0.049, "History": 0.041, "Music": 0.039, "War": 0.03, "Documentary": 0.023,
    "Western": 0.017, "Foreign": 0.007, "TV Movie": 0.002,
}  # fmt: skip
_STOP: Final = "the of and a to in is his with who her by an for on their from that as he at when he they it"
_SYLLABLES: Final = [
    consonant + vowel for consonant in "bcdfghjklmnprstvwyz" for vowel in ("a", "e", "i", "o", "u")
]


@dataclass(frozen=True)
class Spread:
    """The distribution of words in texts. shift : a of the module's formula. mean, deviation : of the number
    of words per text."""

    shift: float
    mean: float
    deviation: float

    def lengths(self, rng: np.random.Generator, count: int) -> Any:
        variance = self.deviation**2
        shape = self.mean**2 / (variance - self.mean)
        return rng.negative_binomial(shape, shape / (shape + self.mean), count)

    def bounds(self) -> Any:
        """Returns (VOCABULARY,) the cumulated probabilities of the words."""
        chances = 1.0 / (self.shift + np.arange(1, VOCABULARY + 1))
        return np.cumsum(chances / chances.sum())


DESCRIPTION: Final = Spread(12.9, 26.5, 12.9)
TITLE: Final = Spread(8.7, 1.9, 1.6)
KEYWORDS: Final = Spread(8.3, 7.6, 6.3)


def word(rank: int) -> str:
    """Returns the invented word of a rank; its last letter keeps it from being a stop word."""
    first, rank = rank % len(_SYLLABLES), rank // len(_SYLLABLES)
    second, rank = rank % len(_SYLLABLES), rank // len(_SYLLABLES)
    third, last = rank % len(_SYLLABLES), rank // len(_SYLLABLES)
    return _SYLLABLES[first] + _SYLLABLES[second] + _SYLLABLES[third] + "kx"[last]


def movies(count: int, seed: int = 1) -> Iterator[Movie]:
    """Yields movies by ascending id from 1 on; the same seed gives the same movies, for any count."""
    words = [word(rank) for rank in range(VOCABULARY)]
    bounds = {spread: spread.bounds() for spread in (DESCRIPTION, TITLE, KEYWORDS)}
    stop = _STOP.split()
    for start in range(0, count, PIECE):
        rng = np.random.default_rng([seed, start])

        def drawn(spread: Spread, rng: np.random.Generator = rng) -> Iterator[list[str]]:
            lengths = spread.lengths(rng, PIECE)
            ranks = np.searchsorted(bounds[spread], rng.random(lengths.sum())).tolist()
            ends = np.cumsum(lengths).tolist()
            return (
                [words[rank] for rank in ranks[end - length : end]]
                for end, length in zip(ends, lengths.tolist(), strict=True)
            )

        genres = rng.random((PIECE, len(GENRES))) < np.array(list(GENRES.values()))
        names = np.array(list(GENRES))
        popularity = rng.lognormal(2.0, 1.5, PIECE).round(6).tolist()
        years = rng.integers(1920, 2027, PIECE).tolist()
        texts = zip(drawn(TITLE), drawn(DESCRIPTION), drawn(KEYWORDS), strict=True)
        for place, (title, description, keywords) in enumerate(texts):
            if start + place == count:
                return
            mixed = [each for pair in zip(description, stop * 5, strict=False) for each in pair]
            yield Movie(
                start + place + 1,
                " ".join(title) or words[start + place],
                " ".join(mixed),
                tuple(names[genres[place]].tolist()),
                tuple(keywords),
                years[place],
                "en",
                popularity[place],
            )


def interactions(count: int, users: int, each: int, seed: int = 2) -> Iterator[Interaction]:
    """Yields interactions by movie: each user likes about `each` movies, popular ones (small ids) more
    often."""
    rng = np.random.default_rng(seed)
    liked = np.sort((rng.random(users * each) ** 2 * count).astype(np.int64)) + 1
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for movie_id in liked.tolist():
        yield Interaction(
            movie_id, int(rng.integers(users)), 1.0, begin + timedelta(seconds=int(rng.integers(10**7)))
        )
