"""A catalogue as one file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recommender.index import catalogue_snapshot
from recommender.index.catalogue_snapshot import Catalogue, NotASnapshot, OutOfOrder
from recommender.index.query import Movie
from tests.recommender.small import BEGIN, did

FIRST = Movie(3, "Uno", "un día", ("Drama",), ("sol", "mar"), 1999, "es", 2.5)
SECOND = Movie(8, "Blank")


def test_a_snapshot_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.parquet"
    events = [did(1, 3, 1.0, day=2), did(2, 3, -1.0, day=1), did(1, 5), did(1, 8, 0.3)]
    assert catalogue_snapshot.write(path, [FIRST, SECOND], events) == 2
    found = catalogue_snapshot.read(path)
    assert found.ids.tolist() == [3, 8]
    assert list(found.texts("title")) == ["Uno", "Blank"]
    assert list(found.lists("keywords")) == [["sol", "mar"], []]
    assert found.years[0] == 1999
    assert found.years[1] != found.years[1]
    assert found.popularity.tolist() == [2.5, 0.0]
    joined = (
        found.interactions()
    )  # by time within a movie; those of movie 5, which is not there, are left out
    assert joined.movie.tolist() == [0, 0, 1]
    assert joined.user.tolist() == [2, 1, 1]
    assert joined.weight.tolist() == pytest.approx([-1.0, 1.0, 0.3])
    assert joined.at[0] == int(BEGIN.timestamp() + 86_400) * 1_000_000


def test_equal_content_gives_equal_bytes_in_whatever_order_events_came(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    catalogue_snapshot.write(one, [FIRST, SECOND], [did(1, 3, day=1), did(2, 3)])
    catalogue_snapshot.write(other, iter([FIRST, SECOND]), iter([did(2, 3), did(1, 3, day=1)]))
    assert one.read_bytes() == other.read_bytes()


def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_snapshot, "ROWS", 2)
    movies = [Movie(number, f"No. {number}", genres=("Drama",) * (number % 2)) for number in range(5)]
    events = [did(1, number) for number in range(5)]
    catalogue_snapshot.write(tmp_path / "catalogue.parquet", movies, events)
    found = catalogue_snapshot.read(tmp_path / "catalogue.parquet")
    assert [title[-1] for title in found.texts("title")] == list("01234")
    assert [len(each) for each in found.lists("genres")] == [0, 1, 0, 1, 0]
    assert found.interactions().movie.tolist() == [0, 1, 2, 3, 4]


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutOfOrder, match="movie 3 comes after movie 8"):
        catalogue_snapshot.write(tmp_path / "one", [SECOND, FIRST])
    with pytest.raises(OutOfOrder, match="with movie 3 comes after one with 8"):
        catalogue_snapshot.write(tmp_path / "two", [FIRST, Movie(9, "Later")], [did(1, 8), did(1, 3)])


def test_other_files_are_no_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"id,title\n")
    with pytest.raises(NotASnapshot):
        catalogue_snapshot.read(path)
    pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(NotASnapshot, match="has the columns id, title"):
        catalogue_snapshot.read(path)


def test_a_catalogue_of_nothing_has_no_interactions() -> None:
    assert len(Catalogue.of([]).interactions()) == 0
    assert len(Catalogue.of([FIRST]).interactions()) == 0
