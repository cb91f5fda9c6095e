"""`load_dataset`: it loads rows, trains a version, and reports every fault with line, column and value."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from threadpoolctl import threadpool_limits

from tests.conftest import Post
from training import catalogue
from training.management import csv_files, run_progress
from training.models import Activation, Dataset, ModelVersion, RegisteredModel, TrainingRun

# A run shows its progress through other connections, so its rows have to be committed.
pytestmark = pytest.mark.django_db(transaction=True)

DECLARATION = """
from vigia_ml.declaration import Gate, ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(
        Column("weight", "number", unit="g", minimum=0),
        Column("colour", "category", levels=("green", "red")),
    ),
    target=Column("price", "number"),
)


def build(seed):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    codes = ColumnTransformer([("c", OneHotEncoder(), ["colour"])], remainder="passthrough")
    return make_pipeline(codes, LinearRegression())


MODEL = ModelDeclaration(
    name="fruit", title="Fruit", description="", task="regression", schema=SCHEMA, build=build,
    primary_metric="r2", gate=Gate(minimum={"r2": 0.8}),
)
"""


@pytest.fixture(autouse=True)
def fruit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """A catalogue with one newly written model, `fruit`."""
    home = tmp_path / "catalogue"
    home.mkdir()
    (home / "fruit.py").write_text(DECLARATION, encoding="utf-8")
    monkeypatch.setattr(catalogue, "HERE", home)
    monkeypatch.setattr(catalogue, "__path__", [str(home)])
    settings.VAR_DIR = tmp_path / "var"
    _forget()
    with threadpool_limits(1):
        yield
    _forget()


def _forget() -> None:
    catalogue.names.cache_clear()
    catalogue.get.cache_clear()
    for name in ("fruit", "basket"):
        sys.modules.pop(f"training.catalogue.{name}", None)


def fruit_csv(path: Path, *, noise: float = 0.0, bad: int = 0, rows: int = 80, delimiter: str = ",") -> Path:
    """Fruit whose price follows from weight and colour; the noise is larger than the prices."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["weight", "colour", "price"])
        for number in range(rows):
            weight, red = 100 + number * 37 % 101, number % 2
            price = 2 * weight + 30 * red + noise * ((number * 7919) % 97 - 48)
            writer.writerow([weight, "blue" if number < bad else ("green", "red")[red], f"{price:.1f}"])
    return path


def load(*arguments: str) -> str:
    output = io.StringIO()
    call_command("load_dataset", *arguments, stdout=output)
    return output.getvalue()


def test_a_file_becomes_a_dataset_and_its_dialect_is_printed(tmp_path: Path) -> None:
    output = load("fruit", str(fruit_csv(tmp_path / "rows.csv", delimiter=";")))
    assert "read with delimiter semicolon, decimal point" in output
    dataset = Dataset.objects.get()
    assert (dataset.rows, dataset.registered_model.name) == (80, "fruit")
    assert f"dataset {dataset.sha256[:12]}: 80 rows of fruit" in output
    assert not TrainingRun.objects.exists()


def test_the_command_prints_the_progress_of_a_big_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "PROGRESS_ROWS", 9_000)
    output = load("fruit", str(fruit_csv(tmp_path / "rows.csv", rows=20_000)))
    assert [line for line in output.splitlines() if line.endswith("…")] == [
        "  16,000 rows read …",
        "  20,000 rows read …",
    ]


def test_a_newly_written_model_is_known(tmp_path: Path) -> None:
    assert not RegisteredModel.objects.exists()
    load("fruit", str(fruit_csv(tmp_path / "rows.csv")))
    assert RegisteredModel.objects.filter(name="fruit").exists()


def test_training_shows_stages_metrics_beside_the_baseline_and_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_progress, "WATCH_SECONDS", 0.001)
    output = load("fruit", str(fruit_csv(tmp_path / "rows.csv")), "--train")
    version = ModelVersion.objects.get()
    assert version.status == "candidate"
    assert " %  " in output
    lines = [line.split() for line in output.splitlines()]
    assert ["metric", "version", "1", "baseline"] in lines
    r2 = next(line for line in lines if line[:1] == ["r2"])
    assert [float(cell) for cell in r2[1:]] == pytest.approx(
        [version.metrics["r2"], version.baseline["r2"]], rel=1e-3
    )
    assert "  ok      r2 1 is at least the required 0.8" in output
    assert "version 1 is not active" in output


