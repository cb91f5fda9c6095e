"""A web server with the packages of requirements-web.txt alone: the slim image without a container engine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib import admin
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.urls import URLPattern, URLResolver, get_resolver

from core.events import emit, placing
from core.models import Delivery, Event, Subscription
from predictions.models import Batch, DriftReview, LogExport, Replay
from tests.environments import ROOT, environment_of, pinned
from tests.predictions.watched import HOUR, roll, this_hour
from tests.pushed import SPECIES, Package
from tests.recommender.conftest import active_index, add_movies
from tests.server import Server
from tests.trained import train_sample
from training import catalogue
from training.access import client_keys
from training.models import Comparison, Dataset, ModelVersion, Rollout, TrainingRun
from training.runs import requests as run_requests
from training.runs.pushes import NAMES

pytestmark = pytest.mark.django_db(transaction=True)

ABSENT = {"pandas", "scikit-learn", "scipy", "pyarrow", "joblib", "onnx", "skl2onnx", "numba"}
PASSWORD = "a long watch by night"
FULL_IMAGE = "this web image serves compiled versions only and cannot store training rows"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of(ROOT / "requirements-web.txt", tmp_path_factory.mktemp("slim") / "venv")


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """A function that starts a server as the slim image does."""
    slim = Server(
        tmp_path, python, WEB_CONCURRENCY="1", COMPILED_ONLY="1", STATIC_ROOT=str(tmp_path / "static")
    )

    def start() -> Server:
        collect = [python, "manage.py", "collectstatic", "--no-input", "--verbosity", "0"]
        subprocess.run(collect, cwd=ROOT, env=slim.env, check=True)
        slim.start()
        return slim

    yield start
    slim.stop()


@pytest.fixture
def browser() -> Iterator[Callable[..., httpx.Client]]:
    """A function that returns a client of a server, with a key or as a browser."""
    with ExitStack() as opened:

        def browse(server: Server, key: str = "") -> httpx.Client:
            headers = {"Authorization": f"Token {key}"} if key else {"Accept": "text/html"}
            address = f"http://127.0.0.1:{server.port}"
            return opened.enter_context(httpx.Client(base_url=address, headers=headers, timeout=30))

        yield browse


def log_in(client: httpx.Client) -> httpx.Client:
    """Logs a superuser in by the form of the admin."""
    hashed = make_password(PASSWORD, hasher=PBKDF2PasswordHasher())
    User.objects.create(username="boss", password=hashed, is_staff=True, is_superuser=True)
    client.get("/admin/login/").raise_for_status()
    form = {"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    answer = client.post("/admin/login/?next=/admin/", data=form, headers={"Referer": str(client.base_url)})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/"), answer.text[:2000]
    return client


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[str]:
    """Yields the patterns of all routes, such as ``admin/watch/<int:model_id>/``."""
    for each in patterns:
        path = f"{prefix}{each.pattern}"
        if isinstance(each, URLResolver):
            yield from routes(each.url_patterns, path)
        else:
            yield path


def test_the_packages_of_training_are_absent(python: Path) -> None:
    names = {pin.name for pin in pinned(ROOT / "requirements-web.txt")}
    assert not names & ABSENT
    modules = "pandas sklearn scipy pyarrow joblib onnx skl2onnx numba"
    script = f"from importlib.util import find_spec as f; print([n for n in {modules.split()!r} if f(n)])"
    printed = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_every_model_answers_and_every_page_opens(
    server: Callable[[], Server], browser: Callable[..., httpx.Client], client_user: User
) -> None:
    versions = {name: train_sample(name, rows=600) for name in catalogue.names()}
    add_movies()
    index = active_index("movies")
    second = train_sample("churn", rows=400, activate=False)
    slim = server()
    api = browser(slim, client_keys.issue(client_user))

    logged = {}
    for name, version in versions.items():
        example = version.dataset_schema.example
        answer = api.post(f"/api/v1/models/{name}/predictions/", json=[example] * 3)
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == version.number
        logged[name] = answer.json()["predictions"][0]["id"]
    answer = api.post("/api/v1/recommendations/", json={"movie_id": 1})
    assert answer.status_code == 200, answer.text
    recommendation, movie = answer.json()["id"], answer.json()["recommendations"][0]["movie_id"]
    roll(versions["churn"], this_hour() - HOUR, 400)
    assert api.get("/api/v1/models/churn/drift/?version=1").status_code == 200

    churn = versions["churn"].registered_model
    customer = versions["churn"].dataset_schema.example
    posts: list[tuple[str, Any, int]] = [
        (
            "models/churn/evaluations/",
            {"instances": [{**customer, "churn": n % 2 == 0} for n in range(12)]},
            200,
        ),
        ("models/churn/training-runs/", {"search": {"n_iter": 2}}, 202),
        (f"models/churn/versions/{second.number}/comparisons/", {"with": 1}, 202),
        (f"models/churn/versions/{second.number}/replays/", {"since": "2020-01-01"}, 202),
        ("models/churn/log-exports/", {"since": "2026-01-01", "until": "2026-01-02"}, 202),
        ("models/churn/rollouts/", {"version": second.number, "kind": "shadow", "reason": "a test"}, 201),
        ("models/churn/outcomes/", [{"prediction": logged["churn"], "actual": True}], 200),
        (f"recommendations/{recommendation}/feedback/", {"movie_id": movie, "kind": "clicked"}, 200),
    ]
    for path, body, status in posts:
        answer = api.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == status, (path, answer.text)
    Group.objects.create(name="clerks")
    owner = User.objects.get(username="tester")
    Subscription.objects.create(name="deploy", owner=owner, channel="slack", address="https://example.com/")
    with transaction.atomic():
        emit("version.activated", model="churn", subject="version 1", data={})
    placing.place_all()
    batch = Batch.objects.create(
        registered_model=churn, version=second, folder="one", source_name="one/rows", format="csv"
    )

    values: dict[str, Any] = {
        "model": "churn", "number": second.number, "comparison": Comparison.objects.get().pk,
        "run": TrainingRun.objects.filter(registered_model=churn).latest("pk").pk,
        "replay": Replay.objects.get().pk, "rollout": Rollout.objects.get().pk,
        "review": DriftReview.objects.get().pk, "prediction": logged["churn"],
        "recommendation": recommendation,
        "movie_id": 1, "model_id": churn.pk, "version_id": second.pk, "first": versions["churn"].pk,
        "second": second.pk, "kind": "canary", "id": User.objects.get(username="tester").pk,
        "message_id": Event.objects.latest("pk").message_id,
        "subscription": Subscription.objects.get().pk, "delivery": Delivery.objects.latest("pk").pk,
        "batch": batch.pk, "export": LogExport.objects.get().pk, "format": "csv", "path": "no.parquet",
        "app_label": "auth", "content_type_id": 1, "url": "nowhere/", "sha256": second.dataset.sha256,
    }  # fmt: skip
    for name in ("run", "replay", "rollout", "review", "delivery", "batch"):
        values[f"{name}_id"] = values[name]
    objects = {
        f"admin/{model._meta.label_lower.replace('.', '/')}/": model._default_manager.first()
        for model in admin.site._registry
    }
    opened, missing = 0, set()
    client = log_in(browser(slim))
    for route in routes(get_resolver().url_patterns):
        page = next((each for name, each in objects.items() if route.startswith(name)), None)
        pk = page.pk if page is not None else 1
        path = re.sub(r"\^?\(\?P<(\w+)>[^)]*\)/?\$?|<(?:\w+:)?(\w+)>", "{\\1\\2}", route)
        address = "/" + path.format(**values | {"object_id": pk, "job_id": pk, "row_id": pk}).removeprefix(
            "^"
        ).replace("$", "")
        if address in ("/admin/logout/", "/metrics"):
            continue
        answer = client.get(address)
        assert answer.status_code < 500, (route, address, answer.text[-1500:])
        opened += answer.status_code == 200
        if answer.status_code == 404:
            missing.add(route)
    assert opened > 90
    # A page of another site, the share of a rollout that is a shadow, an address that does not exist
    assert missing == {
        "admin/r/<path:content_type_id>/<path:object_id>/",
        "admin/training/rollout/<int:rollout_id>/raise/",
        "admin/(?P<url>.*)$",
    }
    for path in ("/api/schema/", "/metrics"):
        assert api.get(path).status_code == 200, path
    assert index.engine != "sklearn"


def test_what_needs_the_full_image_is_refused_in_words(
    server: Callable[[], Server], browser: Callable[..., httpx.Client], client_user: User
) -> None:
    train_sample("churn", rows=400)
    train_sample("houses", rows=600)
    by_scikit_learn = {
        "engine": "sklearn",
        "engine_reason": "a step cannot be compiled",
        "compiled_sha256": "",
    }
    train_sample("churn", rows=400, activate=False, **by_scikit_learn)
    train_sample("houses", rows=600, **by_scikit_learn)  # activated before the installation had COMPILED_ONLY
    customer = catalogue.get("churn").schema.example
    labelled = [{**customer, "churn": number % 2 == 0} for number in range(12)]
    slim = server()
    api = browser(slim, client_keys.issue(client_user))

    def refused(path: str, status: int, code: str, body: Any = None, **sent: Any) -> str:
        answer = api.post(f"/api/v1/models/{path}", **({"json": body} if body is not None else sent))
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        return str(answer.json()["error"]["message"])

    runs = "churn/training-runs/"
    message = refused(runs, 409, "needs_full_image", {"instances": labelled})
    assert message.startswith(FULL_IMAGE)
    assert "load_dataset" in message
    names = ",".join(labelled[0])
    rows = "\n".join([names, *(",".join(map(str, row.values())) for row in labelled)])
    csv = {"content": rows, "headers": {"Content-Type": "text/csv"}}
    assert refused(runs, 409, "needs_full_image", **csv) == message
    assert not Dataset.objects.filter(source__startswith="CSV (").exists()

    reason = {"reason": "a test", "override": True}
    message = refused("churn/versions/2/activate/", 409, "not_compiled", reason)
    assert message == (
        "scikit-learn serves churn 2, and this installation serves compiled versions only (COMPILED_ONLY): "
        "a step cannot be compiled"
    )
    for kind, more in (("shadow", {}), ("canary", {"percent": 10})):
        body = {"version": 2, "kind": kind, "reason": "a test", "override": True, **more}
        refused("churn/rollouts/", 409, "not_compiled", body)
    client = log_in(browser(slim))
    version = ModelVersion.objects.get(registered_model__name="churn", number=2)
    address = f"/admin/training/modelversion/{version.pk}/activate/"
    page = client.get(address)
    form = dict(re.findall(r'name="(before|after|csrfmiddlewaretoken)" value="([^"]*)"', page.text))
    form |= {"reason": "a test", "override": "on"}
    page = client.post(address, data=form, headers={"Referer": str(client.base_url)}, follow_redirects=True)
    assert "this installation serves compiled versions only" in page.text

    house = catalogue.get("houses").schema.example
    message = refused("houses/predictions/", 503, "artifact_unusable", house)
    assert message == (
        "houses 2 needs scikit-learn, which this image does not have: activate a compiled version, or run "
        "web from the full image"
    )
    ready = api.get("/healthz/ready")
    assert ready.status_code == 200, "churn still answers"
    assert "1 active version(s) cannot be loaded" in ready.text
    assert message in slim.printed()
    # Evaluations need none of these packages, and training on stored rows is a job.
    for path, body in (("churn/evaluations/", {"instances": labelled}), ("churn/predictions/", customer)):
        assert api.post(f"/api/v1/models/{path}", json=body).status_code == 200
    logged = api.post("/api/v1/models/churn/predictions/", json=customer).json()["predictions"][0]["id"]
    api.post(
        "/api/v1/models/churn/outcomes/", json=[{"prediction": logged, "actual": True}]
    ).raise_for_status()
    queued = api.post(f"/api/v1/models/{runs}", json={"from": "outcomes"})
    assert queued.status_code == 202, queued.text


def test_a_push_is_staged_without_the_packages_of_training(
    server: Callable[[], Server], browser: Callable[..., httpx.Client], client_user: User, tmp_path: Path
) -> None:
    package = Package(tmp_path / "package")
    slim = server()
    api = browser(slim, client_keys.issue(client_user))
    address, manifest = "/api/v1/models/penguins/versions/", {"manifest": package.describe()}
    files = {part: (name, package.file(part).read_bytes()) for part, name in NAMES.items()}
    pushed = api.post(address, data=manifest, files=files)
    assert pushed.status_code == 202, pushed.text
    assert run_requests.execute(pushed.json()["id"])
    run = api.get(pushed.headers["Location"]).json()
    assert (run["status"], run["origin"], run["error"]) == ("succeeded", "pushed", "")
    api.post(f"{address}1/activate/", json={"reason": "a test"}).raise_for_status()
    row = {"bill_mm": 39.1, "mass_g": 3750, "island": "Torgersen"}
    answer = api.post("/api/v1/models/penguins/predictions/", json=row)
    assert answer.json()["predictions"][0]["prediction"] in SPECIES, answer.text
