"""Benchmark of the movie recommender and the tutorial's: the catalogue, the requests and the services.

The catalogue is TMDB's, 4,803 movies, if VIGIA_DATA_DIR has it; otherwise as many generated movies with the
same columns. Vigía's first start loads the file and builds an index of it, and the peer reads the same file.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench.processes import Started, free_port
from bench.services import ENVIRONMENT, HOST, OWN, Scenario, Service, Target, Vigia

PUBLISHED = "tmdb_5000_movies.csv.gz"
MOVIES = 4_803
COLUMNS = (
    *("id", "title", "original_title", "overview", "genres", "keywords", "release_date"),
    *("original_language", "popularity", "vote_average", "vote_count", "runtime"),
)
# The counts follow TMDB's overviews: 20,978 terms, 27 per movie in the mean, two or three genres.
TERMS, TERMS_A_MOVIE, KEYWORDS = 21_000, 27, 9_800
GENRES = (
    *("Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy"),
    *("History", "Horror", "Music", "Mystery", "Romance", "Science Fiction", "Thriller", "War", "Western"),
)
SEED = 20
ASKED = 1_000
WORDS_ASKED = 12
COMPARED = 100
TOP_N = 5

SCENARIOS = (
    Scenario("movies-16", "five movies like one given by its id, 16 connections", 16),
    Scenario("movies-64", "five movies like one given by its id, 64 connections", 64),
    Scenario("text-1", "five movies by free text, 12 words, one connection", 1),
    Scenario("text-16", "five movies by free text, 12 words, 16 connections", 16),
)


@dataclass(frozen=True)
class Catalogue:
    """The file of movies, its title, and the bodies of requests about it."""

    path: Path
    title: str
    ids: list[dict[str, Any]]  # {"movie_id"}
    texts: list[dict[str, Any]]  # {"text"}

    @classmethod
    def prepared(cls, folder: Path) -> Catalogue:
        """Copies TMDB's file to `folder`, or writes generated movies there."""
        published = Path(os.environ.get("VIGIA_DATA_DIR") or "/nowhere") / PUBLISHED
        path = folder / "movies.csv"
        if published.is_file():
            path.write_bytes(gzip.decompress(published.read_bytes()))
        else:
            write(path)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        draw = random.Random(SEED)  # noqa: S311
        described = [words for row in rows if len(words := row["overview"].split()) >= WORDS_ASKED]
        return cls(
            path=path,
            title=f"TMDB's {len(rows):,} movies"
            if published.is_file()
            else f"{len(rows):,} generated movies",
            ids=[{"movie_id": int(row["id"])} for row in draw.sample(rows, ASKED)],
            texts=[
                {"text": _passage(words, draw), "top_n": TOP_N} for words in draw.sample(described, ASKED)
            ],
        )


def _passage(words: Sequence[str], draw: random.Random) -> str:
    start = draw.randrange(len(words) - WORDS_ASKED + 1)
    return " ".join(words[start : start + WORDS_ASKED])


def write(path: Path) -> None:
    """Writes generated movies in TMDB's columns; the frequency of terms and genres falls with their rank
    (Zipf)."""
    draw = random.Random(SEED)  # noqa: S311
    terms, keywords = _zipf("term", TERMS), _zipf("keyword", KEYWORDS)
    genres = (list(GENRES), list(accumulate(1 / rank for rank in range(1, len(GENRES) + 1))))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(1, MOVIES + 1):
            overview = " ".join(_drawn(terms, draw.randint(TERMS_A_MOVIE // 3, 2 * TERMS_A_MOVIE), draw))
            title = f"Movie {number} of {_drawn(terms, 1, draw)[0]}"
            listed = [
                json.dumps([{"id": 0, "name": name} for name in dict.fromkeys(_drawn(kind, many, draw))])
                for kind, many in ((genres, draw.randint(1, 4)), (keywords, draw.randint(0, 15)))
            ]
            popularity = round(draw.lognormvariate(2.5, 1.2), 6)
            released = f"{draw.randint(1930, 2016)}-06-01"
            writer.writerow(
                [number, title, title, overview, *listed, released, "en", popularity, 6.1, 500, 107]
            )


_Weighted = tuple[list[str], list[float]]


def _zipf(kind: str, many: int) -> _Weighted:
    return [f"{kind}{rank}" for rank in range(many)], list(
        accumulate(1 / (20 + rank) for rank in range(many))
    )


def _drawn(weighted: _Weighted, many: int, draw: random.Random) -> list[str]:
    names, heights = weighted
    return draw.choices(names, cum_weights=heights, k=many)


def services(started: Started, vigia: Vigia, catalogue: Catalogue) -> list[Service]:
    """Starts the peer under two servers; returns both, and Vigía on its two routes."""
    by_id = Target("POST", "/recommend", catalogue.ids)
    tutorial = {"movies-16": by_id, "movies-64": by_id}

    def other(name: str, title: str, note: str, *command: str) -> Service:
        service = Service(name, title, note, "nothing", free_port(), tutorial)
        arguments = [part.format(host=HOST, port=service.port) for part in command]
        service.pid = started.start(
            name, [OWN, "-m", *arguments], ENVIRONMENT | {"BENCH_MOVIES": str(catalogue.path)}
        )
        return service

    peer = other(
        "flask-movies",
        "Flask, the tutorial's, under gunicorn",
        "all cosines computed at the start, a full sort in Python for each request; five titles",
        *("gunicorn", "--config", "bench/peers/gunicorn_sync.py"),
        *("--bind", "{host}:{port}", "bench.peers.flask_movies:app"),
    )
    plain = other(
        "flask-own",
        "Flask, the tutorial's, with the tutorial's command",
        "the same with Flask's own server: one process, a thread for each connection",
        *("flask", "--app", "bench.peers.flask_movies", "run", "--host", "{host}", "--port", "{port}"),
    )

    def own(name: str, title: str, note: str, targets: dict[str, Target]) -> Service:
        service = Service(name, title, note, "every answer, committed", vigia.service.port, targets)
        service.pid, service.key, service.table = vigia.service.pid, vigia.service.key, vigia.service.table
        return service

    of_ids = [body | {"top_n": TOP_N} for body in catalogue.ids]
    by_id_own, by_text = (
        Target("POST", "/api/v1/recommendations/", bodies) for bodies in (of_ids, catalogue.texts)
    )
    note = "key, validation, log; title, description, genres and keywords; five titles"
    return [
        peer,
        plain,
        own("vigia-recommend", "Vigía's `/recommend`", note, tutorial),
        own(
            "vigia",
            "**Vigía's `/api/v1/recommendations/`**",
            "the same, with year, genres, score, and each reason with its share of the score",
            {"movies-16": by_id_own, "movies-64": by_id_own, "text-1": by_text, "text-16": by_text},
        ),
    ]


def compare(services: Sequence[Service]) -> list[str]:
    """Returns a line with the mean number of titles that the tutorial and Vigía have in common."""
    peer, own = services[0], services[-1]
    bodies = (peer.targets["movies-16"].bodies or [])[:COMPARED]
    common = 0
    for body in bodies:
        theirs = json.loads(peer.ask("movies-16", body)[1])["recommendations"]
        ours = [item["title"] for item in json.loads(own.ask("movies-16", body)[1])["recommendations"]]
        common += len(set(theirs) & set(ours))
    mean = common / len(bodies)
    line = (
        f"The tutorial's five titles, by the descriptions alone, and Vigía's have {mean:.1f} titles in common"
    )
    return [f"{line} in the mean, over {len(bodies)} movies."]