def test_the_option_activate_activates_the_version_and_the_audit_row_holds_the_reason(tmp_path: Path) -> None:
    path = str(fruit_csv(tmp_path / "rows.csv"))
    output = load("fruit", path, "--train", "--activate", "--reason", "first prices")
    assert "version 1 is active" in output
    audit = Activation.objects.get()
    assert (audit.reason, audit.version.number, audit.overridden) == ("first prices", 1, False)


def test_a_failed_gate_is_reported_with_its_own_exit_code(tmp_path: Path) -> None:
    output = io.StringIO()
    with pytest.raises(CommandError, match="did not pass its gate: it was not activated") as failure:
        call_command(
            "load_dataset", "fruit", str(fruit_csv(tmp_path / "rows.csv", noise=20)), "--train", "--activate",
            stdout=output,
        )  # fmt: skip
    assert failure.value.returncode == 2
    assert "FAILED  r2 " in output.getvalue()
    assert ModelVersion.objects.get().status == "candidate"
    assert not Activation.objects.exists()


def test_append_also_trains_on_the_active_rows_and_shows_the_active_version(tmp_path: Path) -> None:
    load("fruit", str(fruit_csv(tmp_path / "rows.csv")), "--train", "--activate")
    more = fruit_csv(tmp_path / "more.csv", rows=100)
    output = load("fruit", str(more), "--train", "--mode", "append")
    assert ModelVersion.objects.get(number=2).dataset.rows == 180
    assert ["metric", "version", "2", "baseline", "version", "1"] in [
        line.split() for line in output.splitlines()
    ]


def test_a_failed_run_prints_its_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"run \d+ failed: .* too few"):
        load("fruit", str(fruit_csv(tmp_path / "rows.csv", rows=6)), "--train")


def test_a_file_with_bad_rows_is_rejected_and_every_bad_cell_is_named(tmp_path: Path) -> None:
    path = fruit_csv(tmp_path / "rows.csv", bad=2)
    path.write_text(path.read_text(encoding="utf-8") + "x,red\n-1,red,3\n", encoding="utf-8")
    errors = io.StringIO()
    with pytest.raises(
        CommandError, match=r"rows.csv: 4 of 82 rows are invalid; nothing was loaded"
    ) as failure:
        call_command("load_dataset", "fruit", str(path), stdout=io.StringIO(), stderr=errors)
    assert failure.value.returncode == 1
    assert errors.getvalue().splitlines() == [
        "line 2, column colour: 'blue': colour must be one of its levels",
        "line 3, column colour: 'blue': colour must be one of its levels",
        "line 82: the row has 2 cells, the header has 3",
        "line 83, column weight: '-1': weight must be at least 0",
    ]
    assert not Dataset.objects.exists()


def test_only_the_first_hundred_bad_cells_are_printed(tmp_path: Path) -> None:
    errors = io.StringIO()
    path = fruit_csv(tmp_path / "rows.csv", rows=150, bad=120)
    with pytest.raises(CommandError, match="120 of 150"):
        call_command("load_dataset", "fruit", str(path), stdout=io.StringIO(), stderr=errors)
    lines = errors.getvalue().splitlines()
    assert len(lines) == 101
    assert lines[-1] == "… only the first 100 faults are shown"


def test_skip_bad_writes_bad_rows_with_their_reasons_beside_the_file(tmp_path: Path) -> None:
    path = fruit_csv(tmp_path / "rows.csv", bad=3)
    output = load("fruit", str(path), "--skip-bad")
    refused = tmp_path / "rows.refused.csv"
    assert f"3 bad rows set aside in {refused}" in output
    with refused.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["line", "reasons", "weight", "colour", "price"]
    assert rows[1][:2] == ["2", "not_a_level: colour must be one of its levels"]
    assert rows[1][3] == "blue"
    assert Dataset.objects.get().rows == 77


def test_rows_without_a_target_are_counted_and_left_out_on_request(tmp_path: Path) -> None:
    path = fruit_csv(tmp_path / "rows.csv")
    path.write_text(path.read_text(encoding="utf-8") + "120,red,\n130,green,\n", encoding="utf-8")
    with pytest.raises(
        CommandError, match=r"2 of 82 rows are invalid .2 rows without a target: .*--skip-unlab"
    ):
        load("fruit", str(path))
    assert "2 rows without a target left out" in load("fruit", str(path), "--skip-unlabelled")
    dataset = Dataset.objects.get()
    assert dataset.rows == 80
    assert dataset.source == "rows.csv (delimiter comma, decimal point, 2 rows without a target left out)"


