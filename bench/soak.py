"""Memory of every process under a mixed load: `make soak MINUTES=10`.

A temporary Vigía answers predictions of one row and of a thousand, reads its log as JSON and as CSV, shows
pages of the admin, reviews drift and trains again, all concurrently and at a steady pace. Every few seconds
the command records the resident memory of each process. It fails if a web process grows by more than 5 %
after its second minute.

MINUTES (10) sets the duration. BENCH_WRITE=0 prints without writing, BENCH_KEEP=1 keeps logs and data.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import report, samples
from bench.command import number, run, say, starting
from bench.processes import ROOT, Failed
from bench.services import HOST, Bodies, Vigia, start_vigia
from bench.start import children, resident_bytes

BEGIN, END = "<!-- soak:begin -->", "<!-- soak:end -->"
PICTURE = ROOT / "docs" / "images" / "soak.svg"
SETTLED_MINUTES = 2.0
ALLOWED = 1.05
SAMPLE_SECONDS = 5.0
KEPT_SECONDS = 5.0  # the server closes a connection after 15 idle seconds
MIB = 2**20
CHURN = "/api/v1/models/churn"
PASSWORD = "soak-soak-soak"  # noqa: S105 - of a temporary service on loopback
PEOPLE = (
    "from django.contrib.auth.models import User; "
    f"User.objects.create_superuser('soak', password='{PASSWORD}')"
)
PAGES = (
    "/admin/", "/admin/predictions/prediction/", "/admin/training/modelversion/",
    "/admin/training/activation/",
    "/admin/training/trainingrun/", "/admin/predictions/driftreview/", "/admin/training/dataset/",
)  # fmt: skip


@dataclass
class Soak:
    """The state of one run.

    samples : (minutes, MiB) by process. answered : requests by kind and status.
    """

    vigia: Vigia
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def repeat(self, kind: str, pause: float, ask: Callable[[], int]) -> threading.Thread:
        """Starts a thread that sends requests with a pause between them until the end."""

        def work() -> None:
            while not self.stop.is_set():
                try:
                    status = str(ask())
                except (OSError, http.client.HTTPException) as error:
                    status = type(error).__name__
                self.answered[f"{kind}: {status}"] += 1
                self.stop.wait(pause)

        thread = threading.Thread(target=work, name=kind, daemon=True)
        thread.start()
        return thread

    def sample(self, minutes: float) -> None:
        web = children(self.vigia.service.pid)
        for place, pid in enumerate(web, start=1):
            held = self.samples.setdefault(f"web process {place}", [])
            held.append((minutes, resident_bytes(pid) / MIB))
        held_bytes = resident_bytes(self.vigia.housekeeping_pid)
        self.samples.setdefault("housekeeping", []).append((minutes, held_bytes / MIB))


def requester(vigia: Vigia, method: str, bodies: Sequence[tuple[str, object]]) -> Callable[[], int]:
    """Returns a function that sends the next request over one connection and returns the status."""
    connection, turn = http.client.HTTPConnection(HOST, vigia.service.port, timeout=60), iter(range(10**9))
    used_at = time.monotonic()

    def ask() -> int:
        nonlocal used_at
        if time.monotonic() - used_at > KEPT_SECONDS:
            connection.close()  # the next request opens it again
        used_at = time.monotonic()
        path, body = bodies[next(turn) % len(bodies)]
        headers = {"Authorization": vigia.service.key, "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return answer.status

    return ask


def browser(vigia: Vigia) -> Callable[[], int]:
    """Logs in; returns a function that opens the next page and returns the status."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    address = f"http://{HOST}:{vigia.service.port}"
    form = opener.open(f"{address}/admin/login/", timeout=60).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    if token is None:
        raise Failed("the login page has no form")
    fields = {"csrfmiddlewaretoken": token[1], "username": "soak", "password": PASSWORD, "next": "/admin/"}
    body = urllib.parse.urlencode(fields).encode()
    opener.open(urllib.request.Request(f"{address}/admin/login/", body), timeout=60).read()  # noqa: S310
    turn = iter(range(10**9))

    def ask() -> int:
        with opener.open(f"{address}{PAGES[next(turn) % len(PAGES)]}", timeout=60) as answer:
            answer.read()
            return int(answer.status)

    return ask


