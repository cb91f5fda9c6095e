"""The whole service, started by the README's first command and used as by a client."""

from __future__ import annotations

import csv
import http.client
import io
import json
import math
import os
import random
import re
import shlex
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.e2e.service import ROOT, Service
from tests.server import Asker, Clients

pytestmark = pytest.mark.e2e

FORM = {
    "latitud": 40.42, "longitud": -3.7, "superficie_construida": 90, "baños": 2, "habitaciones": 3,
    "jardin": False, "antiguedad": 20, "superficie_util": 80, "ascensor": True, "garaje": False,
    "condicion": "Reformado",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("service"))
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="module")
def first_start(service: Service) -> float:
    """Interrupts two starts during the training of first versions, by Ctrl-C and by kill -9 of the
    supervisor, and completes the third; returns its seconds."""
    for end in (service.stop, lambda: os.kill(supervisor(service), signal.SIGKILL)):
        service.begin()
        service.wait_until(lambda: is_training(service), 300)
        service.look()
        end()
        assert service.process is not None
        service.process.wait(timeout=40)
    service.interrupted = service.seen
    return service.start()


def is_training(service: Service) -> bool:
    """Returns whether a run is running; the table of runs may not exist yet."""
    with suppress(OSError, psycopg.Error, KeyError):
        return bool(service.sql("SELECT FROM training_trainingrun WHERE status = 'running'"))
    return False


def supervisor(service: Service) -> int:
    match = re.match(r"pid (\d+)", (service.var / "lock").read_text(encoding="utf-8"))
    assert match
    return int(match[1])


def test_a_start_continues_interrupted_starts_and_trains_each_model_once(
    service: Service, first_start: float
) -> None:
    printed = service.printed()
    assert [process.pid for process in service.interrupted if alive(process)] == []
    assert re.search(r"Ending processes that an earlier run left behind: .*bootstrap", printed)
    assert "waiting for training run" not in printed, "no process holds the run"
    runs = service.sql("SELECT registered_model_id, status, stage, error, log_tail FROM training_trainingrun")
    assert [run for run in runs if run[1] != "succeeded"] == []
    assert len({run[0] for run in runs}) == len(runs)
    assert not re.search(r"^\d\d:\d\d:\d\d web", printed[: printed.index("Vigía is up")], re.MULTILINE)


def test_killed_and_frozen_processes_are_restarted_while_predictions_continue(
    service: Service, first_start: float
) -> None:
    """The test kills each process of the Procfile and a worker's child, and stops a worker (SIGSTOP)."""
    before, servers = service.recorded(), {"postgres", "valkey"}
    background = before.keys() - servers - {"web"}
    with service.client() as client:
        example = client.get("/api/v1/models/churn/").json()["example"]
    key = (service.var / "client-key").read_text(encoding="utf-8").strip()
    load = Clients(Asker(service.port), key, "/api/v1/models/churn/predictions/", [example], number=2)

    def await_line(line: str, times: int = 1) -> None:
        service.wait_until(lambda: service.printed().count(line) >= times)

    def is_back(name: str, than: dict[str, int]) -> None:
        service.wait_until(lambda: service.recorded().get(name, than[name]) != than[name])

    await_line(" ready.", len(background - {"beat", "events"}))  # these print no such line
    with load as clients:
        clients.await_answers(20)
        pool = wait_for_child(before["worker"])
        pool.kill()
        service.wait_until(lambda: wait_for_child(before["worker"]) != pool)
        for name in background:
            os.kill(before[name], signal.SIGKILL)
        for name in background:
            await_line(f"{name} was ended by SIGKILL; starting it again in 0.5 s")
            is_back(name, before)
        between = service.recorded()
        os.kill(between["worker"], signal.SIGSTOP)
        await_line("worker has been stopped for more than 10 s: killing it")
        is_back("worker", between)
        clients.await_answers(20)
    assert (clients.others, clients.broken) == ([], 0)
    workers = psutil.Process(before["web"]).children()
    os.kill(before["web"], signal.SIGKILL)
    await_line("web was ended by SIGKILL; starting it again in 0.5 s")
    is_back("web", before)
    # They answer until they notice that their master is gone.
    service.wait_until(lambda: not any(alive(process) for process in workers))
    with service.client() as client:
        service.wait_until(lambda: answers(client, "/healthz/ready"))
    assert {name: service.recorded()[name] for name in servers} == {name: before[name] for name in servers}


