"""Imports of movies: all formats are read, bad rows are refused by line and reason, repeated imports are
safe."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from core.errors import Conflict
from recommender.catalogue import import_movies
from recommender.catalogue import service as catalogue_service
from recommender.files.movies import LAYOUT, list_of
from recommender.files.tabular import open_rows
from recommender.models import Interaction, Movie
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
TMDB = """id,title,overview,genres,keywords,original_language,original_title,popularity,release_date,runtime,status,vote_average,vote_count
11,The Salt Road,"Two sisters, one camel.
A very long road.","[{""id"": 18, ""name"": ""Drama""}, {""id"": 12, ""name"": ""Adventure""}]","[{""id"": 1, ""name"": ""salt, pepper""}, {""id"": 2, ""name"": ""\xa0""}]",en,The Salt Road,12.5,2009-12-10,101.0,Released,7.1,310
12,Ohne Salz,,[],[],de,Ohne Salz,0.3,,0,Released,0.0,0
"""  # noqa: E501
PLAIN = """movie_id;Title;Description;Genres;Year;Rating
21;The Salt Road;Two sisters, one camel.;Drama|Adventure;2009;7,1
22;Ohne Salz;;Comedy;;
"""


def load(tmp_path: Path, text: str | bytes, *options: str, name: str = "rows.csv") -> str:
    """Loads a file with the command and returns its output."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    out = io.StringIO()
    call_command("load_movies", str(path), *options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refusal(tmp_path: Path, text: str | bytes, *options: str) -> tuple[str, list[str]]:
    """Returns (the command's error, the faults before it)."""
    path, output = tmp_path / "rows.csv", io.StringIO()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CommandError) as error:
        call_command("load_movies", str(path), *options, stdout=io.StringIO(), stderr=output)
    return str(error.value), output.getvalue().splitlines()


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# -- formats -------------------------------------------------------------------------------------------


def test_a_csv_may_hold_json_in_its_cells(tmp_path: Path) -> None:
    output = load(tmp_path, gzip.compress(TMDB.encode()), name="tmdb.csv.gz")
    assert "CSV, delimiter comma, decimal point" in output
    assert "unknown columns were not read: status" in output
    assert "2 rows: 2 new, 0 changed, 0 unchanged, 0 refused" in output
    row = Movie.objects.get(pk=11)
    assert row.description == "Two sisters, one camel.\nA very long road."
    assert (row.genres, row.keywords) == (["Drama", "Adventure"], ["salt, pepper"])
    assert (row.year, row.language, row.runtime, row.rating, row.votes) == (2009, "en", 101, 7.1, 310)
    assert (row.popularity, row.original_title, row.title_key) == (12.5, "The Salt Road", "the salt road")
    bare = Movie.objects.get(pk=12)
    assert (bare.description, bare.genres, bare.year, bare.runtime) == ("", [], None, None)
    assert (bare.rating, bare.votes) == (None, 0), "the mean of no votes is no rating"


def test_words_for_missing_values_count_as_empty(tmp_path: Path) -> None:
    load(
        tmp_path,
        "id,title,plot,genres,tags\n"
        "1,Harbour Lights,N/A,N/A,null\n2,None,nan,Unknown|Horror,?\n3,Goat Radio,No overview found.,\\N,-\n"
        "4,Real,Not available to everybody,Drama,none of these\n",
    )
    rows = {row.pk: (row.title, row.description, row.genres, row.keywords) for row in Movie.objects.all()}
    assert rows == {
        1: ("Harbour Lights", "", [], []),
        2: ("None", "", ["Horror"], []),
        3: ("Goat Radio", "", [], []),
        4: ("Real", "Not available to everybody", ["Drama"], ["none of these"]),
    }


def test_movielens_titles_are_split(tmp_path: Path) -> None:
    load(
        tmp_path,
        "movieId,title,genres\n"
        "1,Toy Story (1995),Adventure|Animation\n"
        '2,"Postman, The (Postino, Il) (1994)",(no genres listed)\n'
        '3,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",Drama\n'
        "4,Twelve Monkeys (a.k.a. 12 Monkeys) (1995),Sci-Fi\n"
        "5,Halloween (Part 2) (1981),Horror\n6,2001 (Two Thousand and One),Sci-Fi\n",
    )
    rows = {row.pk: (row.title, row.year, row.original_title, row.genres) for row in Movie.objects.all()}
    assert rows == {
        1: ("Toy Story", 1995, "", ["Adventure", "Animation"]),
        2: ("The Postman", 1994, "Il Postino", []),
        3: ("The City of Lost Children", 1995, "La Cité des enfants perdus", ["Drama"]),
        4: ("Twelve Monkeys", 1995, "12 Monkeys", ["Sci-Fi"]),
        5: ("Halloween (Part 2)", 1981, "", ["Horror"]),
        6: ("2001 (Two Thousand and One)", None, "", ["Sci-Fi"]),
    }


