"""The declaration of the registered model `movies`: description, build settings and gate. No Django.

The weights were chosen on the 4,803 movies of TMDB, which has no interactions, by two measures: the recall of
the other parts of 374 movies in 102 series among the ten nearest movies, and a look at the neighbours of
well-known movies. Descriptions alone: recall .68 with the default setting, .69 with sublinear tf and terms in
two movies or more (.63 in three or more), with or without words in more than a tenth of the movies: life,
new, young, world and man explain nothing and cost a fifth of the work. Keywords alone: .54; with descriptions
.78 at half to .7 of their weight, .72 at the same weight. Genres raise that to .83 at .3 to .5 and lower it
again at .7. Titles find series by name, which the measure overrates: .86 at .2, .90 at .3, .94 at .5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from recommender.index.config import Field, Settings
from vigia_ml.declaration import Gate

NAME: Final = "movies"
TITLE: Final = "Movies"
DESCRIPTION: Final = (
    "Recommends movies of the catalogue: like one, like several, for a text or for a person; and says why."
)
EXAMPLE: Final = {"title": "The Lamplighter's Daughter", "top_n": 5}
ENGINE: Final = "tfidf"
POLICY: Final = "if_better"

WEIGHTS: Final[Mapping[str, float]] = {"clicked": 0.3, "watched": 0.7, "liked": 1.0, "disliked": -1.0}
"""Kind of interaction -> its weight for the movie, -1 to 1. The weights of one user's interactions with one
movie add up, bounded to -1 and 1."""

METRICS: Final = (
    "ndcg_at_10", "recall_at_10", "coverage", "diversity", "popularity_bias", "latency_ms",
)  # fmt: skip
SMALLER_IS_BETTER: Final = frozenset({"popularity_bias", "latency_ms"})
PRIMARY_METRICS: Final = ("ndcg_at_10", "coverage")
"""Metrics by which the gate compares versions: the first of these that a version has."""
JUDGED_ON: Final = (
    "The last movie that each user liked, watched or clicked was held out and had to be found from what came "
    "before (ndcg_at_10, recall_at_10); the rest is measured on lists of ten for movies of the catalogue."
)
BASELINE_IS: Final = "The baseline recommends the most popular movies to everybody."
SETTINGS: Final = Settings(
    fields=(
        Field("title", 0.3, min_df=2, sublinear_tf=True, stop_words=("en", "es"), suffices=False),
        Field("description", 1.0, min_df=2, max_df=0.1, sublinear_tf=True, stop_words=("en", "es")),
        Field("genres", 0.4, suffices=False),
        Field("keywords", 0.6, min_df=2),
        Field("together", min_df=2),  # its weight is found by evaluation: Settings.together
    )
)
GATE: Final = Gate(minimum={"coverage": 0.5}, max_regression=0.05, max_latency_ms=5.0)


def primary_of(metrics: Mapping[str, float]) -> str:
    """Returns the primary metric of a version with these metrics."""
    return next(name for name in PRIMARY_METRICS if name in metrics)
