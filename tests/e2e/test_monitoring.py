"""A real Prometheus monitors the real service: two web processes, a worker, a review that found drift.

The tests need the programs of Debian's package prometheus; `.ci/run` installs it.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from config.celery import app as celery_app
from predictions import latency
from predictions.log import partitions
from predictions.models import DriftFinding, DriftReview
from tests.conftest import empty_tables
from tests.e2e.plant import await_
from tests.recommender.conftest import add_movies, build_index
from tests.server import ROOT, Asker, Server
from tests.trained import train_sample
from training.access import client_keys
from training.models import ModelVersion
from training.registry import activation
from training.serving import engine_cache, routing

MONITORING = ROOT / "monitoring"
CASES = sorted(MONITORING.glob("alerts*_test.yml"))
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
TOKEN = "0123456789abcdef" * 3
PATH = "/api/v1/models/churn/predictions/"
MOVIES = "/api/v1/recommendations/"
QUEUE = "monitoring"
SINGLE, BATCHES, BATCH, REFUSED = 120, 10, 7, 9
QUESTIONS = 10
"""Recommendations: a movie is clicked in two of them, and two are empty."""
TASKS = 3

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt install prometheus)"),
    # The mark creates a test database; its rows are committed once, for all tests of this module.
    pytest.mark.django_db,
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A Prometheus with the repository's configuration, except addresses, the token's file and the
    intervals."""

    def __init__(self, directory: Path, targets: dict[str, str]) -> None:
        directory.mkdir()
        self.port, self.log = free_port(), directory / "prometheus.log"
        token = directory / "token"
        token.write_text(TOKEN, encoding="utf-8")
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
        # Docker's DNS and Alertmanager are those of the compose file; docker/check.sh tries both.
        del config["alerting"]
        config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
            job["authorization"]["credentials_file"] = str(token)
        self.config = directory / "prometheus.yml"
        self.config.write_text(yaml.safe_dump(config), encoding="utf-8")
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    "prometheus", f"--config.file={self.config}", f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
                ],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # Prometheus is still starting
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Returns (labels, value) of each series now."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str) -> float:
        series = self.query(expression)
        return series[0][1] if series else math.nan

    def is_up(self, targets: int) -> bool:
        try:
            return self.value("sum(up)") == targets
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return False


