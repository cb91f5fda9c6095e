"""Peers that are model servers, each in its own environment; the report names those that cannot be installed.

The environments are created once, under bench/.venv-NAME, from bench/requirements-NAME.txt.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import protocols
from bench.processes import ROOT, Failed, Started, free_port
from bench.services import ENVIRONMENT, HOST, Bodies, Service, Target

HERE = ROOT / "bench"
INSTALL_SECONDS = 600
# Batches collect concurrent requests: a batch is closed after this time, full or not.
BATCH_SECONDS = 0.005
BATCH_REQUESTS = 16


@dataclass(frozen=True)
class Optional:
    name: str
    title: str
    start: Callable[[Started, Path, Bodies, Path], Service]


def optional_peers(
    started: Started, folder: Path, bodies: Bodies, say: Callable[[str], None]
) -> tuple[list[Service], list[str]]:
    """Returns the peers that install and answer, and a line about each of the others."""
    services, absent = [], []
    for peer in PEERS:
        running = len(started.processes)
        try:
            python = _environment(peer.name, say)
            say(f"Starting {peer.title} ...")
            service = peer.start(started, folder, bodies, python)
            service.write_bodies(folder)
            service.await_answer(started)
            services.append(service)
        except Failed as failure:
            for child in started.processes[running:]:
                started.stop(child.pid)
            first = str(failure).splitlines()[0]
            say(f"{peer.title} is left out: {failure}")
            absent.append(f"{peer.title} is not in the tables: {first}")
    return services, absent


def _environment(name: str, say: Callable[[str], None]) -> Path:
    """Returns the Python of the peer's environment, which it creates if needed."""
    pinned, place = HERE / f"requirements-{name}.txt", HERE / f".venv-{name}"
    done, python = place / pinned.name, place / "bin" / "python"
    if done.exists() and done.read_bytes() == pinned.read_bytes():
        return python
    say(f"Installing {pinned.name} (at most {INSTALL_SECONDS // 60} minutes) ...")
    shutil.rmtree(place, ignore_errors=True)
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "-r",
        pinned,
    ]
    try:
        _run([sys.executable, "-m", "venv", place])
        _run(pip)
    except subprocess.TimeoutExpired:
        raise Failed(f"the installation took more than {INSTALL_SECONDS // 60} minutes") from None
    except subprocess.CalledProcessError as error:
        raise Failed(f"the installation failed:\n{error.stderr[-2000:]}") from None
    shutil.copy(pinned, done)
    return python


def _run(command: Sequence[str | Path], cwd: Path = ROOT) -> None:
    subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )


# -- MLServer ------------------------------------------------------------------------------------------
def start_mlserver(started: Started, folder: Path, bodies: Bodies, python: Path) -> Service:
    place = folder / "mlserver"
    place.mkdir()
    port = free_port()
    settings = {
        "debug": False,
        "host": HOST,
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 2,
    }
    model = {
        "name": "churn",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {
            "uri": str(folder / "churn-frame.joblib"),
            "extra": {"predict_fn": "predict_proba"},
        },
        "max_batch_size": BATCH_REQUESTS,
        "max_batch_time": BATCH_SECONDS,
    }
    settings["metrics_dir"] = str(place / "metrics")  # the default is the working directory
    (place / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (place / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    service = Service(
        name="mlserver",
        title="MLServer",
        note="V2 protocol, DataFrame, adaptive batching",
        stores="nothing",
        port=port,
        targets=protocols.open_inference_targets(bodies),
        read=lambda answer: answer["outputs"][0]["data"][1],
        versions=_versions(python, "mlserver"),
    )
    service.pid = started.start(service.name, [python.parent / "mlserver", "start", place], ENVIRONMENT)
    return service


# -- BentoML -------------------------------------------------------------------------------------------
def start_bentoml(started: Started, folder: Path, bodies: Bodies, python: Path) -> Service:
    one = Target("POST", "/churn", [{"customers": [row]} for row in bodies.one])
    many = Target("POST", "/churn", [{"customers": rows} for rows in bodies.many])
    service = Service(
        name="bentoml",
        title="BentoML",
        note="pydantic, DataFrame, adaptive batching",
        stores="nothing",
        port=free_port(),
        targets={"churn-16": one, "churn-64": one, "churn-many": many},
        read=lambda answer: answer[0]["probability"],
        versions=_versions(python, "bentoml"),
    )
    environment = ENVIRONMENT | {
        "BENCH_MODELS": str(folder),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    command = [python, "-m", "bentoml", "serve", "bench.peers.bentoml_service:Churn"]
    service.pid = started.start(
        service.name, [*command, "--host", HOST, "--port", str(service.port)], environment
    )
    return service


# -- MLflow --------------------------------------------------------------------------------------------
def start_mlflow(started: Started, folder: Path, bodies: Bodies, python: Path) -> Service:
    saved = folder / "mlflow"
    try:
        _run([python, "-m", "bench.peers.mlflow_model", folder / "churn-frame.joblib", saved])
    except subprocess.CalledProcessError as error:
        raise Failed(f"the model could not be saved:\n{error.stderr[-2000:]}") from None
    service = Service(
        name="mlflow",
        title="MLflow",
        note="`mlflow models serve`, DataFrame",
        stores="nothing",
        port=free_port(),
        targets=protocols.mlflow_targets(bodies, "/invocations"),
        read=lambda answer: answer["predictions"][0][1],
        versions=_versions(python, "mlflow"),
    )
    environment = ENVIRONMENT | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
    }
    command = [python, "-m", "mlflow", "models", "serve", "-m", saved, "--env-manager", "local"]
    address = ["--host", HOST, "--port", str(service.port), "--workers", "2"]
    service.pid = started.start(service.name, [*command, *address], environment)
    return service


def _versions(python: Path, distribution: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return f"{distribution} {done.stdout.strip()}"


PEERS = (
    Optional("mlserver", "MLServer", start_mlserver),
    Optional("bentoml", "BentoML", start_bentoml),
    Optional("mlflow", "MLflow", start_mlflow),
)
