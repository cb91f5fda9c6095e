"""`startmodel`: its files are importable, formatted, fitted and answer; its errors have a message."""

from __future__ import annotations

import csv
import gzip
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from training import catalogue
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import compile_pipeline
from vigia_ml.engines.parity import check
from vigia_ml.engines.selection import choose
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.fitting.fit import Fitted
from vigia_ml.scaffold import proposal, source, trial_fit
from vigia_ml.scaffold.csv_survey import CannotInfer, survey
from vigia_ml.schema import DatasetSchema, Instance
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.csv_reader import CsvReader

ROOT = Path(__file__).resolve().parents[3]
RUFF = Path(sys.executable).parent / "ruff"
Rows = list[list[str]]


@dataclass(frozen=True)
class Started:
    """The result of the command: its output, the file, and the declaration in the file."""

    output: str
    path: Path
    declared: ModelDeclaration

    @property
    def schema(self) -> DatasetSchema:
        return self.declared.schema

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


TARGETS = {"wine": "cultivar", "nasty": "gone?", "sales": "total", "bikes": "cnt"}


def start(name: str, file: Path | str, output: Path, *options: str) -> Started:
    stdout = io.StringIO()
    if "--target" not in options:
        options = ("--target", TARGETS.get(name, "y"), *options)
    call_command("startmodel", name, str(file), "--output", str(output), *options, stdout=stdout)
    path = output / f"{name}.py"
    return Started(stdout.getvalue(), path, trial_fit.load_declaration(path))


def fit(declared: ModelDeclaration, file: Path, tmp_path: Path) -> Fitted:
    """Fits the declaration on the CSV as a training run does: reader, dataset file, frame."""
    written = tmp_path / "rows.parquet"
    with file.open("rb") as stream, parquet.DatasetWriter(written, declared.schema) as writer:
        for batch in CsvReader(stream, declared.schema, with_target=True).batches():
            assert not batch.faults
            writer.write_columns(batch.columns, batch.keys)
    return fitting.fit(declared, parquet.read_frame(written, declared.schema))


def ask(fitted: Fitted, *rows: dict[str, Any]) -> Any:
    """Returns scores for JSON rows, through validation and a stored and loaded engine."""
    read = [fitted.schema.read(row) for row in rows]
    assert all(isinstance(each, Instance) for each in read), read
    engine = SklearnEngine(fitted.pipeline, fitted.schema)
    loaded = SklearnEngine.from_bytes(engine.to_bytes(), fitted.schema)
    return loaded.predict([each.values for each in read if isinstance(each, Instance)])


