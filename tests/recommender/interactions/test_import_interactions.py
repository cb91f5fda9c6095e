"""Imports of interactions, ours and MovieLens': a file is loaded whole or not at all, and repeated imports
are safe."""

from __future__ import annotations

import csv
import datetime as dt
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from recommender.models import Interaction
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
OURS = """user,movie_id,kind,at
u-1,1,liked,2026-10-01T10:00:00Z
u-1,2,Watched,2026-10-01
u-2,1,disliked,2026-10-01T12:00:00+02:00
u-2,1,disliked,2026-10-01T10:00:00Z
"""
MOVIELENS = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,2,5.0,964981247
1,3,3.5,964982224
2,1,2.0,964982703
2,2,0.5,1445714835
"""


def load(tmp_path: Path, text: str, *options: str) -> str:
    path, out = tmp_path / "rows.csv", io.StringIO()
    path.write_text(text, encoding="utf-8")
    call_command("load_interactions", str(path), *options, stdout=out, stderr=out)
    return out.getvalue()


def recorded() -> list[tuple[str | None, int, str]]:
    return list(Interaction.objects.order_by("user", "movie_id").values_list("user", "movie_id", "kind"))


def test_a_repeated_import_adds_nothing(catalogue: RegisteredModel, tmp_path: Path) -> None:
    assert "4 rows: 3 new, 1 already recorded, 0 refused" in load(tmp_path, OURS)
    assert "4 rows: 0 new, 4 already recorded, 0 refused" in load(tmp_path, OURS)
    assert recorded() == [("u-1", 1, "liked"), ("u-1", 2, "watched"), ("u-2", 1, "disliked")]
    row = Interaction.objects.get(user="u-1", movie_id=1)
    assert (row.at, row.client) == (dt.datetime(2026, 10, 1, 10, tzinfo=dt.UTC), None)


def test_ratings_become_liked_disliked_or_watched(catalogue: RegisteredModel, tmp_path: Path) -> None:
    assert "5 rows: 5 new" in load(tmp_path, MOVIELENS)
    assert recorded() == [
        ("1", 1, "liked"), ("1", 2, "liked"), ("1", 3, "watched"), ("2", 1, "disliked"), ("2", 2, "disliked"),
    ]  # fmt: skip
    assert Interaction.objects.get(user="1", movie_id=1).at == dt.datetime(
        2000, 7, 30, 18, 45, 3, tzinfo=dt.UTC
    )


def test_json_lines_may_have_numbers_as_users(catalogue: RegisteredModel, tmp_path: Path) -> None:
    text = '{"userId": 7, "movieId": 3, "rating": 4.5, "timestamp": 964982703}\n'
    assert "JSON lines" in load(tmp_path, text)
    assert recorded() == [("7", 3, "liked")]


def test_unix_seconds_may_have_a_fraction(catalogue: RegisteredModel, tmp_path: Path) -> None:
    cells = ("1700000000.25", "1700000000", "1700000000.0")
    rows = [f"u,{movie},liked,{at}\n" for movie, at in enumerate(cells, 1)]
    load(tmp_path, "user,movie_id,kind,at\n" + "".join(rows))
    times = Interaction.objects.order_by("movie_id").values_list("at", flat=True)
    full = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    assert list(times) == [full + dt.timedelta(milliseconds=250), full, full]


def test_bad_rows_refuse_the_file_unless_they_are_written_aside(
    catalogue: RegisteredModel, tmp_path: Path
) -> None:
    bad = {
        "u-1,4711,liked,2026-10-01": "unknown_movie: the catalogue has no movie 4711",
        "u-1,0,liked,2026-10-01": "out_of_bounds: movie_id must be at least 1",
        "u-1,1,adored,2026-10-01": "not_a_level: kind must be one of its levels",
        "u-1,1,,2026-10-01": "missing_field: kind and rating are missing: give one of them",
        ",1,liked,2026-10-01": "null_not_allowed: user must not be empty",
        "u-1,1,liked,": "null_not_allowed: at must not be empty",
        "u-1,1,liked,soon": "not_a_time: at must be an ISO 8601 time",
        "u-1,1,liked,2999-01-01": "in_the_future: at lies in the future",
        f"{'x' * 201},1,liked,2026-10-01": "too_long: user must have at most 200 characters",
    }
    text = OURS + "".join(f"{row}\n" for row in bad)
    with pytest.raises(CommandError, match="9 of 13 rows are invalid; nothing was loaded"):
        load(tmp_path, text)
    assert not recorded()
    aside = tmp_path / "aside.csv"
    assert "13 rows: 3 new, 1 already recorded, 9 refused" in load(tmp_path, text, "--refused", str(aside))
    with aside.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert [",".join(row[2:]) for row in rows[1:]] == list(bad)
    assert [row[1] for row in rows[1:]] == list(bad.values())


def test_a_header_without_kind_or_rating_is_refused(catalogue: RegisteredModel, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="column 'kind' or 'rating' is missing"):
        load(tmp_path, "user,movie_id,at\nu,1,2026-10-01\n")


def test_an_error_of_the_database_is_reported(catalogue: RegisteredModel, tmp_path: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    with pytest.raises(CommandError, match=r"the database refused the load: .*read-only.*nothing was loaded"):
        load(tmp_path, OURS)
