"""A client of the published port, for docker/check.sh: python client.py ADDRESS WHAT [ARGUMENTS].

predict          asks every model and the movie recommender, and finds every answer in the log
retrain MODEL    trains from the image's sample rows, waits for the end, activates the version and asks it
batch_and_event HOST PORT
                 sends a batch, reads its results, and receives its end there as a signed event
login            logs into the admin with its form, as a browser does, and out again
probe SECONDS    asks one model again and again; prints the numbers of answers and of failures
monitoring PROMETHEUS ALERTMANAGER GRAFANA TARGETS
                 waits until that many targets are up; reads rules and dashboards, these only with a PASSWORD

The client key is in the variable KEY, the password of the user admin in PASSWORD. Exit code 1: a wrong
answer. Only the standard library: it runs in a container, from standard input.
"""

from __future__ import annotations

import base64
import csv
import hmac
import http.cookiejar
import http.server
import io
import json
import os
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TRAINING_SECONDS = 180
MODELS = {"bikes", "cars", "cars_v3", "churn", "houses"}
"""Models for which the first start trains a version, besides the movie recommender."""


class Unexpected(Exception):
    """An answer that fails the check."""


class Client:
    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.headers = {"Authorization": f"Token {os.environ['KEY']}"}

    def ask(self, method: str, path: str, body: Any = None, *, expected: tuple[int, ...] = (200,)) -> Any:
        """Returns the JSON of an answer.

        Raises
        ------
        Unexpected : the answer has another status.
        """
        request = urllib.request.Request(self.address + path, method=method, headers=self.headers)
        if body is not None:
            is_csv = isinstance(body, bytes)
            request.data = body if is_csv else json.dumps(body).encode()
            request.add_header("Content-Type", "text/csv" if is_csv else "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text, kind = answer.status, answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            status, text, kind = error.code, error.read(), error.headers.get_content_type()
        if status not in expected:
            raise Unexpected(f"{method} {path}: {status} {text[:500]!r}; expected {expected}")
        return json.loads(text) if kind == "application/json" else text.decode()

    def ended(self, path: str, job: Any) -> Any:
        """Returns a job once it has succeeded.

        Raises
        ------
        Unexpected : the job failed, or takes too long.
        """
        until = time.monotonic() + TRAINING_SECONDS
        while job["status"] in ("queued", "running") and time.monotonic() < until:
            time.sleep(0.5)
            job = self.ask("GET", path)
        if job["status"] != "succeeded":
            raise Unexpected(f"{path}: {json.dumps(job)[:2000]}")
        return job

    def predict(self, model: str) -> Any:
        """Returns the answer of one model to its example row."""
        if model == "movies":
            return self.ask("POST", "/api/v1/recommendations/", {"movie_id": 1, "top_n": 3})
        example = self.ask("GET", f"/api/v1/models/{model}/")["example"]
        return self.ask("POST", f"/api/v1/models/{model}/predictions/", example)


def predict(client: Client) -> None:
    rows = client.ask("GET", "/api/v1/models/")
    names = {row["name"] for row in rows}
    if missing := (MODELS | {"movies"}) - names:
        raise Unexpected(f"models are missing: {sorted(missing)}")
    for name in sorted(names):
        answer = client.predict(name)
        if name == "movies":
            if len(answer["recommendations"]) != 3:
                raise Unexpected(f"movies: {answer}")
            identifier = answer["id"]
        else:
            (row,) = answer["predictions"]
            if row["prediction"] is None or row["warnings"]:
                raise Unexpected(f"{name}: {answer}")
            identifier = row["id"]
        logged = client.ask("GET", f"/api/v1/predictions/{identifier}/")
        if logged["version"] != answer["version"] or logged["model"] != name:
            raise Unexpected(f"{name}: answered {answer}, logged {logged}")
        print(f"{name} {answer['version']}", end="  ")
    print()


def retrain(client: Client, model: str) -> None:
    before = client.ask("GET", f"/api/v1/models/{model}/active/")["version"]
    runs = f"/api/v1/models/{model}/training-runs/"
    if model == "movies":
        run = client.ask("POST", runs, {}, expected=(202,))
    else:
        rows = Path(f"/app/training/samples/{model}.csv").read_bytes()
        run = client.ask("POST", f"{runs}?mode=replace&repeat=true", rows, expected=(202,))
    run = client.ended(f"{runs}{run['id']}/", run)
    version = run["version"]
    if not run["activated"]:
        activate = f"/api/v1/models/{model}/versions/{version}/activate/"
        client.ask("POST", activate, {"reason": "container check", "override": True}, expected=(200, 201))
    answered = client.predict(model)["version"]
    if version <= before or answered != version:
        raise Unexpected(f"{model}: {before} before, {version} trained, {answered} answers")
    print(f"{model} {before} → {version}")


def receiver(host: str, port: int) -> queue.Queue[tuple[Any, bytes]]:
    """Returns the requests (headers, body) that a server on that address will get."""
    received: queue.Queue[tuple[Any, bytes]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return received


def batch_and_event(client: Client, host: str, port: int) -> None:
    received = receiver(host, port)
    wanted = {"name": f"check-{time.time()}", "channel": "webhook", "kinds": ["batch.ended"]}
    refused = {**wanted, "address": "http://10.255.255.1:8080/"}
    client.ask("POST", "/api/v1/subscriptions/", refused, expected=(400,))
    accepted = {**wanted, "address": f"http://{host}:{port}/"}
    subscription = client.ask("POST", "/api/v1/subscriptions/", accepted, expected=(201,))
    rows = 3 * list(csv.DictReader(Path("/app/training/samples/churn.csv").read_text().splitlines()))
    body = io.StringIO()
    columns = [name for name in rows[0] if name.lower() != "churn"]
    writer = csv.DictWriter(body, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    batches = "/api/v1/models/churn/batches/"
    batch = client.ask("POST", batches, body.getvalue().encode(), expected=(202,))
    path = f"{batches}{batch['id']}/"
    client.ended(path, batch)
    results = list(csv.DictReader(client.ask("GET", f"{path}results/?format=csv").splitlines()))
    if [int(row["row"]) for row in results] != [*range(len(rows))]:
        raise Unexpected(f"a batch of {len(rows)} rows has {len(results)} results: {results[:2]}")
    ids = {row["id"] for row in results}
    logged = client.ask("GET", f"/api/v1/predictions/{results[-1]['id']}/")
    if len(ids) != len(rows) or logged["model"] != "churn":
        raise Unexpected(f"{len(ids)} different ids of {len(rows)} rows; the last in the log: {logged}")
    try:
        headers, message = received.get(timeout=30)
    except queue.Empty:
        shown = client.ask("GET", subscription["links"]["deliveries"].removeprefix(client.address))
        raise Unexpected(f"no event has come in 30 s: {shown}") from None
    # As the receivers of Standard Webhooks verify it.
    secret = base64.b64decode(subscription["secret"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + message
    signature = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
    event = json.loads(message)
    if f"v1,{signature}" not in headers["webhook-signature"].split():
        raise Unexpected(f"the signature {headers['webhook-signature']} does not verify: {event}")
    if (event["type"], event["model"]) != ("batch.ended", "churn") or str(batch["id"]) not in str(event):
        raise Unexpected(f"the end of batch {batch['id']} was expected: {event}")
    client.ask("DELETE", f"/api/v1/subscriptions/{subscription['id']}/", expected=(204,))
    print(f"{len(rows)} rows, {event['type']} verified")


def login(address: str) -> None:
    """Sends the form of the login page with its hidden fields, as a browser does."""
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))

    def page(path: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        request = urllib.request.Request(address + path)
        if form is not None:
            request.data = urllib.parse.urlencode(form).encode()
            request.add_header("Origin", address)
            request.add_header("Referer", address + path)
        try:
            with browser.open(request, timeout=30) as answer:
                return answer.status, answer.url, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.url, error.read().decode()

    def hidden(text: str) -> dict[str, str]:
        fields = re.findall(r'<input[^>]+type="hidden"[^>]*>', text)
        pairs = [(re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)) for tag in fields]
        return {name[1]: value[1] if value else "" for name, value in pairs if name}

    path = "/admin/login/?next=/admin/"
    status, _, text = page(path)
    fields = hidden(text)
    if status != 200 or not fields.get("csrfmiddlewaretoken"):
        raise Unexpected(f"login page: {status}, hidden fields {sorted(fields)}")
    user = {"username": "admin", "password": os.environ["PASSWORD"]}
    refused, _, _ = page(path, user)
    if refused != 403:
        raise Unexpected(f"a form without its CSRF token: {refused}; expected 403")
    _, url, text = page(path, {**fields, **user, "password": "not the password"})
    if "/admin/login/" not in url:
        raise Unexpected(f"a wrong password leads to {url}")
    status, url, text = page(path, {**hidden(text), **user})
    if status != 200 or url != f"{address}/admin/":
        raise Unexpected(f"the right password leads to {status} {url}")
    status, url, text = page("/admin/training/modelversion/")
    if status != 200 or "login" in url:
        raise Unexpected(f"the page of versions: {status} {url}")
    status, _, _ = page("/admin/logout/", {"csrfmiddlewaretoken": hidden(text)["csrfmiddlewaretoken"]})
    _, url, _ = page("/admin/")
    if status != 200 or "/admin/login/" not in url:
        raise Unexpected(f"after the logout ({status}) the admin leads to {url}")
    print("logged in and out")


def probe(client: Client, seconds: float) -> None:
    """Asks five times a second."""
    body = client.ask("GET", "/api/v1/models/cars/")["example"]
    started = time.monotonic()
    answered, refused = 0, 0
    while time.monotonic() < started + seconds:
        try:
            client.ask("POST", "/api/v1/models/cars/predictions/", body)
        except (OSError, Unexpected):
            refused += 1
        else:
            answered += 1
        time.sleep(0.2)
    print(f"{answered} answers, {refused} failures")


def monitoring(prometheus: str, alertmanager: str, grafana: str, expected: int) -> None:
    def read(address: str, path: str, **headers: str) -> Any:
        request = urllib.request.Request(address + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    until = time.monotonic() + 60
    while True:
        targets = read(prometheus, "/api/v1/targets?state=active")["data"]["activeTargets"]
        down = [target for target in targets if target["health"] != "up"]
        if len(targets) == expected and not down:
            break
        if time.monotonic() > until:
            shown = [(target["scrapeUrl"], target["health"], target["lastError"]) for target in targets]
            raise Unexpected(f"{expected} targets are to be up; after 60 s: {shown}")
        time.sleep(1)
    rules = [rule for group in read(prometheus, "/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    ill = [rule for rule in rules if rule["health"] == "err"]
    if len(rules) < 10 or ill:
        raise Unexpected(f"{len(rules)} rules; with errors: {ill}")
    if len(read(prometheus, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]) != 1:
        raise Unexpected("Prometheus knows no Alertmanager")
    if read(alertmanager, "/api/v2/status")["config"]["original"] == "":
        raise Unexpected("Alertmanager has no configuration")
    counted = read(prometheus, "/api/v1/query?query=sum(vigia_predictions_total)")["data"]["result"]
    if not counted or float(counted[0]["value"][1]) < 1:
        raise Unexpected(f"Prometheus has counted no prediction: {counted}")
    boards = "Grafana not asked"
    if password := os.environ["PASSWORD"]:
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        found = read(grafana, "/api/search?type=dash-db", Authorization=f"Basic {login}")
        if not found:
            raise Unexpected("Grafana has no dashboard")
        boards = f"{len(found)} dashboards"
    print(f"{len(targets)} targets, {len(rules)} rules, {boards}")


def main(address: str, what: str, *arguments: str) -> int:
    try:
        match what:
            case "predict":
                predict(Client(address))
            case "retrain":
                retrain(Client(address), *arguments)
            case "batch_and_event":
                batch_and_event(Client(address), arguments[0], int(arguments[1]))
            case "login":
                login(address)
            case "monitoring":
                monitoring(*arguments[:3], int(arguments[3]))
            case "probe":
                probe(Client(address), float(arguments[0]))
            case _:
                raise Unexpected(f"unknown: {what}")
    except (Unexpected, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