def assert_well_written(path: Path) -> None:
    """Asserts that ruff reports no fault in the file (or directory) and would not format it differently."""
    for command in (["check"], ["format", "--diff"]):
        done = subprocess.run(
            [RUFF, *command, "--no-cache", "--config", "pyproject.toml", path],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()


# -- data of different shapes --------------------------------------------------------------------------


def wine_rows(count: int = 240) -> Rows:
    """Returns a CSV with semicolons, decimal commas, integer class labels 1 to 3 and some blanks."""
    random = np.random.default_rng(3)
    rows = [["fixed acidity", "alcohol", "colour", "cultivar"]]
    for number in range(count):
        kind = number % 3
        acid = "" if number % 17 == 0 else f"{random.normal(6 + kind, 0.8):.2f}".replace(".", ",")
        alcohol = f"{random.normal(12 - kind, 0.7):.1f}".replace(".", ",")
        rows.append([acid, alcohol, ["red", "white", " rosé"][random.integers(0, 3)], str(kind + 1)])
    return rows


NASTY = [
    "class", "_hidden", 'a "quoted" name', "it's", "price (€)", "año nuevo", "x;y", "a b", "a_b", "Name",
    "name", "2nd", '""" + str(1/0) + """', "back\\slash\nand line", "", "价格",
]  # fmt: skip


def nasty_rows(count: int = 200) -> Rows:
    random = np.random.default_rng(4)
    rows = [[*NASTY, "gone?"]]
    for _ in range(count):
        values = random.normal(size=len(NASTY)).round(3)
        level = ["'", '"', "{x}"][random.integers(0, 3)]
        cells = [str(value) for value in values]
        cells[1], cells[2] = level, random.choice(["yes", "no"])
        rows.append([*cells, "Yes" if values[0] + values[4] + random.normal(0, 0.4) > 0 else "No"])
    return rows


def sales_rows(count: int = 300) -> Rows:
    """Returns a CSV with a counter, an identifier, a constant, a date, and two columns that add up to the
    target."""
    random = np.random.default_rng(5)
    rows = [["n", "order", "shop", "day", "temperature", "open", "cash", "card", "note", "total"]]
    for number in range(count):
        warm = random.normal(10, 8)
        cash = round(max(0.0, 50 + 3 * warm + random.normal(0, 5)), 2)
        card = round(max(0.0, 80 + 2 * warm + random.normal(0, 5)), 2)
        rows.append(
            [
                str(number + 1), f"A{(number * 7919) % 9973}", "Madrid", f"2024-{number % 12 + 1:02d}-15",
                f"{warm:.1f}", random.choice(["yes", "no"]), f"{cash}", f"{card}",
                "" if number % 9 == 0 else f"a day of {number} guests and {warm:.0f} degrees",
                f"{cash + card:.2f}",
            ]
        )  # fmt: skip
    return rows


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Limits threads: fits of some hundred rows are slower on many threads, above all beside other tests."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def own_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
    """An empty catalogue and an empty VIGIA_VAR."""
    home = tmp_path / "catalogue"
    home.mkdir()
    monkeypatch.setattr(catalogue, "HERE", home)
    settings.VAR_DIR = tmp_path / "var"
    return home


# -- files that are written, fitted and used -----------------------------------------------------------


def test_labels_in_a_file_with_semicolons_and_decimal_commas_make_a_multiclass_model(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "wine.csv", wine_rows(), ";")
    started = start("wine", file, tmp_path)
    assert "delimiter semicolon, decimal comma" in started.output
    assert "task: multiclass (ambiguous: only 3 whole numbers, 1 to 3, taken for labels" in started.output
    assert started.schema.target.levels == ("1", "2", "3")
    acidity = started.schema.by_name["fixed_acidity"]
    assert (acidity.aliases, acidity.type, acidity.nullable) == (("fixed acidity",), "number", True)
    assert started.schema.by_name["colour"].levels == ("red", "rosé", "white")
    assert_well_written(started.path)

    fitted = fit(started.declared, file, tmp_path)
    assert started.declared.primary_metric == "accuracy", "outcomes say no area of three classes"
    assert fitted.metrics["roc_auc"] > 0.85
    scores = ask(fitted, {"fixed acidity": None, "alcohol": 13.1, "colour": "red"}, started.schema.example)
    assert scores.classes == ["1", "2", "3"]
    assert set(scores.values) <= {"1", "2", "3"}
    assert np.asarray(scores.probabilities).sum(axis=1) == pytest.approx([1, 1])


def test_column_names_that_are_not_identifiers_work_as_aliases_of_clean_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "nasty.csv", nasty_rows())
    started = start("nasty", file, tmp_path)
    schema = started.schema
    assert schema.target.type == "boolean"
    assert (schema.target.name, schema.target.aliases) == ("gone", ("gone?",))
    assert {schema.find(name).name for name in ("a b", "a_b", "Name", "name", "class")} == {  # type: ignore[union-attr]
        "a_b_2", "a_b", "Name", "name", "class",
    }  # fmt: skip
    assert_well_written(started.path)

    fitted = fit(started.declared, file, tmp_path)
    assert fitted.metrics["roc_auc"] > 0.8
    as_in_file = dict.fromkeys(NASTY, 0.5) | {"_hidden": "{x}", 'a "quoted" name': "yes"}
    scores = ask(fitted, as_in_file, schema.example)
    assert scores.classes == [False, True]


