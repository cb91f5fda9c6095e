"""Snapshots of a catalogue as one file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recommender.index import catalogue_snapshot
from recommender.index.catalogue_snapshot import NotASnapshot, OutOfOrder
from recommender.index.query import Movie
from tests.recommender.small import BEGIN, catalogue_of, interaction

FIRST = Movie(3, "Uno", "un día", ("Drama",), ("sol", "mar"), 1999, "es", 2.5)
SECOND = Movie(8, "Blank")


def test_a_snapshot_returns_the_written_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.parquet"
    events = [
        interaction(1, 3, 1.0, day=2),
        interaction(2, 3, -1.0, day=1),
        interaction(1, 5),
        interaction(1, 8, 0.3),
    ]
    assert catalogue_snapshot.write(path, [FIRST, SECOND], events) == 2
    snapshot = catalogue_snapshot.read(path)
    assert snapshot.ids.tolist() == [3, 8]
    assert list(snapshot.texts("title")) == ["Uno", "Blank"]
    assert list(snapshot.lists("keywords")) == [["sol", "mar"], []]
    assert snapshot.years[0] == 1999
    assert snapshot.years[1] != snapshot.years[1]
    assert snapshot.popularity.tolist() == [2.5, 0.0]
    joined = snapshot.interactions()  # sorted by time within a movie, without those of the missing movie 5
    assert joined.movie.tolist() == [0, 0, 1]
    assert joined.user.tolist() == [2, 1, 1]
    assert joined.weight.tolist() == pytest.approx([-1.0, 1.0, 0.3])
    assert joined.at[0] == int(BEGIN.timestamp() + 86_400) * 1_000_000


def test_equal_content_gives_equal_bytes_in_any_order_of_events(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    catalogue_snapshot.write(one, [FIRST, SECOND], [interaction(1, 3, day=1), interaction(2, 3)])
    catalogue_snapshot.write(
        other, iter([FIRST, SECOND]), iter([interaction(2, 3), interaction(1, 3, day=1)])
    )
    assert one.read_bytes() == other.read_bytes()


def test_row_groups_do_not_affect_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_snapshot, "ROWS", 2)
    movies = [Movie(number, f"No. {number}", genres=("Drama",) * (number % 2)) for number in range(5)]
    events = [interaction(1, number) for number in range(5)]
    catalogue_snapshot.write(tmp_path / "catalogue.parquet", movies, events)
    snapshot = catalogue_snapshot.read(tmp_path / "catalogue.parquet")
    assert [title[-1] for title in snapshot.texts("title")] == list("01234")
    assert [len(each) for each in snapshot.lists("genres")] == [0, 1, 0, 1, 0]
    assert snapshot.interactions().movie.tolist() == [0, 1, 2, 3, 4]


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutOfOrder, match="movie 3 comes after movie 8"):
        catalogue_snapshot.write(tmp_path / "one", [SECOND, FIRST])
    with pytest.raises(OutOfOrder, match="with movie 3 comes after one with 8"):
        catalogue_snapshot.write(
            tmp_path / "two", [FIRST, Movie(9, "Later")], [interaction(1, 8), interaction(1, 3)]
        )


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"id,title\n")
    with pytest.raises(NotASnapshot):
        catalogue_snapshot.read(path)
    pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(NotASnapshot, match="has the columns id, title"):
        catalogue_snapshot.read(path)


def test_an_empty_catalogue_has_no_interactions() -> None:
    assert len(catalogue_of([]).interactions()) == 0
    assert len(catalogue_of([FIRST]).interactions()) == 0
