"""Loads movies into the catalogue: ``manage.py load_movies FILE [--refused FILE] [--withdraw-missing]``."""

from __future__ import annotations

from typing import Any, TextIO

from django.core.management.base import CommandParser

from recommender.catalogue import import_movies
from recommender.files.movies import LAYOUT, Row
from recommender.files.tabular import FileRows
from recommender.management.loading import LoadingCommand


class Command(LoadingCommand[Row]):
    help = (
        "Adds the movies of a file to the catalogue and changes existing movies (by id). The file is CSV "
        "(TMDB's, MovieLens's, IMDb's .tsv and Kaggle's included) or JSON lines. One bad row refuses the "
        "whole file, unless --refused is given."
    )
    layout = LAYOUT

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--withdraw-missing", action="store_true", help="withdraw the movies that the file lacks"
        )
        parser.add_argument(
            "--readmit", action="store_true", help="readmit withdrawn movies that the file holds"
        )

    def load(self, rows: FileRows[Row], refused: TextIO | None, options: dict[str, Any]) -> str:
        counts = import_movies.load(
            rows,
            refused=refused,
            readmit=options["readmit"],
            withdraw_missing=options["withdraw_missing"],
            progress=self.progress(),
        )
        summary = (
            f"{counts.rows:,} rows: {counts.new:,} new, {counts.changed:,} changed, "
            f"{counts.unchanged:,} unchanged, {counts.refused:,} refused"
        )
        if counts.left_out:
            summary += (
                f"\n{counts.left_out:,} more rows were left out because they are no movies: {LAYOUT.others}"
            )
        if counts.withdrawn or options["withdraw_missing"]:
            summary += f"\n{counts.withdrawn:,} movies that the file lacks were withdrawn"
        if counts.readmitted:
            summary += f"\n{counts.readmitted:,} withdrawn movies were readmitted"
        if counts.still_withdrawn:
            summary += (
                f"\n{counts.still_withdrawn:,} movies of the file stay withdrawn; --readmit readmits them"
            )
        return summary