def test_imdb_files_are_read_without_rows_that_are_no_movies(tmp_path: Path) -> None:
    output = load(
        tmp_path,
        "tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n"
        'tt0073045\tmovie\t"Giliap"\t"Giliap"\t0\t1975\t\\N\t137\tCrime,Drama\n'
        'tt0111161\tmovie\tThe "Shawshank" Redemption\tThe "Shawshank" Redemption\t0\t1994\t\\N\t\\N\t\\N\n'
        "tt0583459\ttvEpisode\tThe Last One\tThe Last One\t0\t2004\t\\N\t30\tComedy\n",
        name="title.basics.tsv",
    )
    assert "2 rows: 2 new" in output
    assert "1 more rows were left out because they are no movies: episodes, series or games" in output
    rows = {row.pk: (row.title, row.year, row.runtime, row.genres) for row in Movie.objects.all()}
    assert rows == {
        73045: ('"Giliap"', 1975, 137, ["Crime", "Drama"]),
        111161: ('The "Shawshank" Redemption', 1994, None, []),
    }
    refused, faults = refusal(tmp_path, "tconst,title\nnm0000001,Nobody\n")
    assert "nothing was loaded" in refused
    assert "tconst like tt0111161" in faults[0]


def test_lists_may_be_python_literals_but_no_other_python(tmp_path: Path) -> None:
    load(
        tmp_path,
        "id,title,genres\n"
        "862,Toy Story,\"[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': \"\"Kids' Comedy\"\"}]\"\n"
        "863,Other,[]\n",
    )
    assert Movie.objects.get(pk=862).genres == ["Animation", "Kids' Comedy"]
    output, _ = refusal(tmp_path, "id,title,genres\n1,A,\"[__import__('os').system('true')]\"\n")
    assert "nothing was loaded" in output


def test_a_csv_may_have_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    assert "delimiter semicolon, decimal comma" in load(tmp_path, "\ufeff" + PLAIN)
    row = Movie.objects.get(pk=21)
    assert (row.genres, row.year, row.rating) == (["Drama", "Adventure"], 2009, 7.1)
    assert list(Movie.objects.get(pk=22).genres) == ["Comedy"]


def test_json_lines_are_read(tmp_path: Path) -> None:
    rows = lines(
        {"id": 31, "title": 1984, "genres": ["Drama", "drama", " "], "year": "1984", "shelf": 4},
        {"Movie_ID": "32", "name": "Élan", "overview": None, "tags": [{"name": "élan"}], "popularity": "3.5"},
    )
    output = load(tmp_path, rows, name="rows.jsonl")
    assert "JSON lines" in output
    assert "unknown columns were not read: shelf" in output
    first, second = Movie.objects.get(pk=31), Movie.objects.get(pk=32)
    assert (first.title, first.genres, first.year) == ("1984", ["Drama"], 1984)
    assert (second.title_key, second.keywords, second.popularity) == ("elan", ["élan"], 3.5)


@pytest.mark.parametrize(
    ("name", "cell", "terms"),
    [
        ("genres", "Drama|Science Fiction", ("Drama", "Science Fiction")),
        ("genres", "Drama; Comedy ;", ("Drama", "Comedy")),
        ("genres", "Drama, Comedy", ("Drama", "Comedy")),
        ("genres", "Drama|Comedy, Romantic", ("Drama", "Comedy, Romantic")),
        ("keywords", "new york, city", ("new york, city",)),
        ("keywords", '["a", {"name": "b"}, "A"]', ("a", "b")),
        ("keywords", "[]", ()),
        ("genres", '{"id": 18, "name": "Drama"}', ("Drama",)),
    ],
)
def test_a_cell_is_split_into_terms(name: str, cell: str, terms: tuple[str, ...]) -> None:
    assert list_of(name, cell) == terms


