"""The registered model ``movies``: what an index is made of, what an interaction counts, what the gate asks.

The weights were chosen on the 4,803 movies of TMDB, which has no interactions: by how many of the other parts
of 374 movies in 102 series are among the ten nearest (recall), and by looking at the neighbours of well-known
movies. Descriptions alone: .68 with the plain setting, .69 with sublinear tf and terms of two movies or more
(.63 of three or more; .69 without words of more than a twentieth of the movies). Keywords alone: .54; with
descriptions .78 at half to .7 of their weight, .72 at the same. Genres add to that, .83 at .3 to .5, and take
away again at .7. Titles find series by their very names, which this measure overrates: .86 at .2, .90 at .3,
.94 at .5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from recommender.index.fields import Field, Settings
from training.declaration import Gate

NAME: Final = "movies"
TITLE: Final = "Movies like this one"
DESCRIPTION: Final = (
    "Recommends movies by what they are about, and by what the users who liked them also liked."
)

SETTINGS: Final = Settings(
    fields=(
        Field("title", 0.3, min_df=2, sublinear_tf=True, stop_words=("en", "es"), suffices=False),
        Field("description", 1.0, min_df=2, sublinear_tf=True, stop_words=("en", "es")),
        Field("genres", 0.4, suffices=False),
        Field("keywords", 0.6, min_df=2),
        Field("together", min_df=2),  # its weight is found by evaluation: Settings.together
    )
)

INTERACTIONS: Final[Mapping[str, float]] = {"clicked": 0.3, "watched": 0.7, "liked": 1.0, "disliked": -1.0}
"""Kind of interaction -> what it says about a user and a movie. Several of one user with one movie add up, to
at most 1 and at least -1."""

GATE: Final = Gate(minimum={"coverage": 0.5}, max_regression=0.05, max_latency_ms=5.0)


def primary_metric(metrics: Mapping[str, float]) -> str:
    """What "better" means: finding what users liked next, where there were interactions enough to measure it;
    else how much of the catalogue is ever recommended."""
    return "ndcg_at_10" if "ndcg_at_10" in metrics else "coverage"
