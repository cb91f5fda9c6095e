"""Generates interactions of invented users with the sample catalogue:
``python -m tools.movie_samples [--out DIR] [--users N] [--seed S]``.

The catalogue, `recommender/samples/movies.jsonl`, is written by hand: families of similar movies, each a
range of ids. Each user prefers two families and now and then picks any movie. The same number of users and
seed give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from tools.samples.draws import Draws

SEED: Final = 7
USERS: Final = 200
FOLDER: Final = Path(__file__).resolve().parents[1] / "recommender" / "samples"
MOVIES: Final = FOLDER / "movies.jsonl"
INTERACTIONS: Final = FOLDER / "interactions.csv"
COLUMNS: Final = ("user", "movie_id", "kind", "at")

FAMILIES: Final[Mapping[str, range]] = {
    "lighthouses": range(1, 12),
    "freighters": range(12, 23),
    "robots": range(23, 33),
    "mountains": range(33, 43),
    "heists": range(43, 53),
    "detectives": range(53, 63),
    "kitchens": range(63, 73),
    "music": range(73, 83),
    "ghosts": range(83, 93),
    "dragons": range(93, 103),
    "animals": range(103, 113),
    "sports": range(113, 123),
    "war": range(123, 133),
    "dust": range(133, 141),
    "time": range(141, 149),
    "nature": range(149, 156),
}
"""Ids by family; movies after the last range have no family."""

FIRST_FAMILY, SECOND_FAMILY = 0.55, 0.25
"""Shares of a user's movies from the two preferred families; the rest is any movie, weighted by
popularity."""
FEWEST, MOST = 6, 14
"""Bounds of the number of movies per user."""
BEGIN: Final = dt.datetime(2026, 1, 5, 8, tzinfo=dt.UTC)
MINUTES: Final = 280 * 24 * 60
PREFERRED_KINDS: Final = {"liked": 0.42, "watched": 0.33, "clicked": 0.2, "disliked": 0.05}
OTHER_KINDS: Final = {"liked": 0.1, "watched": 0.3, "clicked": 0.35, "disliked": 0.25}


@cache
def popularity() -> Mapping[int, float]:
    """Returns the popularity of each movie of the catalogue, by id."""
    with MOVIES.open(encoding="utf-8") as stream:
        movies = [json.loads(line) for line in stream]
    return {movie["id"]: movie["popularity"] for movie in movies}


def write(stream: TextIO, users: int = USERS, seed: int = SEED) -> int:
    """Writes the interactions of `users` users as CSV, ordered by time; returns the number of rows.

    Parameters
    ----------
    stream : opened as UTF-8 with ``newline=""``.
    """
    draws = Draws(np.random.Generator(np.random.PCG64([seed, *b"interactions"])))
    rows = sorted(
        (row for number in range(1, users + 1) for row in _of_user(f"reader-{number:03d}", draws)),
        key=lambda row: (row["at"], row["user"], row["movie_id"]),
    )
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return len(rows)


def _of_user(user: str, draws: Draws) -> Iterator[dict[str, str]]:
    names = list(FAMILIES)
    first = draws.pick(dict.fromkeys(names, 1.0))
    second = draws.pick(dict.fromkeys((name for name in names if name != first), 1.0))
    seen: set[int] = set()
    for _ in range(draws.whole(FEWEST, MOST)):
        family = draws.pick(
            {first: FIRST_FAMILY, second: SECOND_FAMILY, "": 1 - FIRST_FAMILY - SECOND_FAMILY}
        )
        among = FAMILIES[family] if family else popularity().keys()
        weights = {movie: popularity()[movie] ** 0.5 for movie in among if movie not in seen}
        if not weights:
            continue
        movie = draws.pick(weights)
        seen.add(movie)
        kind = draws.pick(PREFERRED_KINDS if family else OTHER_KINDS)
        at = BEGIN + dt.timedelta(minutes=draws.whole(0, MINUTES))
        yield {"user": user, "movie_id": str(movie), "kind": kind, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ")}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.movie_samples",
        description="Writes the interactions of invented users with the sample movies.",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="output folder")
    parser.add_argument("--users", type=int, default=USERS, help=f"number of users, default {USERS}")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the generator, default {SEED}")
    options = parser.parse_args(arguments)
    if min(options.users, options.seed) < 0:
        parser.error("--users and --seed must not be negative")
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / INTERACTIONS.name
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = write(stream, options.users, options.seed)
    sys.stdout.write(f"{target}: {rows} rows, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
