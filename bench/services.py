"""The compared services: how to start each, and its requests for each scenario."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench import samples
from bench.processes import ROOT, Failed, Started, free_port, wait_until

HOST = "127.0.0.1"
START_SECONDS = 900.0  # includes the training of the first models on a busy machine
ANSWER_SECONDS = 90.0  # limit for a server that accepts connections but does not answer with 200
OWN = Path(sys.prefix) / "bin" / "python"
VIGIA = Path(os.environ.get("VENV") or ROOT / ".venv").absolute() / "bin" / "python"
# The values of config/gunicorn.py: requests share the cores, not the threads of one request.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
TABLE = (
    "CREATE TABLE bench_prediction (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    "created_at timestamptz NOT NULL DEFAULT now(), inputs jsonb NOT NULL, "
    "prediction boolean NOT NULL, probability double precision NOT NULL)"
)


@dataclass(frozen=True)
class Scenario:
    """One kind of request and its number of connections."""

    name: str
    title: str
    connections: int
    rows: int = 1


SCENARIOS = (
    Scenario("churn-16", "churn, one row a request, 16 connections", 16),
    Scenario("churn-64", "churn, one row a request, 64 connections", 64),
    Scenario("houses-16", "houses, one row a request, 16 connections", 16),
    Scenario("houses-64", "houses, one row a request, 64 connections", 64),
    Scenario("churn-many", "churn, 1,000 rows a request, 4 connections", 4, samples.LARGE_ROWS),
)


@dataclass(frozen=True)
class Target:
    """A service's route and bodies for a scenario; `bodies` None sends no body."""

    method: str
    path: str
    bodies: list[Any] | None


