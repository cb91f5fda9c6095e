"""Loads movies into the catalogue: ``manage.py load_movies FILE [--refused FILE] [--withdraw-missing]``."""

from __future__ import annotations

from typing import Any, TextIO

from django.core.management.base import CommandParser

from recommender.catalogue import import_movies
from recommender.files import Rows
from recommender.files.movies import LAYOUT, Row
from recommender.management.loading import LoadingCommand


class Command(LoadingCommand[Row]):
    help = (
        "Adds the movies of a file to the catalogue and changes those that are there (by id). The file is a "
        "CSV, one of TMDB, MovieLens, IMDb (.tsv) or Kaggle too, or JSON lines. A file with bad rows is "
        "refused whole, unless --refused is given."
    )
    layout = LAYOUT

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--withdraw-missing", action="store_true", help="withdraw the movies that are not in the file"
        )
        parser.add_argument(
            "--readmit", action="store_true", help="put withdrawn movies that are in the file back"
        )

    def load(self, rows: Rows[Row], refused: TextIO | None, options: dict[str, Any]) -> str:
        done = import_movies.load(
            rows,
            refused=refused,
            readmit=options["readmit"],
            withdraw_missing=options["withdraw_missing"],
            progress=self.progress(),
        )
        said = (
            f"{done.rows:,} rows: {done.new:,} new, {done.changed:,} changed, {done.unchanged:,} unchanged, "
            f"{done.refused:,} refused"
        )
        if done.left_out:
            said += f"\n{done.left_out:,} more rows were left out: {LAYOUT.others}"
        if done.withdrawn or options["withdraw_missing"]:
            said += f"\n{done.withdrawn:,} movies that are not in the file were withdrawn"
        if done.readmitted:
            said += f"\n{done.readmitted:,} withdrawn movies were readmitted"
        if done.still_withdrawn:
            said += f"\n{done.still_withdrawn:,} of them stay withdrawn; --readmit puts them back"
        return said