def wait_for_child(pid: int) -> psutil.Process:
    """Returns the process of a worker's pool."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for child in psutil.Process(pid).children():
            if alive(child):
                return child
        time.sleep(0.1)
    raise AssertionError("the worker has no child")


def answers(client: httpx.Client, path: str) -> bool:
    with suppress(httpx.HTTPError):
        return client.get(path).status_code == 200
    return False


def car_rows() -> list[dict[str, Any]]:
    """Returns rows of the published file if it exists, else of the sample."""
    data_dir = os.environ.get("VIGIA_DATA_DIR")
    path = Path(data_dir) / "cardekho.csv" if data_dir else ROOT / "training" / "samples" / "cars.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    random.Random(1).shuffle(rows)
    for row in rows:
        row.update({name: int(row[name]) for name in ("year", "km_driven", "selling_price")})
    return rows[:1500]


def test_the_printed_command_makes_a_prediction(service: Service, first_start: float) -> None:
    printed = service.printed()
    command = re.search(r"^curl .*?'\{.*?\}'$", printed, re.MULTILINE | re.DOTALL)
    assert command, printed[-3000:]
    done = subprocess.run(
        shlex.split(command[0].replace("\\\n", " ")), capture_output=True, text=True, check=True
    )
    answered = json.loads(done.stdout)
    assert answered["model"] == "churn"
    assert 0 < answered["predictions"][0]["probability"] < 1
    key = service.var / "client-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "password" in printed


def test_every_model_answers_its_own_example_and_logs_it(service: Service, first_start: float) -> None:
    with service.client() as client:
        models = client.get("/api/v1/models/").json()
        assert {model["name"] for model in models} >= {
            "churn",
            "cars",
            "cars_v3",
            "houses",
            "bikes",
            "movies",
        }
        for model in models:
            assert model["active_version"] == 1, model["name"]
            answer = client.post(model["asked_at"], json=model["example"]).raise_for_status().json()
            prediction = answer if model["name"] == "movies" else answer["predictions"][0]
            row = client.get(f"/api/v1/predictions/{prediction['id']}/").raise_for_status().json()
            if model["name"] == "movies":
                named = [each["movie_id"] for each in prediction["recommendations"]]
                assert len(named) == 5
                assert [each["movie_id"] for each in row["prediction"]] == named
            else:
                assert row["prediction"] == prediction["prediction"]
            assert row["version"] == 1
            assert row["lineage"]["activation"]["reason"].startswith("first version")


def web_processes(service: Service) -> list[psutil.Process]:
    """Returns the web processes without their master."""
    gunicorn = [each for each in running_below(service) if "web.asgi" in " ".join(each.cmdline())]
    known = {each.pid for each in gunicorn}
    return [each for each in gunicorn if each.ppid() in known]


def test_every_model_is_compiled_and_web_processes_are_small_and_start_fast(
    service: Service, first_start: float
) -> None:
    with service.client() as client:
        for model in client.get("/api/v1/models/").json():
            version = client.get(f"/api/v1/models/{model['name']}/versions/1/").json()
            assert version["engine"] in ("onnx", "tfidf"), version["engine_reason"]
        example = client.get("/api/v1/models/cars/").json()["example"]
    processes = web_processes(service)
    assert max(mebibytes(process) for process in processes) < 200, "after the pages and the answers above"
    for process in processes:  # all at once, so that no process answers meanwhile
        process.kill()
    killed = time.monotonic()
    while not is_answered(service, "/api/v1/models/cars/predictions/", example):
        assert time.monotonic() - killed < 60
        time.sleep(0.02)
    taken = time.monotonic() - killed
    spent = min(sum(process.cpu_times()[:2]) for process in web_processes(service))
    while any(process.cpu_percent(0.5) > 5 for process in web_processes(service)):  # every model is loaded
        assert time.monotonic() - killed < 60
    resident = [mebibytes(process) for process in web_processes(service)]
    sizes = ", ".join(f"{size:.0f} MiB" for size in resident)
    print(f"\nweb: {sizes}; answers again {taken:.1f} s after kill -9 of all, {spent:.1f} s of CPU each")
    assert max(resident) < 130
    # The goal is 2 s on an idle machine; on a shared machine processor time is more informative than wall
    # time.
    assert spent < 4


def mebibytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def is_answered(service: Service, path: str, example: dict[str, Any]) -> bool:
    with suppress(httpx.HTTPError), service.client() as client:
        return client.post(path, json=example).status_code == 200
    return False


def test_the_tutorials_clients_work(service: Service, first_start: float) -> None:
    with service.client() as client:
        assert client.get("/ping").text == "PONG"
        example = client.get("/api/v1/models/churn/").json()["example"]
        assert set(client.post("/predict", json=example).json()) == {"churn_probability", "churn"}
        assert client.post("/predecir", json=FORM).json()["precio"] > 10_000


def test_html_pages_answer(service: Service, first_start: float) -> None:
    with service.client() as client:
        for path in ("/", "/admin/login/", "/api/docs/", "/healthz/live", "/healthz/ready"):
            assert client.get(path, headers={"Accept": "text/html"}).status_code == 200, path
        assert "churn" in client.get("/", headers={"Accept": "text/html"}).text
        openapi = client.get("/api/schema/?format=json").json()
        assert "/api/v1/models/cars/predictions/" in openapi["paths"]
        static = re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/admin/login/").text)
        assert static
        assert all(client.get(path).status_code == 200 for path in static)


def test_after_retraining_the_new_version_predicts(service: Service, first_start: float) -> None:
    rows = car_rows()
    with service.client() as client:
        before = client.get("/api/v1/models/cars/").json()["active_version"]
        finished = client.post(
            "/api/v1/models/cars/training-runs/",
            json={"instances": rows, "mode": "replace"},
            headers={"Prefer": "wait=90"},
        )
        assert finished.status_code == 201, finished.text
        run = finished.json()
        assert run["status"] == "succeeded", run
        assert run["version"] == before + 1
        assert run["dataset"]["rows"] == len(rows)
        assert all(math.isfinite(value) for value in run["metrics"].values())
        assert run["metrics"]["rmse"] < run["baseline"]["rmse"]
        if not run["activated"]:  # the gate may reject another sample of the same data
            assert not run["gate"]["passed"]
            client.post(
                f"/api/v1/models/cars/versions/{run['version']}/activate/",
                json={"reason": "the test goes on", "override": True},
            ).raise_for_status()
        car = {name: value for name, value in rows[0].items() if name != "selling_price"}
        answered = client.post("/api/v1/models/cars/predictions/", json=car).json()
        assert answered["version"] == run["version"]
        assert client.get(finished.headers["Location"]).json()["status"] == "succeeded"
        assert client.get("/api/v1/models/cars/active/").json()["version"] == run["version"]


def test_metrics_cover_web_and_worker_and_need_the_stacks_token(service: Service, first_start: float) -> None:
    state = json.loads((service.var / "stack.json").read_text(encoding="utf-8"))
    authorized = {"Authorization": f"Bearer {state['metrics_token']}"}
    until = time.monotonic() + 20
    with service.client() as client:
        metrics = ""
        while "training.tasks.work" not in metrics:  # the task ends a moment after its run
            assert time.monotonic() < until, metrics
            metrics = client.get("/metrics", headers=authorized).text
        assert client.get("/api/v1/models/", headers=authorized).status_code == 401
    assert "vigia_web_processes 2.0" in metrics
    assert 'vigia_jobs{kind="training_run",model="cars",status="succeeded"} 2.0' in metrics


def test_bodies_that_need_a_real_server_are_refused(service: Service, first_start: float) -> None:
    key = (service.var / "client-key").read_text(encoding="utf-8").strip()
    url = "/api/v1/models/churn/predictions/"

    def ask(headers: dict[str, str], body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        chunked = headers.get("Transfer-Encoding") == "chunked"
        connection.request(
            "POST", url, body, {"Authorization": f"Token {key}", **headers}, encode_chunked=chunked
        )
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    status, body = ask({"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, iter([b"{}"]))
    assert (status, body["error"]["code"]) == (400, "invalid_input"), "a chunked body is read like any other"
    status, body = ask({"Content-Type": "application/json"}, b" " * (8 * 2**20 + 1))
    assert (status, body["error"]["code"]) == (413, "too_large")
    status, body = ask({}, b"{}")
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")
    status, body = ask({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b")
    assert (status, body["error"]["code"]) == (415, "unsupported_encoding")
    status, body = ask({"Content-Type": "application/json"}, b"[" * 100_000)
    assert (status, body["error"]["code"]) == (400, "too_deep")


def test_silent_clients_do_not_block_the_service(service: Service, first_start: float) -> None:
    """More connections than threads announce a body and send no byte of it."""
    silent = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", service.port))
        connection.sendall(b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n")
        silent.append(connection)
    try:
        with service.client() as client:
            assert client.get("/healthz/live").status_code == 200
    finally:
        for connection in silent:
            connection.close()


def test_an_invalid_content_type_is_refused(service: Service, first_start: float) -> None:
    with service.client() as client:
        for content_type in (
            "a/b; charset=undefined",
            "a/b; charset=hex",
            "application/json; charset*=bogus'en'%41",
        ):
            shown = client.get(
                "/api/schema/", params={"format": "json"}, headers={"Content-Type": content_type}
            )
            assert shown.status_code == 415, shown.text[:300]
            refused = client.post("/predict?a=%ff", content=b"{}", headers={"Content-Type": content_type})
            assert refused.status_code == 415, refused.text[:300]
            assert refused.json()["error"]["code"] == "unsupported_media_type"


def test_ten_thousand_rows_are_answered_and_logged_in_order(service: Service, first_start: float) -> None:
    rows = [{**FORM, "superficie_construida": 40 + n % 150, "_key": f"r{n}"} for n in range(10_000)]
    with service.client() as client:
        answered = client.post("/api/v1/models/houses/predictions/", json=rows)
        assert answered.status_code == 200, answered.text[:500]
        predictions = answered.json()["predictions"]
        assert len(predictions) == 10_000
        newest = client.get("/api/v1/models/houses/predictions/", params={"limit": 1000}).json()[
            "predictions"
        ]
        assert [row["id"] for row in newest] == [each["id"] for each in predictions[::-1][:1000]]
        assert newest[0]["key"] == "r9999"
        refused = client.post("/api/v1/models/houses/predictions/", json=[*rows, rows[0]])
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_many_rows")


def test_no_answer_is_lost_when_postgresql_is_killed_under_load(service: Service, first_start: float) -> None:
    """The test kills PostgreSQL's first process twice; the stack restarts it, and the web processes
    reconnect."""
    path = "/api/v1/models/churn/predictions/"
    with service.client() as client:
        example = client.get("/api/v1/models/churn/").json()["example"]
    key = (service.var / "client-key").read_text(encoding="utf-8").strip()
    returns = []
    with Clients(Asker(service.port), key, path, [example] * 2, number=6) as clients:
        for _ in range(2):
            clients.await_answers(100)
            killed = time.monotonic()
            postmaster(service).kill()
            wait_until(lambda killed=killed: any(sent > killed for _, sent, _ in clients.others))
            clients.await_answers(20)
            wait_until(lambda: answers_after_refusals(clients))
            returns.append(min(answers_after_refusals(clients)) - killed)
        clients.await_answers(100)
    print(
        f"\nanswers again {', '.join(f'{seconds:.1f} s' for seconds in returns)} after kill -9 of PostgreSQL"
    )
    assert {status for status, _, _ in clients.others} == {503}
    answered = [each for ids, *_ in clients.answers for each in ids]
    assert len(answered) == len(set(answered))
    logged: list[str] = []
    with service.client() as client:
        url: str | None = f"{path}?limit=1000"
        while url:
            page = client.get(url).raise_for_status().json()
            logged += [row["id"] for row in page["predictions"]]
            url = page["next"]
    assert len(logged) == len(set(logged))
    assert not set(answered) - set(logged), "answered and not logged"


def answers_after_refusals(clients: Clients) -> list[float]:
    """Returns the times of the answers after the last refusal."""
    last_refusal = max(answered for _, _, answered in clients.others)
    return [answered for _, _, _, answered in clients.answers if answered > last_refusal]


def postmaster(service: Service) -> psutil.Process:
    """Returns PostgreSQL's first process among those that `make run` started.

    Other stacks of this machine have pid files, too, and may end at any time.
    """
    running = {process.pid: process for process in running_below(service)}
    for pidfile in [
        *service.var.glob("**/postmaster.pid"),
        *Path("/var/lib/vigia-local").glob("*/**/postmaster.pid"),
    ]:
        with suppress(FileNotFoundError, IndexError, ValueError):
            pid = int(pidfile.read_text().splitlines()[0])
            if pid in running:
                return running[pid]
    raise AssertionError("no postmaster among the service's processes")


def running_below(service: Service) -> list[psutil.Process]:
    assert service.process is not None
    return psutil.Process(service.process.pid).children(recursive=True)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_new_model_needs_a_file_and_one_fast_restart_that_keeps_all_data(
    service: Service, first_start: float, tmp_path: Path
) -> None:
    """The data set has another shape: three classes, semicolons, decimal commas, an identifier, a
    constant."""
    draw = random.Random(7)
    lines = ["bottle;acidity;sugar;grape;bottled by;quality"]
    for number in range(400):
        acidity, sugar = draw.gauss(6, 1), draw.expovariate(0.3)
        quality = "good" if acidity + draw.gauss(0, 0.3) < 5.5 else "fair" if sugar < 3 else "poor"
        cells = (
            f"W{number:05d}",
            f"{acidity:.2f}",
            f"{sugar:.2f}",
            draw.choice(["merlot", "syrah"]),
            "us",
            quality,
        )
        lines.append(";".join(cell.replace(".", ",") for cell in cells))
    source = tmp_path / "wine.csv"
    source.write_text("\n".join(lines), encoding="utf-8")
    output = service.manage("startmodel", "wine", str(source), "--target", "quality")
    assert "bottle" in output
    with service.client() as client:
        logged = client.get("/api/v1/models/churn/predictions/").json()["predictions"]
    service.stop()
    assert [process.pid for process in service.seen if alive(process)] == [], "Ctrl-C leaves nothing behind"
    # Without the file the start creates new passwords and still verifies the models.
    (service.var / "stack.json").unlink()
    taken = service.start()
    trained = float(re.findall(r"; ([\d.]+) s$", service.printed(), re.MULTILINE)[-1])
    print(f"\nfirst start {first_start:.1f} s, on kept data {taken:.1f} s ({trained} the new model's)")
    # The goal is 10 s on an idle machine; the limit leaves room for a shared machine.
    assert taken - trained < 30, "a start on kept data is quick"
    with service.client() as client:
        probed = client.get("/healthz/ready").json()
        assert "models" not in {entry["check"] for entry in probed["degraded"]}, "all are verified"
        model = client.get("/api/v1/models/wine/").json()
        assert (model["task"], model["active_version"]) == ("multiclass", 1)
        body = io.BytesIO("\n".join(lines[:4]).encode())
        answered = client.post(
            "/api/v1/models/wine/predictions/", content=body.read(), headers={"Content-Type": "text/csv"}
        ).json()
        assert len(answered["predictions"]) == 3
        assert {each["prediction"] for each in answered["predictions"]} <= {"good", "fair", "poor"}
        assert "/api/v1/models/wine/predictions/" in client.get("/api/schema/?format=json").json()["paths"]
        assert client.get("/api/v1/models/churn/predictions/").json()["predictions"] == logged
    service.stop()
    assert not [process for process in service.seen if alive(process)]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