def test_headers_too_long_for_a_column_are_shortened_and_stay_accepted(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    question = "how_often_did_you_" * 12
    header = [f"{question}call", f"{question}write", f"{question}come_back"]
    rows = [header]
    for first, second in random.normal(size=(120, 2)).round(3):
        rows.append([str(first), str(second), str(round(2 * first - second + random.normal(0, 0.1), 3))])
    file = write_csv(tmp_path / "survey.csv", rows)
    started = start("survey", file, tmp_path, "--target", header[2])
    assert started.schema.names == (question[:60], f"{question[:60]}_2")
    assert [column.aliases for column in (*started.schema.columns, started.schema.target)] == [
        (name,) for name in header
    ]
    noted = f"the name has {len(header[0])} characters, which is too long; declared as {question[:60]!r}"
    assert noted in started.output
    assert noted in " ".join(started.text.replace("#", "").split())
    assert_well_written(started.path)
    fitted = fit(started.declared, file, tmp_path)
    low, high = ask(fitted, {header[0]: -1, header[1]: 0}, {question[:60]: 1, header[1]: 0}).values
    assert low < high


def test_identifiers_and_leaks_are_left_out_with_a_reason_and_dates_are_kept(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "sales.csv", sales_rows())
    started = start("sales", file, tmp_path)
    assert started.schema.names == ("day", "temperature", "open", "note")
    assert started.schema.by_name["day"].type == "date"
    assert started.schema.ignored == ("n", "order", "shop", "cash", "card")
    for reason in (
        "a counter: it rises from row to row",
        "an identifier: every row has its own",
        "a constant: every cell is 'Madrid'",
        "gives the target away: cash + card = total in every row",
    ):
        assert reason in started.output
        assert f"# guessed: {reason}" in started.text
    assert "--key order" in started.output
    assert_well_written(started.path)

    fitted = fit(started.declared, file, tmp_path)
    assert fitted.metrics["r2"] > 0.7
    whole_row = {"n": 1, "order": "A1", "shop": "X", "cash": 1, "card": 2, "total": 3}
    features = {"day": "2025-01-31", "temperature": 20.5, "open": True, "note": None}
    low, high = ask(fitted, whole_row | features | {"temperature": 0}, features).values
    assert low < high


def test_keep_drop_and_key_decide_the_role_of_a_column(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "sales.csv", sales_rows(120))
    options = ["--keep", "cash", "day", "--drop", "note", "--key", "order"]
    started = start("sales", file, tmp_path, *options)
    assert started.schema.names == ("day", "temperature", "open", "cash")
    assert started.schema.key == "order"
    assert "note" in started.schema.ignored
    assert_well_written(started.path)
    assert fit(started.declared, file, tmp_path).metrics["r2"] > 0


def review_rows(count: int = 200) -> Rows:
    rng = np.random.default_rng(11)
    words = ["good", "bad", "café", "slow", "the", "room", "5'4", "x", "日本", "not", "great", "noise"]
    rows: Rows = [["review", "stars", "weight", "y"]]
    for number in range(count):
        text = " ".join(rng.choice(words, rng.integers(4, 25)))
        liked = text.count("good") + text.count("great") > text.count("bad") + text.count("noise")
        cell = "" if number % 17 == 5 else text
        rows.append([cell, str(number % 5), str([0, 1, 2.5][number % 3]), "yes" if liked else "no"])
    return rows


def test_free_texts_become_a_text_column_whose_pipeline_compiles_and_answers(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "reviews.csv", review_rows())
    started = start("reviews", file, tmp_path / "out")
    review = started.schema.by_name["review"]
    assert (review.type, review.nullable) == ("text", True)
    assert "TfidfVectorizer(" in started.text
    assert_well_written(started.path)
    fitted = fit(started.declared, file, tmp_path)
    assert fitted.metrics["roc_auc"] > fitted.baseline["roc_auc"]
    features, seed = fitted.train_features, started.declared.seed
    choice = choose(fitted.pipeline, fitted.schema, "binary", features, seed, fitted.threshold)
    assert choice.engine == "onnx", choice.reason
    assert choice.compiled is not None
    rows = [{"review": text, "stars": 3, "weight": 1} for text in ("good great", "Unseen words", None)]
    read = [fitted.schema.read(row) for row in rows]
    compiled = OnnxEngine.from_bytes(choice.compiled, fitted.schema)
    ours = compiled.predict([each.values for each in read if isinstance(each, Instance)]).probabilities
    assert ours is not None
    assert np.allclose(ours, ask(fitted, *rows).probabilities, atol=1e-12)


def test_the_option_weight_declares_a_column_that_weighs_the_rows(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "reviews.csv", review_rows())
    started = start("reviews", file, tmp_path / "out", "--weight", "weight")
    assert started.schema.weight == "weight"
    assert started.schema.names == ("review", "stars")
    assert "WEIGHT" in started.output
    assert_well_written(started.path)
    assert fit(started.declared, file, tmp_path).held_weights is not None
    for name, message in (
        ("review", "must hold a plain number in every row"),
        ("y", "is the target, the key, or dropped"),
        ("wieght", "the CSV has no column 'wieght'"),
    ):
        with pytest.raises(CommandError, match=message):
            start("other", file, tmp_path / "out", "--weight", name)
    light = [row if at == 0 else [*row[:2], "-1", row[3]] for at, row in enumerate(review_rows())]
    with pytest.raises(CommandError, match="numbers of at least 0"):
        start("other", write_csv(tmp_path / "light.csv", light), tmp_path / "out", "--weight", "weight")


def test_the_option_task_overrides_the_inferred_task(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "wine.csv", wine_rows(), ";")
    started = start("wine", file, tmp_path, "--task", "regression")
    assert started.declared.task == "regression"
    assert fit(started.declared, file, tmp_path).metrics["r2"] > 0.5


def test_two_levels_make_a_binary_model_of_the_second_level(tmp_path: Path) -> None:
    rows = [[*row[:3], "good" if row[3] == "3" else "bad"] for row in wine_rows()[1:]]
    file = write_csv(tmp_path / "wine.csv", [["acid", "alcohol", "colour", "verdict"], *rows], ";")
    started = start("wine", file, tmp_path, "--target", "verdict")
    assert started.declared.task == "binary"
    assert "second level, 'good'" in started.text
    assert ask(fit(started.declared, file, tmp_path), started.schema.example).classes == ["bad", "good"]


def test_forty_rows_are_enough_to_train(tmp_path: Path) -> None:
    rows = [[str(i * 7 % 40), str(i % 2)] for i in range(40)]
    rows = [[a, b, str(int(a) * 2 + int(b) * 25)] for a, b in rows]
    file = write_csv(tmp_path / "small.csv", [["a", "b", "y"], *rows])
    started = start("small", file, tmp_path, "--keep", "a")
    assert "min_samples_leaf=2" in started.text
    assert fit(started.declared, file, tmp_path).metrics["r2"] > 0.1


def test_startmodel_warns_that_indistinguishable_classes_fail_the_gate(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    rows = [[f"{random.normal():.3f}", "abc"[random.integers(0, 3)]] for _ in range(300)]
    started = start("noise", write_csv(tmp_path / "noise.csv", [["a", "y"], *rows]), tmp_path)
    assert "a first fit on 300 rows: accuracy 0." in started.output
    assert "WARNING: the gate requires roc_auc 0.6 and accuracy above the baseline" in started.output


def test_a_column_that_predicts_alone_is_kept_and_called_suspicious(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    x = random.normal(size=400)
    rows = [
        [f"{a:.4f}", f"{b:.4f}", f"{a + 0.05 * c:.4f}"]
        for a, b, c in zip(x, *random.normal(size=(2, 400)), strict=True)
    ]
    started = start("near", write_csv(tmp_path / "near.csv", [["a", "b", "y"], *rows]), tmp_path)
    assert started.schema.names == ("a", "b")
    assert "# SUSPICIOUS: alone it predicts the target almost perfectly" in started.text
    assert "SUSPICIOUS" in started.output


# -- missing values, amounts of money, files from elsewhere ---------------------------------------------


def rows_with(column: Any, target: Any = None, count: int = 120) -> Rows:
    """Returns a CSV with a column and a number; the target follows from the number."""
    rows = [["extra", "size", "y"]]
    for number in range(count):
        size = number * 37 % 101
        rows.append(
            [column(number), f"{size}", target(number) if target else f"{2 * size + number * number % 97}.5"]
        )
    return rows


def test_words_for_a_missing_value_do_not_make_numbers_categories(tmp_path: Path) -> None:
    words = ["NA", "n/a", "-", "#N/A", "?"]
    rows = rows_with(lambda n: words[n % 5] if n % 3 else str(n * n % 997))
    started = start("gaps", write_csv(tmp_path / "gaps.csv", rows), tmp_path)
    column = started.schema.by_name["extra"]
    assert (column.type, column.nullable, column.missing) == ("integer", True, tuple(sorted(words)))
    assert "80 of 120 cells are blank or '#N/A', '-', '?', 'NA', …, which count as missing" in started.output
    assert_well_written(started.path)
    fitted = fit(started.declared, tmp_path / "gaps.csv", tmp_path)
    as_word, as_null = ask(fitted, {"extra": "NA", "size": 7}, {"extra": None, "size": 7}).values
    assert as_word == as_null


def test_a_word_that_may_be_a_level_stays_one_until_it_is_declared_missing(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "gaps.csv", rows_with(lambda n: ["None", "Stone", "Brick"][n % 3]))
    started = start("gaps", file, tmp_path)
    assert started.schema.by_name["extra"].levels == ("Brick", "None", "Stone")
    assert "'None' in 40 cells is kept as a text (--null=None reads it as missing)" in started.output
    for option in ("--null=None", "--null=extra=None"):
        declared = start("gaps", file, tmp_path, option, "--force").schema.by_name["extra"]
        assert (declared.levels, declared.nullable, declared.missing) == (("Brick", "Stone"), True, ("None",))


def test_a_number_can_stand_for_a_missing_value_however_it_is_written(tmp_path: Path) -> None:
    rows = rows_with(lambda n: "-200" if n % 5 == 0 else "-200,0" if n % 5 == 1 else f"{n % 29},5")
    rows = [rows[0], *([extra, size, target.replace(".", ",")] for extra, size, target in rows[1:])]
    file = write_csv(tmp_path / "gaps.csv", rows, ";")
    assert "-200 in 48 cells lies far from all others (--null=-200 " in start("gaps", file, tmp_path).output
    started = start("gaps", file, tmp_path, "--null", "-200", "--force")
    column = started.schema.by_name["extra"]
    assert (column.minimum, column.missing) == (0, ("-200", "-200,0"))
    batch = next(CsvReader(io.BytesIO(file.read_bytes()), started.schema, with_target=True).batches())
    assert (batch.columns["extra"][:3], batch.faults) == ([None, None, 2.5], [])
    assert column.from_json(-200) is None


def test_rows_without_a_target_are_counted_and_left_out_on_request(
    own_catalogue: Path, tmp_path: Path
) -> None:
    rows = rows_with(lambda n: str(n * n % 97), lambda n: "NA" if n % 10 == 3 else str(n * 37 % 101 % 2))
    file = write_csv(tmp_path / "gaps.csv", rows)
    command = ["startmodel", "gaps", str(file), "--target", "y"]
    with pytest.raises(CommandError) as refused:
        call_command(*command, stdout=io.StringIO())
    message = str(refused.value)
    assert "12 rows have a blank target 'y' (first on line 5), 'NA' in 12" in message
    assert message.endswith(f"leave them out: startmodel gaps {file} --target y --skip-unlabelled")
    out = io.StringIO()
    call_command(*command, "--skip-unlabelled", stdout=out)
    assert "12 rows without a target are left out" in out.getvalue()
    declared = trial_fit.load_declaration(own_catalogue / "gaps.py")
    assert (declared.task, declared.schema.target.type) == ("binary", "boolean")
    with (tmp_path / "var" / "first-data" / "gaps.csv").open("rb") as stream:
        [batch] = CsvReader(stream, declared.schema, with_target=True).batches()
    assert (batch.seen_rows, batch.faults) == (108, [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["good", "bad", "NA"],
            "holds 'NA' in 40 rows: --null=NA reads it as missing, --task multiclass takes",
        ),
        (["yes", "no", "?"], "40 rows have a blank target"),
        (["1.5", "2.5", "n/a"], "40 rows have a blank target"),
    ],
)
def test_a_word_for_a_missing_value_is_not_a_class(values: list[str], message: str, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "gaps.csv", rows_with(lambda n: str(n * n % 97), lambda n: values[n % 3]))
    with pytest.raises(CommandError, match=re.escape(message)):
        start("gaps", file, tmp_path)


def test_plausible_classes_and_signs_stay_classes(tmp_path: Path) -> None:
    rows = rows_with(lambda n: str(n * n % 97), lambda n: "+-"[n * 37 % 101 > 50])
    assert start("signs", write_csv(tmp_path / "a.csv", rows), tmp_path).schema.target.levels == ("+", "-")
    rows = rows_with(lambda n: str(n * n % 97), lambda n: ["none", "mild", "bad"][n * 37 % 101 // 34])
    started = start("pain", write_csv(tmp_path / "b.csv", rows), tmp_path)
    assert started.schema.target.levels == ("bad", "mild", "none")
    assert "'none' is a class (--null=none: missing)" in started.output


@pytest.mark.parametrize(
    ("written", "signs", "first"),
    [
        (lambda n: f"€{n * 7919 % 99991 + 1000:,}.00", ("€",), 8919.0),
        (lambda n: f"{n * 7919 % 99991 + 1000:_}".replace("_", ".") + ",00 €", ("€",), 8919.0),
        (lambda n: f"R$ {n * 7919 % 99991 + 1000}.50", ("R$",), 8919.5),
        (lambda n: f"{n * 7919 % 97}.5 %", ("%",), 62.5),
        (lambda n: f"({n},250.75)" if n else "0.5", ("()",), -1250.75),
    ],
)  # fmt: skip
def test_amounts_of_money_are_numbers_and_not_identifiers(
    written: Any, signs: tuple[str, ...], first: float, tmp_path: Path
) -> None:
    rows = rows_with(written, lambda n: str(n * 37 % 101))
    file = write_csv(tmp_path / "money.csv", rows, ";")
    started = start("money", file, tmp_path)
    column = started.schema.by_name["extra"]
    assert (column.type, column.signs) == ("number", signs)
    assert_well_written(started.path)
    batch = next(CsvReader(io.BytesIO(file.read_bytes()), started.schema, with_target=True).batches())
    assert (batch.columns["extra"][1], batch.faults) == (first, [])
    assert column.from_json(first) == first


def test_amounts_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    rows = rows_with(lambda n: f"{'$€'[n % 2]}{n * 7919 % 99991}.50")
    assert (
        "numbers with different signs, '$', '€'"
        in start("a", write_csv(tmp_path / "a.csv", rows), tmp_path).output
    )
    rows = rows_with(lambda n: f"{n * 7919 % 97}.5{'%' * (n % 2)}")
    assert "with and without '%'" in start("b", write_csv(tmp_path / "b.csv", rows), tmp_path).output


def test_a_european_file_is_never_divided_by_a_thousand(own_catalogue: Path, tmp_path: Path) -> None:
    rows = rows_with(lambda n: f"{n % 9 + 1}.{n * 37 % 1000:03d}")
    rows = [rows[0], *([extra, size, target.replace(".", ",")] for extra, size, target in rows[1:])]
    file = write_csv(tmp_path / "euro.csv", rows, ";")
    with pytest.raises(CommandError, match=r"column 'extra' holds '1\.000'.*pass --decimal , --thousands \."):
        start("euro", file, tmp_path)
    call_command(
        "startmodel", "euro", str(file), "--target=y", "--decimal=,", "--thousands=.", stdout=io.StringIO()
    )
    declared = trial_fit.load_declaration(own_catalogue / "euro.py")
    assert declared.schema.by_name["extra"].type == "integer"
    with (tmp_path / "var" / "first-data" / "euro.csv").open("rb") as stream:
        [batch] = CsvReader(stream, declared.schema, with_target=True).batches()
    assert batch.columns["extra"][:3] == [1000, 2037, 3074]
    assert batch.columns["y"][:2] == [0.5, 75.5]


def test_a_file_in_the_format_of_the_air_quality_station_is_read(tmp_path: Path) -> None:
    lines = ["Date;Time;CO(GT);NOx(GT);RH;AH;;"]
    for n in range(150):
        co = "-200" if n % 9 == 0 else f"{n % 31 / 10 + 0.7:.1f}".replace(".", ",")
        nox, humid = n * 37 % 400 + 20, f"{30 + n * 37 % 400 / 10:.1f}".replace(".", ",")
        lines.append(
            f"{n % 28 + 1:02d}/03/2004;{n % 24:02d}.00.00;{co};{nox};{humid};0,{7000 + n * 7 % 999};;"
        )
    file = tmp_path / "air.csv"
    file.write_text("\r\n".join([*lines, *[";" * 7] * 20]), encoding="utf-8")
    started = start("air", file, tmp_path, "--target", "RH", "--null=-200", "--keep", "NOx(GT)")
    assert (
        "150 rows, 6 columns; delimiter semicolon, decimal comma, 2 columns without a name" in started.output
    )
    assert "20 blank rows skipped" in started.output
    assert started.schema.find("CO(GT)").missing == ("-200",)  # type: ignore[union-attr]
    assert fit(started.declared, file, tmp_path).schema.names == ("Date", "co_gt", "nox_gt", "AH")


# -- files -----------------------------------------------------------------------------------------------


def test_the_file_joins_the_catalogue_and_the_rows_wait_for_the_next_start(
    own_catalogue: Path, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "wine.csv", wine_rows(), ";")
    call_command("startmodel", "wine", str(file), "--target", "cultivar", stdout=io.StringIO())
    assert [path.name for path in own_catalogue.iterdir()] == ["wine.py"]
    copied = tmp_path / "var" / "first-data" / "wine.csv"
    assert copied.read_bytes() == file.read_bytes()
    assert copied.stat().st_mode & 0o077 == 0
    assert [path.name for path in copied.parent.iterdir()] == ["wine.csv"]


def test_rows_that_need_dialect_options_are_copied_in_a_form_that_needs_none(
    own_catalogue: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(9)
    rows = [
        [f"{n},{m:03d}", f"note; {n % 4}", f"{n},{m:03d}"[::-1]] for n, m in random.integers(1, 999, (60, 2))
    ]
    rows = [["a", "b", "y"], *([a, b, f"{i % 7 + 1},125"] for i, (a, b, _) in enumerate(rows))]
    file = write_csv(tmp_path / "odd.csv", rows, "\t")
    with pytest.raises(CommandError, match="--decimal"):
        call_command("startmodel", "odd", str(file), "--target", "y", stdout=io.StringIO())
    options = ["--decimal", ",", "--delimiter", "tab", "--task", "regression"]
    call_command("startmodel", "odd", str(file), "--target", "y", *options, stdout=io.StringIO())
    declared = trial_fit.load_declaration(own_catalogue / "odd.py")
    copied = tmp_path / "var" / "first-data" / "odd.csv"
    with copied.open("rb") as stream:
        reader = CsvReader(stream, declared.schema, with_target=True)
        batch = next(reader.batches())
    assert reader.dialect.described == "delimiter comma, decimal point"
    assert batch.columns["a"] == [float(row[0].replace(",", ".")) for row in rows[1:]]
    assert batch.columns["b"][0] == rows[1][1]


def test_a_gzipped_file_is_read_and_copied_unpacked(own_catalogue: Path, tmp_path: Path) -> None:
    plain = write_csv(tmp_path / "wine.csv", wine_rows(), ";").read_bytes()
    packed = tmp_path / "wine.csv.gz"
    packed.write_bytes(gzip.compress(plain))
    call_command("startmodel", "wine", str(packed), "--target", "cultivar", stdout=io.StringIO())
    assert (tmp_path / "var" / "first-data" / "wine.csv").read_bytes() == plain


def test_an_existing_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "wine.csv", wine_rows(90), ";")
    (tmp_path / "wine.py").write_text("mine", encoding="utf-8")
    with pytest.raises(CommandError, match="--force"):
        start("wine", file, tmp_path)
    assert (tmp_path / "wine.py").read_text(encoding="utf-8") == "mine"
    assert start("wine", file, tmp_path, "--force").declared.name == "wine"


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Wine", "1wine", "wine-2", "_wine", "class", "w" * 51, "wine\n", "../wine", ""]
)
def test_a_name_that_cannot_be_served_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"is not a valid name|is a keyword"):
        call_command("startmodel", name, "x.csv", "--target=y", "--output", str(tmp_path))


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (lambda rows: rows, "Cultivar", "did you mean 'cultivar'"),
        (lambda rows: rows, "quality", "no column 'quality'; it has 'fixed acidity'"),
        (lambda rows: rows[:20], "cultivar", "19 rows are too few"),
        (lambda rows: [rows[0], *([*row[:3], "1"] for row in rows[1:])], "cultivar", "in every row"),
        (
            lambda rows: [*rows[:8], [*rows[8][:3], " "], [*rows[9][:3], ""], *rows[10:]],
            "cultivar",
            r"2 rows have a blank target 'cultivar' \(first on line 9\)",
        ),
        (lambda rows: [[row[3], row[3]] for row in rows], "cultivar", "two columns are called"),
        (lambda rows: [[row[3], "x" + row[3]] for row in rows], "cultivar", "no column is left"),
    ],
)
def test_unusable_data_are_rejected_with_a_message(
    change: Any, target: str, message: str, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "wine.csv", change(wine_rows()), ";")
    with pytest.raises(CommandError, match=message):
        call_command(
            "startmodel",
            "wine",
            str(file),
            "--target",
            target,
            "--output",
            str(tmp_path),
            stdout=io.StringIO(),
        )
    assert not (tmp_path / "wine.py").exists()