def load(soak: Soak, bodies: Bodies) -> list[threading.Thread]:
    """Starts the mixed load."""
    vigia = soak.vigia
    vigia.manage("shell", "-c", PEOPLE)
    rows, labels = samples.churn()
    more = [{**row, "churn": label} for row, label in zip(rows[:200], labels[:200], strict=True)]
    predict, log = f"{CHURN}/predictions/", f"{CHURN}/predictions/?limit=1000"
    one = [(predict, row) for row in bodies.one]
    kinds: list[tuple[str, float, Callable[[], int]]] = [
        *[("one row", 0.01, requester(vigia, "POST", one)) for _ in range(4)],
        ("1,000 rows", 0.5, requester(vigia, "POST", [(predict, many) for many in bodies.many])),
        *[("log as CSV", 0.5, requester(vigia, "GET", [(f"{log}&format=csv", None)])) for _ in range(2)],
        ("log as JSON", 0.5, requester(vigia, "GET", [(log, None), (f"{CHURN}/outcomes/", None)])),
        (
            "drift review",
            2.0,
            requester(vigia, "GET", [(f"{CHURN}/drift/", None), (f"{CHURN}/versions/", None)]),
        ),
        ("admin page", 0.1, browser(vigia)),
        ("training run", 60.0, requester(vigia, "POST", [(f"{CHURN}/training-runs/", {"instances": more})])),
    ]
    return [soak.repeat(*kind) for kind in kinds]


def growth(held: Sequence[tuple[float, float]]) -> float:
    """Returns the peak memory after the second minute divided by the memory at its end."""
    settled = [mib for minutes, mib in held if minutes >= SETTLED_MINUTES]
    return max(settled) / settled[0] if settled else 1.0


def draw(path: Path, samples_of: dict[str, list[tuple[float, float]]]) -> None:
    """Draws a line per process as SVG."""
    width, height, left, bottom = 760, 300, 56, 40
    most = max(mib for held in samples_of.values() for _, mib in held) * 1.1
    end = max(minutes for held in samples_of.values() for minutes, _ in held)

    def at(minutes: float, mib: float) -> str:
        x = left + (width - left - 130) * minutes / end
        return f"{x:.1f},{height - bottom - (height - bottom - 16) * mib / most:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        '<g font-family="DejaVu Sans, sans-serif" font-size="11" fill="#22313a">',
        "<title>Resident memory of each process under a mixed load</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    step = 50 if most < 400 else 200
    for mib in range(0, int(most) + 1, step):
        x, y = at(0, mib).split(",")
        parts.append(f'<line x1="{x}" x2="{width - 130}" y1="{y}" y2="{y}" stroke="#e3e8eb"/>')
        parts.append(f'<text x="{left - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{mib}</text>')
    for minute in range(int(end) + 1):
        x, y = at(minute, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{minute}</text>')
    parts.append(f'<text x="{left}" y="{height - 6}">minutes; MiB of resident memory</text>')
    colours = ("#14708a", "#d08a3c", "#5b4a8a", "#9aa5ad")
    taken: list[float] = []
    for (name, held), colour in zip(sorted(samples_of.items()), colours, strict=False):
        points = " ".join(at(*each) for each in held)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        x, y = (float(each) for each in at(*held[-1]).split(","))
        while any(abs(y - other) < 13 for other in taken):
            y -= 13
        taken.append(y)
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</g>", "</svg>"]) + "\n", encoding="utf-8")


def section(soak: Soak, minutes: int) -> str:
    lines = [
        f"{minutes} minutes; the load average at the end was {os.getloadavg()[1]:.1f}.",
        "",
        "![Resident memory of each process under a mixed load](images/soak.svg)",
        "",
        "| process | MiB after two minutes | most after that | at the end |",
        "|---|---|---|---|",
    ]
    for name, held in sorted(soak.samples.items()):
        settled = [mib for when, mib in held if when >= SETTLED_MINUTES]
        lines.append(
            f"| {name} | {settled[0]:.0f} | {max(settled):.0f} (× {growth(held):.3f}) | {settled[-1]:.0f} |"
        )
    lines += ["", "| requests | how many |", "|---|---|"]
    lines += [f"| {kind} | {many:,} |" for kind, many in sorted(soak.answered.items())]
    return "\n".join(lines)


def main() -> int:
    minutes = number("MINUTES", 10)
    if minutes <= SETTLED_MINUTES:
        raise Failed(f"MINUTES={minutes}: a soak needs more than {SETTLED_MINUTES:.0f}")
    with starting() as started:
        say("Starting Vigía (its first models are trained) ...")
        bodies = Bodies.drawn()
        soak = Soak(start_vigia(started, started.logs, bodies))
        threads = load(soak, bodies)
        began = time.monotonic()
        while (passed := (time.monotonic() - began) / 60) < minutes:
            soak.sample(passed)
            time.sleep(SAMPLE_SECONDS)
        soak.stop.set()
        for thread in threads:
            thread.join(60)
        (started.logs / "samples.json").write_text(json.dumps(soak.samples), encoding="utf-8")
        text = section(soak, minutes)
        say(text)
        if os.environ.get("BENCH_WRITE") != "0":
            draw(PICTURE, soak.samples)
            report.put(text, BEGIN, END)
        grown = {name: growth(held) for name, held in soak.samples.items() if name.startswith("web")}
        if max(grown.values()) > ALLOWED:
            say(f"A web process grew by more than {ALLOWED - 1:.0%} after its second minute: {grown}")
            return 1
        return 0


if __name__ == "__main__":
    run(main)
