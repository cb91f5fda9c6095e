"""Memory of every process under a mixed load: `make soak MINUTES=10`.

A temporary Vigía answers predictions of one row and of a thousand, of every model, as JSON and as CSV, reads
its lists and its log as JSON and as CSV, shows pages of the API and of the admin (a browser follows their
links), takes outcomes, reviews drift and trains again, all concurrently and at a steady pace. Every few
seconds the command records the resident memory of each process. It fails if a web process grows by more than
5 % after its second minute, or ends above 200 MiB.

MINUTES (10) sets the duration. BENCH_WRITE=0 prints without writing, BENCH_KEEP=1 keeps logs and data.
"""

from __future__ import annotations

import csv
import html
import http.client
import http.cookiejar
import io
import json
import os
import random
import re
import threading
import time
import urllib.error
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
ALLOWED_MIB = 200.0
SAMPLE_SECONDS = 5.0
KEPT_SECONDS = 5.0  # the server closes a connection after 15 idle seconds
MIB = 2**20
CHURN = "/api/v1/models/churn"
LOG = f"{CHURN}/predictions/"
PASSWORD = "soak-soak-soak"  # noqa: S105 - of a temporary service on loopback
PEOPLE = (
    "from django.contrib.auth.models import User; "
    f"User.objects.create_superuser('soak', password='{PASSWORD}')"
)
PAGES = ("/admin/", "/admin/predictions/prediction/", "/admin/training/modelversion/", "/api/v1/", LOG)
LISTS = (
    "/api/v1/models/", f"{CHURN}/versions/", f"{CHURN}/training-runs/",
    f"{CHURN}/quality/", f"{CHURN}/drift/reviews/", f"{CHURN}/rollouts/", "/api/v1/movies/",
)  # fmt: skip
LINK = re.compile(r'href="(/(?:admin|api)/[^"#]*)"')
LINKS_FROM = 40
"""Links of a page that the browser may follow next."""


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


def requester(
    vigia: Vigia, method: str, bodies: Sequence[tuple[str, object]], content_type: str = "application/json"
) -> Callable[[], int]:
    """Returns a function that sends the next request over one connection and returns the status. Bytes are
    sent as they are, other bodies as JSON."""
    connection, turn = http.client.HTTPConnection(HOST, vigia.service.port, timeout=60), iter(range(10**9))
    used_at = time.monotonic()

    def ask() -> int:
        nonlocal used_at
        if time.monotonic() - used_at > KEPT_SECONDS:
            connection.close()  # the next request opens it again
        used_at = time.monotonic()
        path, body = bodies[next(turn) % len(bodies)]
        headers = {"Authorization": vigia.service.key, "Content-Type": content_type}
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return answer.status

    return ask


def browser(vigia: Vigia, seed: int) -> Callable[[], int]:
    """Logs in; returns a function that opens the next page and returns the status. Every second page is a
    link of an earlier one."""
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
    turn, draw, links = iter(range(10**9)), random.Random(seed), list(PAGES)  # noqa: S311

    def ask() -> int:
        place = next(turn)
        path = PAGES[place // 2 % len(PAGES)] if place % 2 else draw.choice(links)
        asked = urllib.request.Request(f"{address}{path}", headers={"Accept": "text/html"})  # noqa: S310
        try:
            with opener.open(asked, timeout=60) as answer:
                found = sorted(set(LINK.findall(answer.read().decode())))
                status = int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        links[:] = [html.unescape(each) for each in draw.sample(found, min(LINKS_FROM, len(found)))]
        links.extend(PAGES)
        return status

    return ask


def as_csv(rows: Sequence[samples.Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def examples(vigia: Vigia) -> list[tuple[str, object]]:
    """Returns a path and a valid body for predictions of every model."""
    with urllib.request.urlopen(f"http://{HOST}:{vigia.service.port}/api/schema/?format=json") as answer:
        paths = json.load(answer)["paths"]
    found: list[tuple[str, object]] = []
    for path, methods in paths.items():
        if re.fullmatch(r"/api/v1/models/\w+/predictions/", path) and "post" in methods:
            found.append((path, methods["post"]["requestBody"]["content"]["application/json"]["example"]))
    return found


def load(soak: Soak, bodies: Bodies) -> list[threading.Thread]:
    """Starts the mixed load."""
    vigia = soak.vigia
    vigia.manage("shell", "-c", PEOPLE)
    rows, labels = samples.churn()
    more = [{**row, "churn": label} for row, label in zip(rows[:200], labels[:200], strict=True)]
    log = f"{LOG}?limit=1000"
    one = [(LOG, row) for row in bodies.one]
    many = [(LOG, each) for each in bodies.many]
    sheets = [(LOG, as_csv(each)) for each in bodies.many]
    outcomes = [
        (
            f"{CHURN}/outcomes/",
            [{"key": f"soak-{batch}-{row}", "actual": True} for row in range(1000)],
        )
        for batch in range(200)
    ]
    lists = [(path, None) for path in (*LISTS, f"{CHURN}/outcomes/?limit=1000")]
    movies = [("/api/v1/recommendations/", {"movie_id": each, "top_n": 20}) for each in range(1, 40)]
    kinds: list[tuple[str, float, Callable[[], int]]] = [
        *[("one row", 0.01, requester(vigia, "POST", one)) for _ in range(4)],
        ("one row of every model", 0.1, requester(vigia, "POST", examples(vigia))),
        ("recommendation", 0.1, requester(vigia, "POST", movies)),
        ("1,000 rows", 0.5, requester(vigia, "POST", many)),
        ("1,000 rows as CSV", 2.0, requester(vigia, "POST", sheets, "text/csv")),
        ("1,000 outcomes", 5.0, requester(vigia, "POST", outcomes)),
        *[("log as CSV", 0.5, requester(vigia, "GET", [(f"{log}&format=csv", None)])) for _ in range(2)],
        *[("log as JSON", 0.5, requester(vigia, "GET", [(log, None)])) for _ in range(2)],
        ("list", 0.2, requester(vigia, "GET", lists)),
        ("evaluation", 5.0, requester(vigia, "POST", [(f"{CHURN}/evaluations/", {"instances": more})])),
        ("drift review", 2.0, requester(vigia, "GET", [(f"{CHURN}/drift/", None)])),
        *[("page", 0.2, browser(vigia, seed)) for seed in range(2)],
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
        most = max(mib for name in grown for _, mib in soak.samples[name])
        if most > ALLOWED_MIB:
            say(f"A web process had {most:.0f} MiB; at most {ALLOWED_MIB:.0f} are allowed")
            return 1
        return 0


if __name__ == "__main__":
    run(main)
