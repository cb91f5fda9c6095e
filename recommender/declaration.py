"""The registered model `movies`: what it is, how it is built, what a version must reach. No Django here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from recommender.index.fields import Field, Settings
from training.declaration import Gate

NAME: Final = "movies"
TITLE: Final = "Movies"
DESCRIPTION: Final = (
    "Recommends movies of the catalogue: like one, like several, for a text or for a person; and says why."
)
ENGINE: Final = "tfidf"
POLICY: Final = "if_better"

WEIGHTS: Final[Mapping[str, float]] = {"clicked": 0.3, "watched": 0.7, "liked": 1.0, "disliked": -1.0}
"""Kind of interaction -> what it says of the movie, -1 to 1."""

METRICS: Final = (
    "ndcg_at_10", "recall_at_10", "coverage", "diversity", "popularity_bias", "latency_ms",
)  # fmt: skip
PRIMARY_METRICS: Final = ("ndcg_at_10", "coverage")
"""What "better" means: the first of them that a version has."""
JUDGED_ON: Final = (
    "The last movie that each user liked, watched or clicked was held out and had to be found from what came "
    "before (ndcg_at_10, recall_at_10); the rest is measured on lists of ten for movies of the catalogue."
)
BASELINE_IS: Final = "The baseline recommends the most popular movies to everybody."
SETTINGS: Final = Settings(
    (
        Field("title", 0.5, sublinear_tf=True, stop_words=("en", "es"), suffices=False),
        Field("description", 1.0, min_df=1, max_df=0.2, sublinear_tf=True, stop_words=("en", "es")),
        Field("genres", 0.5, suffices=False),
        Field("keywords", 0.9),
        Field("together", 1.0),
    )
)
GATE: Final = Gate(max_regression=0.1, max_latency_ms=50.0)


def primary_of(metrics: Mapping[str, float]) -> str:
    """The primary metric among those of a version."""
    return next(name for name in PRIMARY_METRICS if name in metrics)