class Worker:
    """A Celery worker with two processes and its metrics on a separate port, as in the compose file."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.port, self.log = free_port(), directory / "worker.log"
        env = env | {"METRICS_DIR": str(directory / "worker-metrics"), "WORKER_METRICS_PORT": str(self.port)}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "celery", "--quiet", "-A", "config", "worker", "--concurrency", "2",
                    "--queues", QUEUE, "--without-gossip", "--without-mingle",
                ],
                cwd=ROOT, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@dataclass
class Watched:
    server: Server
    worker: Worker
    prometheus: Prometheus
    version: ModelVersion
    key: str

    def seen(self, expressions: Iterable[str]) -> dict[str, float]:
        return {expression: self.prometheus.value(expression) for expression in expressions}


@pytest.fixture(scope="module")
def watched(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    with django_db_blocker.unblock():
        partitions.ensure(timezone.now(), 1)
        version = train_sample("churn", rows=600)  # real runs, by the services
        add_movies()
        activation.activate(build_index(), by=None, reason="a test needs it", override=True)
        key = client_keys.issue(client_keys.client_with_every_right("watched"))
        metrics = str(directory / "web-metrics")
        server = Server(directory, METRICS_TOKEN=TOKEN, METRICS_DIR=metrics)
        worker = Worker(directory, server.env)
        prometheus = None
        try:
            server.start()
            targets = {"vigia": f"127.0.0.1:{server.port}", "vigia-worker": f"127.0.0.1:{worker.port}"}
            prometheus = Prometheus(directory / "prometheus", targets)
            await_(lambda: prometheus.is_up(2), 30, lambda: worker.log.read_text() + server.printed())
            monitored = Watched(server, worker, prometheus, version, key)
            send_traffic(monitored)
            review(version)
            for _ in range(TASKS):
                celery_app.send_task("training.tasks.publish_waiting_jobs", queue=QUEUE)
            rows = SINGLE + BATCHES * BATCH + QUESTIONS
            expected = {
                "sum(vigia_log_rows_total)": rows,
                "sum(vigia_tasks_total)": TASKS,
                "max(vigia_review_rows)": 900,
                'sum(vigia_refusals_total{code="invalid_input"})': REFUSED,
            }
            seen = monitored.seen
            await_(lambda: seen(expected) == expected, 30, lambda: (seen(expected), worker.log.read_text()))
            # A rate needs two scrapes of the numbers, and a rule needs another evaluation.
            later = ["sum(rate(vigia_requests_total[1m]))", 'count(ALERTS{alertname="VigiaDrift"})']
            await_(lambda: all(value > 0 for value in seen(later).values()), 30, lambda: seen(later))
            yield monitored
        finally:
            if prometheus is not None:
                prometheus.stop()
            server.stop()
            worker.stop()
            engine_cache.forget()
            routing.forget()
            empty_tables()


def send_traffic(watched: Watched) -> None:
    """Sends traffic over several connections, so that both processes answer some of it."""
    example = watched.version.dataset_schema.example
    server, key = watched.server, watched.key
    ask_for_movies(
        server, key, range(QUESTIONS // 2)
    )  # the rest follows at the end: a rate is between two scrapes
    connections = [server.connect() for _ in range(6)]
    for number in range(SINGLE):
        on = connections[number % len(connections)]
        assert server.ask("POST", PATH, example, key=key, on=on)[0] == 200
        time.sleep(0.02)
    for _ in range(BATCHES):
        assert server.ask("POST", PATH, [example] * BATCH, key=key)[0] == 200
    for _ in range(REFUSED):
        bad = example | {"tenure": "abc", "contract": "weekly"}
        assert server.ask("POST", PATH, bad, key=key)[0] == 400
    answered = ask_for_movies(server, key, range(QUESTIONS // 2, QUESTIONS))
    for each in answered[-2:]:
        clicked = {"movie_id": each["recommendations"][0]["movie_id"], "kind": "clicked"}
        assert server.ask("POST", f"{MOVIES}{each['id']}/feedback/", clicked, key=key)[0] == 200
    for connection in connections:
        connection.close()


def ask_for_movies(server: Server, key: str, numbers: range) -> list[dict[str, Any]]:
    """Sends one request per number; the first two get an empty answer."""
    bodies = []
    for number in numbers:
        status, _, body = server.ask("POST", MOVIES, {"movie_id": 10 if number < 2 else 1}, key=key)
        assert status == 200
        bodies.append(body)
    return bodies


def review(version: ModelVersion) -> None:
    """Creates a review as the service of reviews does."""
    now = timezone.now()
    holdout = {name: value for name, value in version.metrics.items() if isinstance(value, (int, float))}
    fallen = holdout | {"roc_auc": 0.6}
    drift_review = DriftReview.objects.create(
        registered_model=version.registered_model, version=version, rows=900, verdict="drift",
        since=now - dt.timedelta(days=7), until=now, scheduled=True,
        quality=[{
            "version": version.number, "coverage": 0.4, "holdout": holdout,
            "metrics": {name: {"value": value} for name, value in fallen.items()}, "fell": True,
        }],
        expected={"method": "cbpe", "metrics": {"roc_auc": 0.8}, "holdout": {}, "rows": 900, "reason": ""},
    )  # fmt: skip
    for position, name in enumerate([*version.dataset_schema.names, "_prediction", "_probability"]):
        verdict, score = ("drift", 0.4) if name == "tenure" else ("stable", -0.001)
        DriftFinding.objects.create(
            review=drift_review, position=position, column=name, kind="number", verdict=verdict, rows=900,
            reference_rows=480, adjusted_psi=score, bins={},
        )  # fmt: skip


# -- Prometheus --------------------------------------------------------------------------------------------


def test_the_configuration_is_valid_and_every_target_is_up(watched: Watched) -> None:
    config = watched.prometheus.config
    checked = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    targets = watched.prometheus.ask("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"]: target["health"] for target in targets} == {
        "vigia": "up",
        "vigia-worker": "up",
    }
    assert watched.prometheus.value("max(scrape_duration_seconds)") < 0.5


def test_counters_equal_the_traffic_of_both_processes(watched: Watched) -> None:
    value, route = watched.prometheus.value, 'route="/api/v1/models/{model}/predictions/",method="POST"'
    assert value(f'sum(vigia_requests_total{{{route},status="200"}})') == SINGLE + BATCHES
    assert value(f'sum(vigia_requests_total{{{route},status="400"}})') == REFUSED
    assert value('sum(vigia_predictions_total{model="churn",version="1"})') == SINGLE + BATCHES * BATCH
    assert value("sum(vigia_log_rows_total)") == SINGLE + BATCHES * BATCH + QUESTIONS
    assert value("sum(vigia_prediction_seconds_count)") == SINGLE + BATCHES + QUESTIONS
    movies = '{model="movies",version="1"}'
    assert value(f"sum(recommendations_total{movies})") == QUESTIONS
    assert value(f"sum(recommendation_response_time_seconds_count{movies})") == QUESTIONS
    assert value(f"sum(recommendations_empty_total{movies})") == 2
    assert value(f"sum(recommendations_clicked_total{movies})") == 2
    assert value('sum(recommendation_feedback_total{kind="clicked"})') == 2
    assert value('sum(vigia_refusals_total{code="invalid_input"})') == REFUSED
    assert value('sum(vigia_validation_errors_total{code="not_a_level"})') == REFUSED
    assert value("vigia_web_processes") == 2
    assert value("vigia_log_queue_rows") == 0
    of_churn = watched.prometheus.query('vigia_predictions_total{model="churn"}')
    classes = {labels["class"] for labels, _ in of_churn}
    assert classes <= {"true", "false"}
    counted = [
        sum(
            s.value
            for m in MultiProcessCollector.merge([str(file)])
            for s in m.samples
            if "log_rows" in s.name
        )
        for file in (Path(watched.server.env["METRICS_DIR"]) / "web").glob("*/counter_*.db")
    ]
    assert sum(counted) == SINGLE + BATCHES * BATCH + QUESTIONS
    assert sum(rows > 0 for rows in counted) == 2, counted


def test_the_workers_tasks_are_counted_and_need_the_token(watched: Watched) -> None:
    done = {"task": "training.tasks.publish_waiting_jobs", "result": "success"}
    [(labels, tasks)] = watched.prometheus.query("vigia_tasks_total")
    assert (labels["task"], labels["result"], tasks) == (*done.values(), TASKS)
    assert labels["job"] == "vigia-worker"
    asker = Asker(watched.worker.port)
    assert asker.ask("GET", "/metrics")[0] == 401
    assert asker.ask("GET", "/metrics", Authorization="Bearer wrong")[0] == 401
    assert asker.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_every_rule_is_loaded_and_evaluated(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    declared = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    names = [rule.get("alert") or rule["record"] for group in declared for rule in group["rules"]]
    rules = [rule for group in groups for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(names)
    assert {rule["health"] for rule in rules} == {"ok"}, [r for r in rules if r["health"] != "ok"]
    recorded = {rule["record"] for group in declared for rule in group["rules"] if "record" in rule}
    for name in recorded:
        assert watched.prometheus.query(name), name


def test_only_drift_and_the_fall_of_quality_fire(watched: Watched) -> None:
    alerts = watched.prometheus.ask("alerts")["alerts"]
    firing = {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}
    # Housekeeping and beat do not run here, which the checks report after a while.
    assert set(firing) - {"VigiaDegraded"} == {"VigiaDrift", "VigiaQualityFall"}
    assert firing["VigiaDrift"]["annotations"]["summary"] == "The last review of churn 1 found drift"
    assert firing["VigiaQualityFall"]["labels"]["metric"] == "roc_auc"
    summary = firing["VigiaQualityFall"]["annotations"]["summary"]
    assert summary == "roc_auc of churn 1 is significantly worse than on the hold-out"


def test_the_rules_pass_their_test_cases() -> None:
    tested = subprocess.run(
        ["promtool", "test", "rules", *(path.name for path in CASES)],
        cwd=MONITORING, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert tested.stdout.count("SUCCESS") == len(CASES) >= 2


# -- the dashboards -----------------------------------------------------------------------------------------


def filled(expression: str, metric: str, model: str = "churn") -> str:
    """Returns an expression as Grafana sends it, with all models and columns selected."""
    for name, value in {
        "$__rate_interval": "1m",
        "$__interval": "5s",
        'model="$model"': f'model="{model}"',
        'model=~"$model"': 'model=~".*"',
        'column=~"$column"': 'column=~".*"',
        "$metric": metric,
    }.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_returns_data(watched: Watched, path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    queries = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    queries += [(note["name"], note["expr"]) for note in dashboard["annotations"]["list"] if "expr" in note]
    assert len(queries) > 10
    model, empty = "movies" if path.stem == "vigia-movies" else "churn", []
    for title, expression in queries:
        series = watched.prometheus.query(filled(expression, "roc_auc", model))
        no_switch = title == "Version switched"  # no version was switched; the query must still be valid
        if not no_switch and not any(math.isfinite(value) for _, value in series):
            empty.append((title, expression, series))
    assert not empty
    for variable in dashboard["templating"]["list"]:
        arguments = filled(variable["query"]["query"], "").removeprefix("label_values(").removesuffix(")")
        selector, _, label = arguments.rpartition(", ")
        assert {labels[label] for labels, _ in watched.prometheus.query(selector)}, variable["name"]


def test_the_click_through_is_a_share_of_the_answers_with_movies(watched: Watched) -> None:
    """The service computes it in the same way; an answer without movies cannot be clicked."""
    path = MONITORING / "grafana" / "dashboards" / "vigia-movies.json"
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    overall, by_version = (
        filled(panel["targets"][0]["expr"], "", "movies")
        for panel in panels
        if panel["title"] == "Click-through"
    )
    since_the_start = re.sub(r"increase\((.+?)\[15m\]\)", r"\1", by_version)
    assert since_the_start != by_version
    for expression in (overall, since_the_start):
        assert watched.prometheus.value(expression) == 2 / (QUESTIONS - 2)
        never_empty = expression.replace("empty_total", "none_total")
        assert watched.prometheus.value(never_empty) == 2 / QUESTIONS
    [(labels, _)] = watched.prometheus.query(since_the_start)
    assert labels == {"version": "1"}


# -- figures of the admin without Prometheus ----------------------------------------------------------------


def test_latencies_are_in_the_database_within_half_a_minute(watched: Watched) -> None:
    model, now = watched.version.registered_model_id, timezone.now()
    since = now - dt.timedelta(hours=1)  # the traffic may be in the previous hour

    def read() -> dict[str, float]:
        return dict(latency.quantiles([model], since, now).get(model, {}))

    await_(lambda: read().get("requests") == SINGLE + BATCHES, 30, read)
    latencies = read()
    assert 0 < latencies["p50"] <= latencies["p99"]
    of_churn = 'vigia_prediction_seconds_bucket{model="churn"}'
    p99 = watched.prometheus.value(f"histogram_quantile(0.99, sum by (le) ({of_churn}))")
    assert latencies["p99"] == pytest.approx(p99, rel=1e-6)  # both use the same buckets and interpolation


# -- a killed process ---------------------------------------------------------------------------------------


def test_a_killed_process_loses_at_most_the_counts_of_a_second(watched: Watched) -> None:
    server = watched.server
    killed = server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    await_(lambda: killed not in server.workers() and len(server.workers()) == 2, 20)

    def now() -> dict[str, float]:
        status, _, body = server.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        families = list(text_string_to_metric_families(body.decode()))
        names = ("vigia_log_rows_total", "vigia_web_processes", "vigia_prediction_seconds_count")
        samples = [sample for family in families for sample in family.samples]
        return {name: sum(each.value for each in samples if each.name == name) for name in names}

    expected = {
        "vigia_log_rows_total": SINGLE + BATCHES * BATCH + QUESTIONS,
        "vigia_web_processes": 2,
        "vigia_prediction_seconds_count": SINGLE + BATCHES + QUESTIONS,
    }
    await_(lambda: now() == expected, 20, now)