def test_a_missing_file_is_reported_with_every_path_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIA_DATA_DIR", str(tmp_path))
    with pytest.raises(CommandError, match=f"no file nowhere.csv or {tmp_path}/nowhere.csv"):
        start("wine", "nowhere.csv", tmp_path, "--target", "y")


# -- any names, any levels -----------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30).map(
    str.strip
)
headers = st.lists(texts, min_size=3, max_size=6, unique_by=lambda name: name.casefold())


def test_any_names_and_levels_give_a_file_that_compiles_to_the_proposed_schema(tmp_path: Path) -> None:
    @settings(max_examples=40, deadline=None)
    @example(["0", "a", "0\r\n0"], ["x", "y"], 1)  # a line break within the target's name
    @given(
        headers, st.lists(texts.filter(bool), min_size=2, max_size=12, unique=True), st.sampled_from([1, 8])
    )
    def holds(header: list[str], levels: list[str], times: int) -> None:
        rows = [header]
        for number in range(60):
            cells = [levels[number * (place + 3) % 7 % len(levels)] * times for place in range(len(header))]
            rows.append([str(number * number % 101), *cells[1:-1], f"{number % 13}.5"])
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(rows)
        wishes = proposal.Wishes(header[-1], keep=frozenset(header[:-1]))
        try:
            seen = survey(io.BytesIO(stream.getvalue().encode()), Told(delimiter=","))
            proposed = proposal.propose("any", seen, wishes)
        except CannotInfer as refusal:
            known = ("two columns", "_key", "looks like a row of data", "NUL", "is blank")
            assert any(words in str(refusal) for words in known), refusal
            return
        text = source.render(proposed, "any\nfile.csv")
        (tmp_path / f"written_{len(list(tmp_path.iterdir()))}.py").write_text(text, encoding="utf-8")
        names: dict[str, Any] = {}
        exec(compile(text, "any.py", "exec"), names)
        schema: DatasetSchema = names["SCHEMA"]
        assert schema == proposed.schema
        assert DatasetSchema.from_json(schema.to_json()) == schema
        assert isinstance(schema.read(schema.example), Instance)
        assert all(schema.role(name) != "unknown" for name in header)

    holds()
    assert_well_written(tmp_path)