def test_a_file_of_another_encoding_with_thousands_is_loaded_with_options(tmp_path: Path) -> None:
    rows = "".join(f"{n}.{n:03d};{('green', 'red')[n % 2]};{n}\n" for n in range(1, 41))
    (tmp_path / "rows.csv").write_bytes(f"weight;colour;price\n{rows}".encode("utf-16"))
    with pytest.raises(CommandError, match=r"UTF-16.*--encoding utf-16; nothing was loaded"):
        load("fruit", str(tmp_path / "rows.csv"))
    with pytest.raises(CommandError, match=r"'1\.001' in column 'weight'.*--thousands \."):
        load("fruit", str(tmp_path / "rows.csv"), "--encoding", "utf-16")
    output = load("fruit", str(tmp_path / "rows.csv"), "--encoding=utf-16", "--thousands=.")
    assert "read with delimiter semicolon, decimal comma, thousands point, encoding utf-16" in output
    from training import artifacts
    from vigia_ml.fitting import parquet

    with artifacts.dataset_file(Dataset.objects.get()) as file:
        frame = parquet.read_frame(file, catalogue.get("fruit").schema)
    assert frame["weight"].head(2).tolist() == [1001, 2002]


def test_skip_bad_leaves_no_file_when_no_row_is_bad(tmp_path: Path) -> None:
    output = load("fruit", str(fruit_csv(tmp_path / "rows.csv")), "--skip-bad")
    assert "no bad rows" in output
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["rows.csv"]
    assert not list(tmp_path.glob(".refused*"))


def test_bad_rows_go_to_the_var_directory_when_the_files_directory_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = csv_files.temporary_file

    def refuse(directory: Path) -> Any:
        # Root can write to a read-only directory, so the test raises the error itself.
        if directory == tmp_path:
            raise PermissionError(directory)
        return make(directory)

    monkeypatch.setattr(csv_files, "temporary_file", refuse)
    output = load("fruit", str(fruit_csv(tmp_path / "rows.csv", bad=1)), "--skip-bad")
    refused = tmp_path / "var" / "rows.refused.csv"
    assert f"1 bad rows set aside in {refused}" in output
    assert len(refused.read_text(encoding="utf-8").splitlines()) == 2


def test_bad_rows_need_no_var_directory_when_the_files_directory_is_writable(
    tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "file").touch()
    settings.VAR_DIR = tmp_path / "file" / "var"  # cannot be created
    load("fruit", str(fruit_csv(tmp_path / "rows.csv", bad=1)), "--skip-bad")
    assert (tmp_path / "rows.refused.csv").exists()


def test_a_file_of_bad_rows_is_set_aside_and_loads_nothing(tmp_path: Path) -> None:
    path = fruit_csv(tmp_path / "rows.csv", rows=5, bad=5)
    with pytest.raises(CommandError, match="no usable row"):
        load("fruit", str(path), "--skip-bad")
    assert len((tmp_path / "rows.refused.csv").read_text(encoding="utf-8").splitlines()) == 6
    assert not Dataset.objects.exists()


def test_a_gzipped_file_and_a_name_in_the_data_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fruit_csv(tmp_path / "rows.csv").read_bytes()
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(plain))
    monkeypatch.setenv("VIGIA_DATA_DIR", str(tmp_path))
    load("fruit", "packed.csv.gz")
    assert Dataset.objects.get().rows == 80


def test_a_header_that_does_not_match_is_rejected_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("weight,size,price\n1,2,3\n", encoding="utf-8")
    errors = io.StringIO()
    with pytest.raises(CommandError, match="the header does not match"):
        call_command("load_dataset", "fruit", str(path), stdout=io.StringIO(), stderr=errors)
    assert errors.getvalue().splitlines() == [
        "line 1, column size: 'size' is not a column of this model",
        "line 1, column colour: column 'colour' is missing",
    ]


def test_the_error_for_an_unknown_model_lists_the_known_models(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="unknown model 'vegetables'; models: fruit"):
        load("vegetables", "rows.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--activate"], "--activate needs --train"),
        (["--train", "--reason", "x"], "--reason needs --activate"),
        (["--delimiter", ":"], "is no delimiter"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match=message):
        load("fruit", str(fruit_csv(tmp_path / "rows.csv")), *options)


