"""Loads a file of interactions: ``manage.py load_interactions FILE [--refused FILE]``."""

from __future__ import annotations

from typing import Any, TextIO

from recommender.files.interactions import LAYOUT, Row
from recommender.files.tabular import FileRows
from recommender.interactions import import_interactions
from recommender.management.loading import LoadingCommand


class Command(LoadingCommand[Row]):
    help = (
        "Records the interactions of a file: user, movie_id, kind (clicked, watched, liked, disliked) and "
        "at, as CSV or JSON lines; or MovieLens' userId, movieId, rating, timestamp (4 stars and more: "
        "liked, 2 and fewer: disliked, else watched). One bad row refuses the whole file, unless --refused "
        "is given."
    )
    layout = LAYOUT

    def load(self, rows: FileRows[Row], refused: TextIO | None, options: dict[str, Any]) -> str:
        counts = import_interactions.load(rows, refused=refused, progress=self.progress())
        return (
            f"{counts.rows:,} rows: {counts.new:,} new, {counts.repeated:,} already recorded, "
            f"{counts.refused:,} refused"
        )