def dated_rows(form: str, count: int = 240) -> Rows:
    """Returns a CSV whose target depends on the month of one date and the hour of a time."""
    random = np.random.default_rng(6)
    rows = [["bought", "seen at", "size", "price"]]
    for _ in range(count):
        bought = datetime(2020, 1, 1) + timedelta(days=int(random.integers(0, 1500)))
        seen = datetime(2020, 1, 1) + timedelta(minutes=int(random.integers(0, 1500 * 1440)))
        size = random.normal()
        price = 10 * bought.month + seen.hour + size
        written = "" if random.random() < 0.05 else bought.strftime(form)
        rows.append([written, seen.isoformat(" "), f"{size:.2f}", f"{price:.2f}"])
    return rows


@pytest.mark.parametrize(
    ("form", "declared"),
    [("%Y-%m-%d", ""), ("%d/%m/%Y", "%d/%m/%Y"), ("%m/%d/%y", "%m/%d/%y"), ("%d.%m.%Y", "%d.%m.%Y"),
     ("%d-%b-%Y", "%d-%b-%Y"), ("%Y%m%d", "%Y%m%d")],
)  # fmt: skip
def test_dates_become_columns_in_the_form_of_the_file(form: str, declared: str, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "dated.csv", dated_rows(form))
    started = start("dated", file, tmp_path, "--target", "price")
    bought, seen_at, _ = started.schema.columns
    assert (bought.type, bought.format, bought.nullable) == ("date", declared, True)
    assert (seen_at.type, seen_at.format, seen_at.aliases) == ("datetime", "", ("seen at",))
    assert "# guessed: dates from 2020-01-0" in started.text
    assert_well_written(started.path)
    fitted = fit(started.declared, file, tmp_path)
    assert fitted.metrics["r2"] > 0.9
    row = {"bought": "2023-02-05", "seen at": "2023-02-05T04:00:00Z", "size": 0}
    low, high = ask(fitted, row, row | {"bought": "2023-11-05T00:00:00.000Z"}).values
    assert low < 50
    assert high > 100
    compiled = compile_pipeline(fitted.pipeline, fitted.schema, "regression")
    engine = OnnxEngine.from_bytes(compiled, fitted.schema)
    parity = check(fitted.pipeline, engine, fitted.schema, fitted.train_features, "regression", 1, 500)
    assert parity.passed, parity.reason


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (
            ["03/04/2020", "05/06/2021"],
            "dates such as '03/04/2020' that may be written as %d/%m/%Y or %m/%d/%Y",
        ),
        (["14.06.2021", "14/06/2021"], "dates in several forms, such as '14.06.2021'"),
    ],
)
def test_dates_with_two_readings_are_left_out_with_the_reason(
    cells: list[str], reason: str, tmp_path: Path
) -> None:
    rows = [
        ["day", "size", "price"],
        *([cells[n % 2], str(n * 37 % 101), str(n * 37 % 11)] for n in range(60)),
    ]
    started = start("unclear", write_csv(tmp_path / "unclear.csv", rows), tmp_path, "--target", "price")
    assert started.schema.ignored == ("day",)
    assert reason in started.output


# -- published data ------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_bicycles_lose_their_leaks_and_are_still_predicted(data_dir: Path, tmp_path: Path) -> None:
    started = start("bikes", "bike_hour.csv", tmp_path, "--target", "cnt")
    assert started.schema.ignored == ("instant", "casual", "registered")
    for line in (
        "instant     LEFT OUT         a counter: it rises from row to row",
        "dteday      date             dates from 2011-01-01 to 2012-12-31; later ones have no training rows",
        "casual      LEFT OUT         gives the target away: casual + registered = cnt in every row",
        "registered  LEFT OUT         gives the target away: casual + registered = cnt in every row",
    ):
        assert line in started.output
    fitted = fit(started.declared, data_dir / "bike_hour.csv", tmp_path)
    assert fitted.metrics["r2"] > 0.9
    assert ask(fitted, started.schema.example).values[0] > 0