# -- loading again -------------------------------------------------------------------------------------


def test_a_repeated_import_writes_only_differences(tmp_path: Path) -> None:
    load(tmp_path, TMDB)
    before = dict(Movie.objects.values_list("pk", "changed_at"))
    assert "0 new, 0 changed, 2 unchanged" in load(tmp_path, TMDB)
    assert dict(Movie.objects.values_list("pk", "changed_at")) == before
    assert "1 new, 1 changed, 1 unchanged" in load(
        tmp_path, TMDB.replace("The Salt Road,12.5", "The Salt Road,13.5") + "13,New,,,,,,,,,,,\n"
    )
    after = dict(Movie.objects.values_list("pk", "changed_at"))
    assert (after[11] > before[11], after[12]) == (True, before[12])
    assert Movie.objects.get(pk=11).popularity == 13.5


def test_a_field_that_the_file_lacks_keeps_its_value(tmp_path: Path) -> None:
    load(tmp_path, TMDB)
    assert "0 new, 1 changed" in load(tmp_path, "id,title,keywords\n11,The Salt Road,camel\n")
    row = Movie.objects.get(pk=11)
    assert (row.keywords, row.genres, row.year) == (["camel"], ["Drama", "Adventure"], 2009)
    load(tmp_path, "id,title,keywords,year\n11,The Pepper Road,,\n")
    row.refresh_from_db()
    assert (row.title_key, row.keywords, row.year) == ("the pepper road", [], None), (
        "an empty cell is a value"
    )


def test_zero_votes_clear_a_rating_only_if_the_file_has_ratings(tmp_path: Path) -> None:
    load(tmp_path, TMDB)
    load(tmp_path, "id,title,votes\n11,The Salt Road,0\n")
    assert Movie.objects.get(pk=11).rating == 7.1
    load(tmp_path, "id,title,votes,rating\n11,The Salt Road,0,0\n")
    assert Movie.objects.get(pk=11).rating is None


def test_an_import_readmits_withdrawn_movies_only_with_the_option(tmp_path: Path) -> None:
    load(tmp_path, TMDB)
    catalogue_service.withdraw([11], by=None)
    output = load(tmp_path, TMDB.replace("12.5", "14.5"))
    assert "1 changed" in output
    assert "1 movies of the file stay withdrawn" in output
    assert Movie.objects.get(pk=11).is_withdrawn
    assert "1 withdrawn movies were readmitted" in load(tmp_path, TMDB, "--readmit")
    assert not Movie.objects.get(pk=11).is_withdrawn


def test_the_option_withdraw_missing_withdraws_movies_that_the_file_lacks(tmp_path: Path) -> None:
    load(tmp_path, TMDB)
    load(tmp_path, PLAIN)
    output = load(tmp_path, PLAIN, "--withdraw-missing")
    assert "2 movies that the file lacks were withdrawn" in output
    assert set(Movie.objects.filter(withdrawn_at__isnull=True).values_list("pk", flat=True)) == {21, 22}
    bad, _ = refusal(tmp_path, PLAIN + "x;y;;;;\n", "--withdraw-missing", "--refused", str(tmp_path / "bad"))
    assert "cannot withdraw missing movies: the file has bad rows" in bad


@pytest.mark.django_db(transaction=True)
def test_only_one_file_is_loaded_at_a_time(tmp_path: Path) -> None:
    import threading

    from django.db import connections

    errors: list[Exception] = []

    def second() -> None:
        try:
            import_movies.load(open_rows(io.BytesIO(PLAIN.encode()), LAYOUT))
        except Conflict as error:
            errors.append(error)
        finally:
            connections.close_all()

    with transaction.atomic():
        load(tmp_path, TMDB)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another file" in str(errors[0])
    assert Movie.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_bulk_changes_wait_for_each_other_and_recording_does_not_wait(
    tmp_path: Path,
) -> None:
    """Otherwise feedback on two movies and the withdrawal of both could deadlock, and so could an import."""
    import threading

    from django.db import OperationalError, connections

    results: list[str] = []

    def impatient() -> None:
        try:
            connection.cursor().execute("SET lock_timeout = 300")
            Interaction.objects.create(user="u", movie_id=21, kind="liked", at="2026-01-01T00:00:00Z")
            results.append("recorded")
            import_movies.load(open_rows(io.BytesIO(TMDB.encode()), LAYOUT))
        except OperationalError as error:
            results.append(str(error))
        finally:
            connections.close_all()

    load(tmp_path, PLAIN)
    with transaction.atomic():
        catalogue_service.withdraw([21, 22], by=None)
        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
    assert results[0] == "recorded"
    assert "lock timeout" in results[1]