@dataclass
class Service:
    name: str
    title: str
    note: str
    stores: str  # "every row, committed", or "nothing"
    port: int
    targets: dict[str, Target]
    pid: int = 0  # of the server; measurements include its descendants
    key: str = ""
    table: str = ""  # table that must hold each answered row
    read: Callable[[Any], float] | None = None  # returns the probability of the answer to one churn row
    versions: str = ""
    files: dict[str, Path] = field(default_factory=dict)

    def ask(self, scenario: str, body: object) -> tuple[int, bytes]:
        target = self.targets[scenario]
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        headers = {"Content-Type": "application/json"} | ({"Authorization": self.key} if self.key else {})
        try:
            data = None if target.bodies is None else json.dumps(body).encode()
            connection.request(target.method, target.path, data, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answers(self, scenario: str) -> bool:
        bodies = self.targets[scenario].bodies
        try:
            return self.ask(scenario, bodies[0] if bodies else None)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def write_bodies(self, folder: Path) -> None:
        for scenario, target in self.targets.items():
            if target.bodies is not None:
                path = folder / f"{self.name}-{scenario}.jsonl"
                self.files[scenario] = samples.write(path, target.bodies)

    def await_answer(self, started: Started) -> None:
        """Returns as soon as every route answers with 200."""

        def done() -> bool:
            if started.ended(self.pid):
                raise Failed(f"{self.title} ended while starting:\n{tail(started.logs / f'{self.name}.log')}")
            return all(self.answers(scenario) for scenario in self.targets)

        if not wait_until(done, ANSWER_SECONDS):
            log = tail(started.logs / f"{self.name}.log")
            raise Failed(
                f"{self.title.strip('*')} does not answer with 200 after {ANSWER_SECONDS:.0f} s:\n{log}"
            )


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@dataclass(frozen=True)
class Bodies:
    """The bodies of requests, the same for all services."""

    one: list[samples.Row]
    many: list[list[samples.Row]]
    house: list[samples.Row]

    @classmethod
    def drawn(cls) -> Bodies:
        customers, dwellings = samples.churn()[0], samples.houses()[0]
        return cls(samples.one_row(customers), samples.many_rows(customers), samples.one_row(dwellings))

    def at(self, churn: str, many: str, houses: str | None = None) -> dict[str, Target]:
        one = Target("POST", churn, self.one)
        targets = {"churn-16": one, "churn-64": one, "churn-many": Target("POST", many, self.many)}
        if not houses:
            return targets
        house = Target("POST", houses, self.house)
        return targets | {"houses-16": house, "houses-64": house}


@dataclass(frozen=True)
class Vigia:
    """A temporary Vigía with its own PostgreSQL and Valkey, started as by `make run`."""

    service: Service
    database_url: str
    postgres_pid: int
    housekeeping_pid: int
    worker_pid: int
    environment: dict[str, str]  # environment at the start

    def manage(self, *arguments: str) -> None:
        """Runs a command of `manage.py`."""
        done = subprocess.run(
            [VIGIA, "manage.py", *arguments],
            cwd=ROOT,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")


def start_vigia(
    started: Started,
    folder: Path,
    bodies: Bodies,
    name: str = "vigia",
    movies: Path | None = None,
    jobs: int = 1,
) -> Vigia:
    """Starts a Vigía; `name` also names its log, and `folder` holds its data.

    movies : CSV of the catalogue of the first index; None for the sample catalogue. jobs : at the same time.
    """
    var = folder / "var"
    var.mkdir(parents=True)
    if movies is not None:
        (var / "first-data").mkdir()
        (var / "first-data" / "movies.csv").symlink_to(movies)
    one, house = "/api/v1/models/churn/predictions/", "/api/v1/models/houses/predictions/"
    service = Service(
        name=name,
        title="**Vigía**",
        note="this tree: key, validation, log",
        stores="every row, committed",
        port=free_port(),
        targets=bodies.at(one, one, house),
        table="predictions_prediction",
        read=lambda answer: answer["predictions"][0]["probability"],
    )
    environment = {"VIGIA_VAR": str(var), "PORT": str(service.port), "HOST": HOST, "WEB_CONCURRENCY": "2"}
    environment |= {"WORKER_CONCURRENCY": str(jobs)}
    environment |= dict.fromkeys(("DATABASE_URL", "REDIS_URL", "RATE_LIMIT"), "")
    service.pid = started.start(name, [VIGIA, "-m", "local.run"], environment)

    def ready() -> bool:
        if started.ended(service.pid):
            raise Failed(f"Vigía ended while starting:\n{tail(started.logs / f'{name}.log')}")
        # The web process answers already while the first models are trained.
        return "Vigía is up" in (started.logs / f"{name}.log").read_text(encoding="utf-8")

    if not wait_until(ready, START_SECONDS):
        raise Failed(f"Vigía is not ready:\n{tail(started.logs / f'{name}.log')}")
    service.key = f"Token {(var / 'client-key').read_text(encoding='utf-8').strip()}"
    service.await_answer(started)
    children = json.loads((var / "processes.json").read_text(encoding="utf-8"))["children"]
    pids = {child["name"]: child["pid"] for child in children}
    service.pid = pids["web"]
    url = json.loads((var / "stack.json").read_text(encoding="utf-8"))["database_url"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE)
    return Vigia(service, url, pids["postgres"], pids["housekeeping"], pids["worker"], environment)


def empties(started: Started, vigia: Vigia) -> list[Service]:
    """Returns services that measure the cost of Django without predictions, with and without Vigía's
    middleware."""
    ping = Target("GET", "/ping", None)
    own = Service(
        name="ping",
        title="Vigía's `/ping`",
        note="Vigía's middleware, an empty view",
        stores="nothing",
        port=vigia.service.port,
        targets={"churn-16": ping, "churn-64": ping},
        pid=vigia.service.pid,
    )
    ok = Target("POST", "/ok", vigia.service.targets["churn-16"].bodies)

    def empty(name: str, title: str, note: str, application: str, settings: str) -> Service:
        service = Service(name, title, note, "nothing", free_port(), {"churn-16": ok, "churn-64": ok})
        command = [VIGIA, "-m", "gunicorn", "--config", f"bench/peers/{settings}.py"]
        environment = {"HOST": HOST, "PORT": str(service.port), "WEB_CONCURRENCY": "2"}
        service.pid = started.start(name, [*command, f"bench.peers.{application}"], ENVIRONMENT | environment)
        return service

    return [
        own,
        empty(
            "django-gthread",
            "Django, empty, gthread",
            "no middleware, an empty view, gunicorn's own threaded worker with 8 threads",
            "django_empty",
            "gunicorn_gthread",
        ),
        empty(
            "django-empty",
            "Django, empty",
            "the same view behind Vigía's server and threads",
            "django_empty_asgi",
            "gunicorn_as_vigia",
        ),
    ]


def peers(started: Started, folder: Path, bodies: Bodies, vigia: Vigia) -> list[Service]:
    environment = ENVIRONMENT | {"BENCH_MODELS": str(folder), "DATABASE_URL": vigia.database_url}

    def fastapi(name: str, title: str, note: str, stores: str, houses: str | None, table: str) -> Service:
        service = Service(
            name, title, note, stores, free_port(), bodies.at("/churn", "/churn/many", houses), table=table
        )
        service.read = lambda answer: answer["probability"]
        command = [OWN, "-m", "uvicorn", f"bench.peers.{name.replace('-', '_')}:app", "--workers", "2"]
        quiet = ["--host", HOST, "--port", str(service.port), "--no-access-log", "--log-level", "warning"]
        service.pid = started.start(name, [*command, *quiet], environment)
        return service

    pid = started.start("models", [OWN, "-m", "bench.peers.models", folder], ENVIRONMENT)
    if not wait_until(lambda: started.ended(pid), START_SECONDS) or not (folder / "ready").exists():
        raise Failed(f"The peers' models could not be fitted:\n{tail(started.logs / 'models.log')}")
    plain = fastapi(
        "fastapi-plain",
        "FastAPI + pandas",
        "pydantic, DataFrame, pipeline",
        "nothing",
        "/houses",
        "",
    )
    insert = fastapi(
        "fastapi-insert",
        "FastAPI + pandas + INSERT",
        "the same, one committed INSERT a request",
        "every row, committed",
        None,
        "bench_prediction",
    )
    flask = Service(
        name="flask-dict",
        title="Flask + DictVectorizer",
        note="no validation, no DataFrame",
        stores="nothing",
        port=free_port(),
        targets=bodies.at("/churn", "/churn/many"),
        read=lambda answer: answer["probability"],
    )
    command = [OWN, "-m", "gunicorn", "--config", "bench/peers/gunicorn_sync.py"]
    bind = ["--bind", f"{HOST}:{flask.port}", "bench.peers.flask_dict:app"]
    flask.pid = started.start(flask.name, [*command, *bind], environment)
    return [plain, insert, flask]
