"""`vigiactl` against a real server: files in, files out, tables, JSON and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from typer.testing import CliRunner, Result

from predictions.models import Batch, Outcome, Prediction
from tests.predictions.exports.test_export_log import DAY, HOUR, NEXT, ids_in, in_order, logged
from tests.server import ROOT, Server
from tests.trained import SAMPLES, train_sample
from tests.vigia_ml.client.conftest import Working, address
from training.access import client_keys
from training.models import ModelVersion, TrainingRun
from vigia_ml.cli.app import app
from vigia_ml.cli.files import moment, neutral
from vigia_ml.client import settings

Run = Callable[..., Result]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def environment(
    server: Server,
    churn: ModelVersion,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """The environment of a person who is logged in by VIGIA_URL and VIGIA_KEY."""
    found = {"VIGIA_URL": address(server), "VIGIA_KEY": key, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Returns a function that runs a command and asserts its exit code."""
    runner = CliRunner()

    def call(*arguments: object, code: int = 0, stdin: str | bytes | None = None) -> Result:
        result = runner.invoke(app, [str(each) for each in arguments], input=stdin)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert environment["VIGIA_KEY"] not in result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of ten customers with the course's header, in a German spreadsheet's dialect."""
    with (SAMPLES / "churn.csv").open(encoding="utf-8") as stream:
        lines = [row for row, _ in zip(csv.DictReader(stream), range(10), strict=False)]
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(lines[0]), delimiter=";")
        writer.writeheader()
        for row in lines:
            writer.writerow({name: text.replace(".", ",") for name, text in row.items()})
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_batch_scores_a_file_and_writes_results_and_faults(
    run: Run, rows: Path, working: Working, tmp_path: Path
) -> None:
    out, faults = tmp_path / "results.csv", tmp_path / "errors.csv"
    with working():
        result = run("batch", "churn", rows, "--out", out, "--errors", faults)
    assert "10 rows written" in result.stderr
    assert "succeeded" in result.stdout
    batch = Batch.objects.get()
    logged = {str(row.id): row for row in Prediction.objects.filter(batch_id=batch.pk)}
    assert {line["id"]: float(line["probability"]) for line in table(out)} == {
        name: row.probability for name, row in logged.items()
    }
    assert table(faults) == []
    lines = rows.read_text().splitlines()
    cells = lines[3].split(";")
    cells[lines[0].split(";").index("tenure")] = "many"
    rows.write_text("\n".join([*lines[:3], ";".join(cells), *lines[4:]]) + "\n")
    with working():
        result = run("batch", "churn", rows, "--out", tmp_path / "r.parquet", "--errors", faults, code=6)
        stopped = run("batch", "churn", rows, "--on-invalid", "stop", "--errors", faults, code=3)
    assert [(line["row"], line["column"]) for line in table(faults)] == [("2", "tenure")]
    assert "row 2" in result.stdout
    assert "tenure must be a whole number" in stopped.stderr
    assert (tmp_path / "r.parquet").read_bytes()[:4] == b"PAR1"


def test_a_batch_need_not_be_waited_for(run: Run, rows: Path, working: Working, tmp_path: Path) -> None:
    queued = json.loads(run("batch", "churn", "-", "--no-wait", "--json", stdin=rows.read_bytes()).stdout)
    assert (queued["status"], queued["format"]) == ("queued", "csv")
    run("batches", "churn", queued["id"], "--out", tmp_path / "out.csv", code=1)
    with working():
        run("batch", "churn", rows, "--version", 1)
    [second, first] = json.loads(run("batches", "churn", "--json").stdout)
    assert first["id"] == queued["id"]
    assert (first["scored"], second["scored"]) == (10, 10)
    assert run("batches", "churn").stdout.count("succeeded") == 2
    out = tmp_path / "out.csv"
    run("batches", "churn", first["id"], "--out", out)
    assert len(table(out)) == 10
    assert "already_finished" in run("batches", "churn", first["id"], "--cancel", code=1).stderr


def test_wrong_usage_of_batches_is_said_before_anything_is_sent(run: Run, rows: Path) -> None:
    for arguments in (
        ("batch", "churn", rows, "--no-wait", "--out", "x.csv"),
        ("batch", "churn", rows, "--out", "x.json"),
        ("batch", "churn", rows, "--on-invalid", "ignore"),
        ("batches", "churn", "--cancel"),
    ):
        run(*arguments, code=2)
    run("batch", "churn", "none.csv", code=1)
    run("batch", "churn", "rows.csv", "--location", "nightly", code=1)
    assert not Batch.objects.exists()


def test_a_csv_is_answered_into_a_csv(run: Run, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = run("predict", "churn", rows, "-o", out, "--batch-size", 3)
    assert "10 rows answered" in result.stderr
    written = table(out)
    logged = {str(row.id): row for row in Prediction.objects.all()}
    assert {row["id"] for row in written} == set(logged)
    for row in written:
        assert float(row["probability"]) == logged[row["id"]].probability
        assert row["prediction"] == str(logged[row["id"]].prediction).lower()
        assert float(row["monthlycharges"]) == logged[row["id"]].inputs["monthlycharges"]
        assert row["_key"] == logged[row["id"]].key
        assert row["error"] == ""
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_other_formats_hold_the_same_answers(
    run: Run,
    rows: Path,
    tmp_path: Path,
    customers: Callable[[int], list[dict[str, Any]]],
    ending: str,
) -> None:
    import pandas as pd

    out = tmp_path / f"out.{ending}"
    given = customers(5)
    source = tmp_path / ("rows.jsonl" if ending == "jsonl" else "rows.json")
    if ending == "jsonl":
        source.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    else:
        source.write_text(json.dumps(given))
    run("predict", "churn", source, "-o", out)
    if ending == "parquet":
        written = pd.read_parquet(out).to_dict("records")
    else:
        written = pd.read_json(out, lines=ending == "jsonl").to_dict("records")
    assert [row["_key"] for row in written] == [f"c-{index}" for index in range(5)]
    logged = {str(row.id): row.probability for row in Prediction.objects.all()}
    assert {row["id"]: row["probability"] for row in written} == pytest.approx(logged)


def test_standard_input_and_output(run: Run, rows: Path) -> None:
    result = run("predict", "churn", "-", stdin=rows.read_bytes())
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == 10
    lines = run("predict", "churn", "-", "--json", stdin=rows.read_bytes()).stdout.splitlines()
    assert [json.loads(line)["version"] for line in lines] == [1] * 10


def test_invalid_rows_are_written_with_their_fault(run: Run, rows: Path, tmp_path: Path) -> None:
    lines = rows.read_text().splitlines()
    cells = lines[3].split(";")
    cells[lines[0].split(";").index("tenure")] = "many"
    lines[3] = ";".join(cells)
    rows.write_text("\n".join([*lines[:6], "only;two", *lines[6:]]) + "\n")
    out = tmp_path / "out.csv"
    result = run("predict", "churn", rows, "-o", out, code=6)
    assert "9 of 11 rows answered" in result.stderr
    written = table(out)
    assert [bool(row["error"]) for row in written] == [place in (2, 5) for place in range(11)]
    assert "tenure must be a whole number" in written[2]["error"]
    assert written[2]["tenure"] == "many"
    assert written[2]["id"] == ""
    assert Prediction.objects.count() == 9
    strict = tmp_path / "strict.csv"
    run("predict", "churn", rows, "-o", strict, "--strict", code=1)
    assert not strict.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_faults_that_only_the_service_finds_are_written_too(run: Run, tmp_path: Path, customer: Any) -> None:
    source, out = tmp_path / "rows.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([customer, customer | {"tenure": -1}, customer | {"age": 3}]))
    run("predict", "churn", source, "-o", out, code=6)
    good, low, unknown = map(json.loads, out.read_text().splitlines())
    assert good["error"] is None
    assert "tenure" in low["error"]
    assert "age is not a field" in unknown["error"]


def test_a_command_that_is_repeated_with_its_key_logs_nothing_twice(run: Run, rows: Path) -> None:
    command = [
        "predict",
        "churn",
        rows,
        "--batch-size",
        1,
        "--concurrency",
        2,
        "--idempotency-key",
        "night-7",
    ]
    first = run(*command).stdout
    assert run(*command).stdout == first
    assert Prediction.objects.count() == 10


def test_a_column_may_be_the_key(run: Run, tmp_path: Path) -> None:
    lines = (SAMPLES / "cars.csv").read_text().splitlines()[:4]
    path = tmp_path / "cars.csv"
    path.write_text("\n".join([f"{lines[0]},plate", *(f"{line},P-{n}" for n, line in enumerate(lines[1:]))]))
    train_sample("cars", rows=600)
    run("predict", "cars", path, code=1)
    out = tmp_path / "out.csv"
    run("predict", "cars", path, "--key-column", "plate", "-o", out)
    assert [row["_key"] for row in table(out)] == ["P-0", "P-1", "P-2"]
    assert "probability" not in table(out)[0]


def test_lists_are_tables_for_people_and_json_for_programs(run: Run) -> None:
    models = run("models").stdout
    assert "NAME" in models
    assert "churn" in models
    assert {each["name"] for each in json.loads(run("models", "--json").stdout)} >= {"churn", "cars"}
    assert "active" in run("versions", "churn").stdout
    assert json.loads(run("versions", "churn", "--json").stdout)[0]["version"] == 1
    shown = run("versions", "churn", 1).stdout
    assert "roc_auc" in shown
    assert "parity" in shown
    assert json.loads(run("versions", "churn", 1, "--json").stdout)["parity"]["passed"] is True
    assert "succeeded" in run("runs", "churn").stdout


def test_activate_and_roll_back(run: Run) -> None:
    train_sample("churn", rows=600, activate=False)
    assert "2" in run("activate", "churn", 2, "--reason", "better").stdout
    assert json.loads(run("rollback", "churn", "-m", "worse", "--json").stdout)["version"] == 1
    failed = {"passed": False, "checks": [{"name": "metric", "passed": False, "message": "too low"}]}
    train_sample("churn", rows=600, activate=False, gate=failed)
    result = run("activate", "churn", 3, "-m", "try", code=3)
    assert "gate" in result.stderr
    run("activate", "churn", 3, "-m", "anyway", "--override")


def test_training_prints_the_version_and_its_gate(run: Run, working: Working) -> None:
    with working():
        result = run("train", "cars", SAMPLES / "cars.csv", "--mode", "replace", "--json")
    trained = json.loads(result.stdout)
    assert (trained["status"], trained["version"], trained["gate"]["passed"]) == ("succeeded", 1, True)
    assert "mae" in run("runs", "cars", trained["id"]).stdout
    with working():  # the metric falls by more than the gate allows
        worse = run("train", "churn", SAMPLES / "churn.csv", "--mode", "replace", code=3)
    assert "did not pass its gate" in worse.stderr
    queued = run("train", "churn", SAMPLES / "churn.csv", "--mode", "replace", "--no-wait", "--json")
    assert json.loads(queued.stdout)["status"] == "queued"


def test_a_failed_run_has_its_own_exit_code(run: Run, tmp_path: Path, working: Working) -> None:
    header, *lines = (SAMPLES / "churn.csv").read_text().splitlines()[:60]
    path = tmp_path / "all-yes.csv"
    path.write_text("\n".join([header, *(f"{line.rpartition(',')[0]},Yes" for line in lines)]))
    with working():
        result = run("train", "churn", path, "--mode", "replace", code=3)
    assert "failed" in result.stderr


def test_the_log_is_written_in_every_format(run: Run, rows: Path, tmp_path: Path) -> None:
    import pandas as pd

    run("predict", "churn", rows)
    ids = [str(row) for row in Prediction.objects.order_by("-id").values_list("id", flat=True)]
    for ending in ("csv", "jsonl", "json", "parquet"):
        out = tmp_path / f"log.{ending}"
        assert "10 rows" in run("log", "churn", "--since", "1d", "-o", out).stderr
        if ending == "parquet":
            read = pd.read_parquet(out)
        else:
            read = pd.read_csv(out) if ending == "csv" else pd.read_json(out, lines=ending == "jsonl")
        assert read["id"].tolist() == ids
    assert len(json.loads(run("log", "churn", "--limit", 4, "--json").stdout)) == 4
    assert ids[0] in run("log", "churn").stdout
    assert run("log", "churn", "--until", "1d", "-o", "-").stdout.strip() == ""


def test_outcomes_quality_and_drift(run: Run, rows: Path, tmp_path: Path) -> None:
    run("predict", "churn", rows)
    lines = [f"{row.id},yes" for row in Prediction.objects.all()]
    path = tmp_path / "outcomes.csv"
    path.write_text("\n".join(["prediction,actual", *lines]))
    assert json.loads(run("outcomes", "churn", path, "--json").stdout)["recorded"] == 10
    assert "repeated" in run("outcomes", "churn", "-", stdin=path.read_bytes()).stdout
    assert Outcome.objects.count() == 10
    assert "10" in run("quality", "churn").stdout
    run("drift", "churn", code=1)
    assert "verdict" in run("drift", "churn", "--since", "2h").stdout
    assert json.loads(run("drift", "churn", "--json").stdout)["rows"] == 10


def test_two_versions_are_compared(run: Run, working: Working) -> None:
    train_sample("churn", rows=600, activate=False)
    with working():
        shown = run("compare", "churn", 1, 2).stdout
    assert "VERSION 2" in shown
    assert "roc_auc" in shown


def test_each_kind_of_error_has_its_exit_code(run: Run, tmp_path: Path, rows: Path) -> None:
    assert "unknown_model" in run("versions", "nothing", code=1).stderr
    run("predict", "churn", tmp_path / "missing.csv", code=1)
    run("predict", "churn", rows.rename(tmp_path / "rows.xyz"), code=2)
    run("activate", "churn", 1, code=2)
    run("nonsense", code=2)
    run("models", "--url", "http://127.0.0.1:9", code=4)
    assert "bad_key" in run("models", "--key", "wrong", code=5).stderr
    error = json.loads(run("versions", "nothing", "--json", code=1).stderr)["error"]
    assert (error["code"], error["status"]) == ("unknown_model", 404)
    clerk = User.objects.create_user("clerk")
    clerk.user_permissions.set(Permission.objects.filter(codename="predict"))
    run("log", "churn", "--key", client_keys.issue(clerk), code=5)


def test_login_asks_and_stores_and_logout_forgets(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, secret = environment["VIGIA_URL"], environment["VIGIA_KEY"]
    for name in ("VIGIA_URL", "VIGIA_KEY"):
        monkeypatch.delenv(name)
    assert "vigiactl login" in run("models", code=5).stderr
    run("login", stdin=f"{url}\nwrong\n", code=5)
    assert settings.read_login() is None, "a login that does not work is not stored"
    assert "churn" in run("login", stdin=f"{url}\n{secret}\n").stderr
    assert settings.login_path().stat().st_mode & 0o777 == 0o600
    assert "churn" in run("models").stdout
    run("logout")
    run("models", code=5)


def test_a_spreadsheet_runs_no_formula_of_the_log(run: Run, customer: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "rows.json", tmp_path / "log.csv"
    source.write_text(json.dumps([customer | {"_key": "=cmd|'/c calc'!A1"}]))
    run("predict", "churn", source)
    run("log", "churn", "-o", out)
    assert table(out)[0]["key"] == "'=cmd|'/c calc'!A1"
    assert [neutral(text) for text in ("a=1", "-x", "\u200b+1", "＝1", "\tx")] == [
        "a=1", "'-x", "'\u200b+1", "'＝1", "'\tx",
    ]  # fmt: skip


def test_times_are_spans_or_iso() -> None:
    import datetime as dt

    found = moment("2h")
    assert isinstance(found, dt.datetime)
    assert abs((dt.datetime.now(dt.UTC) - found).total_seconds() - 7_200) < 5
    assert moment("2026-01-01") == "2026-01-01"
    assert moment(None) is None


@pytest.fixture
def process(environment: dict[str, str]) -> Iterator[list[str]]:
    yield [sys.executable, "-m", "vigia_ml.cli"]


def test_a_real_process_prints_no_traceback_and_ends_with_its_reader(process: list[str], rows: Path) -> None:
    done = subprocess.run(
        [*process, "models", "--url", "http://127.0.0.1:9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith("vigiactl: no connection to http://127.0.0.1:9")
    assert "Traceback" not in done.stderr
    version = subprocess.run([*process, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("vigiactl ")
    shell = " ".join([*process, "predict", "churn", str(rows), "--batch-size", "1"])
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{shell} | head -1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr


def test_ctrl_c_ends_the_waiting_and_not_the_run(process: list[str]) -> None:
    waiting = subprocess.Popen(
        [*process, "train", "churn", str(SAMPLES / "churn.csv"), "--mode", "replace"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stderr is not None
    assert "Ctrl-C ends the waiting" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in out + err
    assert TrainingRun.objects.get(status="queued")


def test_completion_for_the_shell(process: list[str]) -> None:
    done = subprocess.run(
        [*process, "--show-completion", "bash"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


def test_a_terminal_gets_colours_and_its_width(process: list[str]) -> None:
    main, terminal = pty.openpty()
    subprocess.run([*process, "models"], cwd=ROOT, stdout=terminal, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(main, 65536)
    os.close(main)
    assert b"\x1b[1m" in shown
    assert b"churn" in shown


def test_the_log_is_exported_as_a_dataset(
    churn: ModelVersion, run: Run, working: Working, tmp_path: Path
) -> None:
    made = logged(churn, DAY, DAY + HOUR, NEXT)
    with working():
        result = run(
            "export-log", "churn", "--since", f"{DAY:%F}", "--until", f"{NEXT:%F}", "--out", tmp_path
        )
    assert re.search(r"rows +2\b", result.stdout)
    assert ids_in(tmp_path) == in_order(*made[:2])
    run("export-log", "churn", "--since", "soon", "--out", tmp_path, code=1)
    run("export-log", "churn", "--out", tmp_path, code=2)