# -- refusals ------------------------------------------------------------------------------------------

BAD = [
    (lines({"id": 1, "title": "Good"}).strip(), None),
    (lines({"title": "No id"}).strip(), "id: id is missing"),
    (lines({"id": 0, "title": "Zero"}).strip(), "id must be"),
    (lines({"id": 2.5, "title": "Half"}).strip(), "id must be a whole number"),
    (lines({"id": 3}).strip(), "title is missing"),
    (lines({"id": 4, "title": "  "}).strip(), "title must not be empty"),
    (lines({"id": 5, "title": "x" * 301}).strip(), "title must have at most 300 characters"),
    ('{"id": 6, "title": "a\\u0000b"}', "NUL or lone surrogates"),
    ('{"id": 7, "title": "\\udfff"}', "NUL or lone surrogates"),
    ('{"id": 8, "title": "x", "year": 1492}', "year must be"),
    ('{"id": 9, "title": "x", "genres": "[{"}', "genres is not a JSON list"),
    ('{"id": 10, "title": "x", "keywords": 7}', "keywords must be a list"),
    ('{"id": 11, "title": "x"', "the line is not valid JSON"),
    ('{"id": 12, "id": 13, "title": "x"}', "id is given twice"),
    ('{"id": 14, "movie_id": 14, "title": "x"}', "given twice (also under another name)"),
    ("[" * 50_000, "nested too deeply"),
    ("7", "a line must be one JSON object"),
    (lines({"id": 1, "title": "Again"}).strip(), "line 1 has the same id"),
    ('{"id": 15, "title": "x", "language": "Klingon"}', "language must be a code"),
    ('{"id": 16, "title": "x", "release_date": "12/10/2009"}', "release_date must be an ISO 8601 date"),
    ('{"id": 20, "title": "x", "release_date": "2009-13-45"}', "release_date must be an ISO 8601 date"),
    ('{"id": 21, "title": "x", "release_date": "2009-02-29"}', "release_date must be an ISO 8601 date"),
    ('{"id": 22, "title": "x", "genres": {"id": 18}}', "genres must be a list"),
    ('{"id": 23, "title": "x", "genres": "{\\"id\\": 18}"}', "genres must be a list"),
    ('{"id": 24, "title": "x", "genres": "{Drama}"}', "genres is not a JSON list"),
    ('{"id": "9007199254740993", "title": "x"}', "id is beyond 2^53"),
    ('{"id": 17, "title": "x", "rating": 1e999}', "rating must be a finite number"),
    ('{"id": 18, "title": "' + "x" * 2**20 + '"}', "a line must have at most 1,048,576 bytes"),
    (lines({"id": 19, "title": "Good as well"}).strip(), None),
]


def test_one_bad_row_refuses_the_whole_file_and_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    output, faults = refusal(tmp_path, "\n".join(line for line, _ in BAD))
    assert output == f"rows.csv: {len(BAD) - 2} of {len(BAD)} rows are invalid; nothing was loaded"
    expected = [(place, reason) for place, (_, reason) in enumerate(BAD, 1) if reason is not None]
    assert len(faults) == len(expected)
    for (place, reason), fault in zip(expected, faults, strict=True):
        assert fault.startswith((f"line {place}:", f"line {place},")), fault
        assert reason in fault, fault
    assert not Movie.objects.exists()


def test_a_place_for_bad_rows_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    aside = tmp_path / "missing" / "aside.csv"
    with pytest.raises(CommandError, match=rf"aside\.csv cannot be written.*No such file.*{aside.parent}"):
        load(tmp_path, BAD[0][0], "--refused", str(aside))