def test_a_missing_or_truncated_file_is_rejected_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"weight,colour,price\n" * 99)[:40])
    for name in ("nowhere.csv", "torn.csv.gz"):
        with pytest.raises(CommandError):
            load("fruit", str(tmp_path / name))
    assert not Dataset.objects.exists()


def test_a_model_that_startmodel_wrote_is_trained_and_activated_from_the_rows_it_left(tmp_path: Path) -> None:
    rows = fruit_csv(tmp_path / "rows.csv", rows=200)
    call_command("startmodel", "basket", str(rows), "--target", "price", stdout=io.StringIO())
    _forget()
    output = load("basket", str(tmp_path / "var" / "first-data" / "basket.csv"), "--train", "--activate")
    assert "version 1 is active" in output
    version = ModelVersion.objects.get()
    assert version.dataset_schema.names == ("weight", "colour")
    assert version.metrics["r2"] > 0.9


def test_training_loading_and_predictions_agree_about_missing_words_and_signs(
    tmp_path: Path, post: Post
) -> None:
    """The written file declares what was detected, so later CSVs and JSON are read like the first CSV."""
    path = tmp_path / "rows.csv"
    lines = ["price;rooms;sold"]
    for n in range(150):
        price = "NA" if n % 5 == 0 else f"1.{n:03d},50 €"
        lines.append(f"{price};{n * 37 % 11};{'?' if n % 10 == 9 else 'yes' if n * 37 % 11 > 5 else 'no'}")
    path.write_text("\n".join(lines), encoding="utf-8")
    call_command(
        "startmodel", "basket", str(path), "--target=sold", "--skip-unlabelled", stdout=io.StringIO()
    )
    _forget()
    first = tmp_path / "var" / "first-data" / "basket.csv"
    output = load("basket", str(first), "--train", "--activate")
    assert "135 rows of basket" in output
    assert "dataset" in load("basket", str(path), "--skip-unlabelled")
    assert Dataset.objects.count() == 1, "the file and startmodel's copy hold the same rows"
    address = "/api/v1/models/basket/predictions/"
    by_csv = post(address, "price;rooms\nNA;7\n1.149,50 €;2\n;7\n", "text/csv")
    by_json = post(address, [{"price": "NA", "rooms": 7}, {"price": 1149.5, "rooms": 2}, {"rooms": 7}])
    answers = [[row["probability"] for row in values.json()["predictions"]] for values in (by_csv, by_json)]
    assert answers[0] == answers[1]
    assert answers[0][0] == answers[0][2] > answers[0][1]


def test_training_loading_and_predictions_agree_about_a_line_break_within_a_name(
    tmp_path: Path, post: Post
) -> None:
    """Windows, other systems and HTML forms write the break differently; it is the same name."""
    cells = [f"{n},{n * 37 % 11},{2 * (n * 37 % 11) + n * n % 7}.5" for n in range(120)]
    path = tmp_path / "rows.csv"
    path.write_bytes("\r\n".join(['"0\r\n0",size,"to\r\npay"', *cells]).encode())
    options = ["--target=to\r\npay", "--keep", "0\r\n0", "--null=0\r\n0=-1"]
    call_command("startmodel", "basket", str(path), *options, stdout=io.StringIO())
    _forget()
    assert "version 1 is active" in load("basket", str(path), "--train", "--activate")
    for line_break in ("\r\n", "\n", "\r"):
        header = f'"0{line_break}0",size,"to{line_break}pay"'
        other = tmp_path / "other.csv"
        other.write_bytes("\n".join([header, *cells]).encode())
        load("basket", str(other))
        assert Dataset.objects.count() == 1, "the same rows under the same names"
        run = post("/api/v1/models/basket/training-runs/", other.read_bytes(), "text/csv")
        assert run.status_code == 202, run.content
        address = "/api/v1/models/basket/predictions/"
        by_csv = post(address, f"{header}\n7,3,1\n", "text/csv")
        by_json = post(address, {f"0{line_break}0": 7, "size": 3, f"to{line_break}pay": 1})
        by_form = post(address, "0%0D%0A0=7&size=3", "application/x-www-form-urlencoded")
        answers = [reply.json() for reply in (by_csv, by_json, by_form)]
        assert len({answer["predictions"][0]["prediction"] for answer in answers}) == 1, answers
