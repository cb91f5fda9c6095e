"""Sends predictions at a fixed rate, and checks that none of them was lost.

python -m docker.load send URL RESULT    sends predictions of churn to the server at URL; writes RESULT
python -m docker.load compare RESULT     compares RESULT with the log; needs DATABASE_URL or DATABASE_URL_FILE

Exit code 1: an answer was not 200 or did not come, or the log differs from the answers.

Every second request keeps its connection for the next one; each of the others opens its own. A request leaves
on time although earlier ones still wait, so a pause of the server delays answers and hides none. Nothing is
retried. `send` needs only the standard library.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker.start import database_url

CUSTOMER = {
    "gender": "female", "seniorcitizen": 0, "partner": "yes", "dependents": "no", "tenure": 1,
    "phoneservice": "no", "multiplelines": "no_phone_service", "internetservice": "dsl",
    "onlinesecurity": "no", "onlinebackup": "yes", "deviceprotection": "no", "techsupport": "no",
    "streamingtv": "no", "streamingmovies": "no", "contract": "month-to-month",
    "paperlessbilling": "yes", "paymentmethod": "electronic_check", "monthlycharges": 29.85,
    "totalcharges": 29.85,
}  # fmt: skip
PATH = "/api/v1/models/churn/predictions/"
MOST_AT_ONCE = 200
"""Requests that may wait for their answers at the same time, each in a thread; a container has 256."""
KEPT_SECONDS = 1.0
"""Seconds for which an idle connection is kept, less than any server or proxy keeps it."""
SHOWN = 10
"""Failures that are printed."""


class Load:
    """Requests to one server, and what became of them.

    Parameters
    ----------
    url : address of the server. host : value of the Host header. timeout : seconds for one answer.

    Attributes
    ----------
    run : marks the requests of this load in the log: they have the ids ``<run>-<number>``.
    acknowledged : prediction id by request id. failures : message by request id. milliseconds : of each
        answer.
    """

    def __init__(self, url: str, key: str, host: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._headers = {
            "Host": host,
            "Authorization": f"Token {key}",
            "Content-Type": "application/json",
        }
        self._body = json.dumps(CUSTOMER).encode()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._kept: list[tuple[float, http.client.HTTPConnection]] = []
        self.run = f"load-{uuid.uuid4().hex[:12]}"
        self.statuses: Counter[str] = Counter()
        self.acknowledged: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.milliseconds: list[float] = []

    def send(self, rate: float, seconds: float, until: Path | None) -> None:
        """Sends `rate` requests a second for `seconds`, or until a file exists."""
        begun, number = time.monotonic(), 0
        with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
            while (now := time.monotonic()) < begun + seconds and not (until and until.exists()):
                if begun + number / rate <= now:
                    threads.submit(self._one, number)
                    number += 1
                else:
                    time.sleep(min(0.05, begun + number / rate - now))

    def _one(self, number: int) -> None:
        identifier = f"{self.run}-{number}"
        keeps = number % 2 == 0
        begun = time.monotonic()
        connection = (self._take() if keeps else None) or self._connect()
        try:
            headers = self._headers | {"X-Request-ID": identifier}
            if not keeps:
                headers["Connection"] = "close"
            connection.request("POST", PATH, self._body, headers)
            response = connection.getresponse()
            status, body = response.status, response.read()
            prediction = json.loads(body)["predictions"][0]["id"] if status == 200 else ""
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            connection.close()
            self._record(identifier, begun, "broken", "", f"{type(error).__name__}: {error}")
            return
        if keeps and not response.will_close:
            self._keep(connection)
        else:
            connection.close()
        self._record(identifier, begun, str(status), prediction, body[:200].decode("utf-8", "replace"))

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=self._timeout)

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            while self._kept:
                since, connection = self._kept.pop()
                if time.monotonic() - since < KEPT_SECONDS:
                    return connection
                connection.close()
        return None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._kept.append((time.monotonic(), connection))

    def _record(self, identifier: str, begun: float, status: str, prediction: str, message: str) -> None:
        now = time.monotonic()
        with self._lock:
            self.statuses[status] += 1
            if prediction:
                self.acknowledged[identifier] = prediction
                self.milliseconds.append((now - begun) * 1000)
            else:
                moment = time.strftime("%H:%M:%S", time.gmtime())
                self.failures[identifier] = f"{moment} after {now - begun:.2f} s: {status} {message}"

    def result(self) -> dict[str, Any]:
        times = sorted(self.milliseconds) or [0.0]
        return {
            "run": self.run,
            "sent": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            "milliseconds": {
                "median": round(times[len(times) // 2], 1),
                "p99": round(times[int(len(times) * 0.99)], 1),
                "slowest": round(times[-1], 1),
            },
            "acknowledged": self.acknowledged,
            "failures": self.failures,
        }


def send(options: argparse.Namespace) -> int:
    key = options.key_file.read_text(encoding="utf-8").strip()
    load = Load(options.url, key, options.host, options.timeout)
    load.send(options.rate, options.seconds, options.until)
    result = load.result()
    options.result.write_text(json.dumps(result), encoding="utf-8")
    shown = ", ".join(f"{number} × {status}" for status, number in sorted(result["statuses"].items()))
    times = result["milliseconds"]
    print(  # noqa: T201
        f"{result['sent']} requests: {shown}; ms: median {times['median']}, p99 {times['p99']}, "
        f"slowest {times['slowest']}"
    )
    for identifier, message in list(result["failures"].items())[:SHOWN]:
        print(f"  {identifier} {message}")  # noqa: T201
    return 1 if result["failures"] or not result["acknowledged"] else 0


def differences(result: dict[str, Any], rows: list[tuple[str, str]]) -> list[str]:
    """Returns how log and answers differ; empty if the log has each answer once, and nothing else.

    Parameters
    ----------
    rows : (request id, prediction id) of the log's rows of this load.
    """
    logged = Counter(identifier for identifier, _ in rows)
    acknowledged = set(result["acknowledged"].items())
    return [
        *(f"answered and not logged: {each}" for each in sorted(acknowledged - set(rows))),
        *(f"logged {number} times: {each}" for each, number in sorted(logged.items()) if number > 1),
        *(f"logged and not answered: {each}" for each in sorted(set(logged) - set(result["acknowledged"]))),
    ]


def compare(options: argparse.Namespace) -> int:
    import psycopg

    result = json.loads(options.result.read_text(encoding="utf-8"))
    with psycopg.connect(database_url()) as connection:
        rows = connection.execute(
            "SELECT request_id, id::text FROM predictions_prediction WHERE starts_with(request_id, %s)",
            (f"{result['run']}-",),
        ).fetchall()
    found = differences(result, [(str(identifier), str(prediction)) for identifier, prediction in rows])
    answers = len(result["acknowledged"])
    print(f"{answers} answers, {len(rows)} rows in the log, {len(found)} differences")  # noqa: T201
    for line in found[:SHOWN]:
        print(f"  {line}")  # noqa: T201
    return 1 if found else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docker.load", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("send")
    sending.add_argument("url")
    sending.add_argument("result", type=Path)
    sending.add_argument("--rate", type=float, default=40, help="requests a second")
    sending.add_argument("--seconds", type=float, default=60)
    sending.add_argument("--until", type=Path, help="end as soon as this file exists")
    sending.add_argument("--timeout", type=float, default=60, help="seconds to wait for one answer")
    sending.add_argument("--key-file", type=Path, default=Path("/data/client-key"))
    sending.add_argument("--host", default="localhost", help="the Host header; one of ALLOWED_HOSTS")
    commands.add_parser("compare").add_argument("result", type=Path)
    options = parser.parse_args(arguments)
    return send(options) if options.command == "send" else compare(options)


if __name__ == "__main__":
    sys.exit(main())