def test_bad_rows_are_written_aside_with_their_reasons_and_good_rows_are_loaded(tmp_path: Path) -> None:
    aside = tmp_path / "aside.csv"
    output = load(tmp_path, "\n".join(line for line, _ in BAD), "--refused", str(aside))
    assert f"bad rows set aside in {aside}" in output
    assert f"{len(BAD)} rows: 2 new, 0 changed, 0 unchanged, {len(BAD) - 2} refused" in output
    assert list(Movie.objects.values_list("pk", "title")) == [(1, "Good"), (19, "Good as well")]
    before = csv.field_size_limit(2**21)
    try:
        with aside.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    finally:
        csv.field_size_limit(before)
    assert [int(row["line"]) for row in rows] == [at for at, (_, reason) in enumerate(BAD, 1) if reason]
    assert rows[0]["text"] == BAD[1][0]
    assert rows[0]["reasons"] == "missing_field: id is missing"
    assert "duplicate_id: line 1 has the same id" in {row["reasons"] for row in rows}


def test_the_bad_rows_of_a_csv_keep_their_cells(tmp_path: Path) -> None:
    aside = tmp_path / "aside.csv"
    text = "id,title,shelf\n1,Good,a\nx,Bad,b\n2,Short\n1,Twice,c\n"
    assert "4 rows: 1 new" in load(tmp_path, text, "--refused", str(aside))
    with aside.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["line", "reasons", "id", "title", "shelf"]
    assert [(row[0], row[2:]) for row in rows[1:]] == [
        ("3", ["x", "Bad", "b"]), ("4", ["2", "Short"]), ("5", ["1", "Twice", "c"]),
    ]  # fmt: skip
    load(tmp_path, "id,title\n1,Good\n", "--refused", str(tmp_path / "none.csv"))
    assert not (tmp_path / "none.csv").exists(), "without bad rows there is no file"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("", "the CSV is empty"),
        ("id,title\n", "the file has no rows"),
        ("id,title\nx,y\n", "1 of 1 rows is invalid"),
        ("title\nx\n", "column 'id' or 'tconst' is missing"),
        ("id,title,movie_id\n1,x,1\n", "'movie_id' stands in the header twice (also as 'id')"),
        ('[{"id": 1}]', "one JSON array"),
        ("\xff\xfei\x00", "is missing"),
        (b"\xff\xfei\x00", "UTF-16"),
        (b"id,title\n1,\xe9\n", "not UTF-8 near line"),
        ('id,title\n1,"x', "is not valid CSV"),
        ("id;title;popularity\n1;x;1.234\n", "pass --decimal"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_reason(
    tmp_path: Path, text: str | bytes, output: str
) -> None:
    assert output in refusal(tmp_path, text)[0]
    assert not Movie.objects.exists()


def test_a_cell_that_is_too_long_refuses_its_row_only(tmp_path: Path) -> None:
    text = f'id,title,description\n1,Long,"{"x" * 200_000}"\n2,Good,fine\n'
    assert refusal(tmp_path, text)[1][0].endswith("description must have at most 20000 characters")
    assert "2 rows: 1 new" in load(tmp_path, text, "--refused", str(tmp_path / "aside.csv"))
    assert Movie.objects.get().title == "Good"


def test_an_endless_line_is_refused_without_being_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    for start, line in (
        (b"", 1),
        (b"id,title\n1,Good\n2,", 3),
        (b'id,title\n1,"A\nB"\n2,"', 4),
    ):
        with gzip.open(path, "wb", 1) as packed:
            packed.write(start)
            for _ in range(20):
                packed.write(b"a,\n"[: 3 if start.endswith(b'"') else 2] * 500_000)
        output = io.StringIO()
        tracemalloc.start()
        with pytest.raises(CommandError, match="at most 1,048,576 characters"):
            call_command("load_movies", str(path), stdout=io.StringIO(), stderr=output)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000_000, f"{peak:,} bytes"
        assert output.getvalue().startswith(f"line {line}: a line must have")


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("id,title\n", "1" + ",a" * 100_000 + "\n"),
        ("", '{"id": 1, "title": "' + "x" * 300_000 + '"}\n'),
        ("", '{"id": 1, "title": "x", "genres": ["' + "x" * 300_000 + '"]}\n'),
    ],
)
def test_memory_does_not_grow_with_the_length_of_many_lines(tmp_path: Path, start: str, line: str) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w") as out:
        out.write(start)
        for _ in range(600):
            out.write(line)
    tracemalloc.start()
    with path.open("rb") as stream:
        read = sum(chunk.rows for chunk in open_rows(stream, LAYOUT).chunks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 600
    assert peak < 100_000_000, f"{peak:,} bytes"


@pytest.mark.django_db(transaction=True)
def test_a_lack_of_memory_is_reported(tmp_path: Path) -> None:
    """The process has a memory limit, as a container has."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "title": "x", "genres": [' + "0.5," * 200_000 + "1]}\n")
    limited = (
        "import resource, sys, django; django.setup();"
        "from django.core.management import call_command, CommandError;"
        "from recommender.management.commands import load_movies;"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000, used + 2_000_000));"
        "call_command('load_movies', sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(path)], capture_output=True, text=True, check=False
    )
    assert "CommandError: not enough memory; nothing was loaded" in done.stderr


def test_a_missing_file_and_a_bad_delimiter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no file"):
        call_command("load_movies", str(tmp_path / "none.csv"))
    assert "is no delimiter" in refusal(tmp_path, TMDB, "--delimiter", "!")[0]


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(TMDB.encode() * 200)
    for damaged in (packed[:-200], packed[:40] + b"\xff" * 40 + packed[80:], b"no gzip"):
        path = tmp_path / "rows.csv.gz"
        path.write_bytes(damaged)
        with pytest.raises(CommandError, match="nothing was loaded"):
            call_command("load_movies", str(path), stdout=io.StringIO(), stderr=io.StringIO())
    assert not Movie.objects.exists()


def test_all_bad_rows_are_counted_and_the_first_100_are_named(tmp_path: Path) -> None:
    text = "id,title\n" + "".join(f"{n},\n" for n in range(1, 5_001))
    output, faults = refusal(tmp_path, text)
    assert "5,000 of 5,000 rows are invalid" in output
    assert len(faults) == 101
    assert faults[-1] == "… and more; showing the first 100"


# -- the sample catalogue, and published movies --------------------------------------------------------


def test_the_sample_catalogue_loads_with_its_interactions(tmp_path: Path) -> None:
    from tools import movie_samples as samples

    out = io.StringIO()
    call_command("load_movies", str(samples.MOVIES), stdout=out)
    call_command("load_interactions", str(samples.INTERACTIONS), stdout=out)
    call_command("load_interactions", str(samples.INTERACTIONS), stdout=out)
    assert "163 rows: 163 new, 0 changed, 0 unchanged, 0 refused" in out.getvalue()
    assert "1,992 rows: 1,992 new, 0 already recorded" in out.getvalue()
    assert "1,992 rows: 0 new, 1,992 already recorded" in out.getvalue()
    titles = list(Movie.objects.values_list("title", flat=True))
    assert len(titles) - len(set(titles)) == 2
    bare = Movie.objects.filter(description="")
    assert (bare.count(), bare.filter(genres=[]).count()) == (4, 1)
    assert Movie.objects.filter(language="es").count() == 14
    assert {*Movie.objects.values_list("pk", flat=True)} == set(range(1, 164))
    assert [family[-1] + 1 for family in samples.FAMILIES.values()][:-1] == [
        family[0] for family in list(samples.FAMILIES.values())[1:]
    ]
    again = tmp_path / "interactions.csv"
    with again.open("w", encoding="utf-8", newline="") as stream:
        assert samples.write(stream) == Interaction.objects.count()
    assert again.read_bytes() == samples.INTERACTIONS.read_bytes()


@pytest.mark.real_data
def test_the_published_movies_load(data_dir: Path) -> None:
    out = io.StringIO()
    call_command("load_movies", str(data_dir / "tmdb_5000_movies.csv.gz"), stdout=out)
    assert "4,803 rows: 4,803 new, 0 changed, 0 unchanged, 0 refused" in out.getvalue()
    rows = Movie.objects.all()
    assert rows.filter(description="").count() == 4
    assert rows.filter(genres=[]).count() == 28
    knight = catalogue_service.by_title("the DARK knight rises")
    assert [row.pk for row in knight] == [49026]
    assert [row.title for row in catalogue_service.suggestions("batman")][:3] == [
        "Batman v Superman: Dawn of Justice", "Batman Begins", "Batman Returns",
    ]  # fmt: skip
    twice = catalogue_service.by_title("The Host")
    assert len(twice) == 2


def test_the_history_of_a_loaded_movie_has_no_author(catalogue: RegisteredModel) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_admin_log")
        assert cursor.fetchone() == (0,)
