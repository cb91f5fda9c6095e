"""Whether a request costs more beside a large log, many versions and many keys: `make bench-growth`.

Two throw-away Vigías stand side by side. One stays small: its log is emptied before every run. The other
grows step by step, by plain SQL, and keeps what it was given before. After each step both are asked in turn,
round after round, and what counts is the processor time a request needs.

GROWTH_ROWS (10000000), GROWTH_VERSIONS (10000) and GROWTH_KEYS (100000) say how far it grows, GROWTH_SECONDS
(4) and GROWTH_ROUNDS (5) how long and how often each is asked. BENCH_WRITE=0 only prints, BENCH_KEEP=1 keeps
the data.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from bench import report
from bench.command import check_machine, number, run, say, starting
from bench.measuring import Load, count, load
from bench.processes import Failed, Started, cpu_seconds, wait_until
from bench.services import SCENARIOS, Bodies, Vigia, start_vigia

BEGIN, END = "<!-- growth:begin -->", "<!-- growth:end -->"
SCENARIO = next(scenario for scenario in SCENARIOS if scenario.name == "churn-16")
SMALL_ROWS, SMALL_VERSIONS, SMALL_KEYS = 1_000, 10, 10
MONTHS = 6  # over which the large log is spread, this one included
BATCH = 250_000
KEYS_A_CLIENT = 10
TARGET = 1.10
WARM_UP_SECONDS = 2.0
QUIET_SECONDS = 600.0
BYTES_A_ROW = 2_000  # generously: row, indexes, WAL
# A type DRF takes for JSON and the fast path does not know: Django answers the same request.
WAYS = {"fast": "-", "ordinary": "application/json;q=0.9"}
LOG = "predictions_prediction"
LOG_COLUMNS = "registered_model_id, version_id, client_id, key, inputs, prediction, probability, warnings"
TOUCHED = (
    *(LOG, "training_modelversion", "training_trainingrun"),
    *("knox_authtoken", "auth_user", "auth_user_user_permissions"),
)


@dataclass
class Side:
    """One of the two."""

    vigia: Vigia
    database: psycopg.Connection
    is_small: bool = True  # its log is to be emptied before a run


@dataclass(frozen=True)
class Step:
    """What is added to the large side, and how the table names what is there then."""

    title: str
    grow: Callable[[Side], None]


@dataclass(frozen=True)
class Pair:
    """Both sides, asked one after the other."""

    step: str
    way: str
    small: Load
    large: Load


# -- filling -------------------------------------------------------------------------------------------


def prepare(side: Side) -> None:
    """Some requests, whose rows are the pattern of all others; then the versions and keys of a small one."""
    service = side.vigia.service
    for body in service.targets[SCENARIO.name].bodies or []:
        status, answer = service.ask(SCENARIO.name, body)
        if status != 200:
            raise Failed(f"{service.name} answers with {status}: {answer[:500]!r}")
    side.database.execute(
        f"CREATE TABLE bench_row AS SELECT row_number() OVER () - 1 AS at, {LOG_COLUMNS} FROM {LOG}"  # noqa: S608
    )
    add_versions(side, SMALL_VERSIONS)
    add_keys(side, SMALL_KEYS)
    empty_log(side)
    tidy(side)


def empty_log(side: Side) -> None:
    """Leaves the log with the few rows of a small one."""
    with side.database.transaction():
        # The log's guard lets it pass, as it does for the test suite.
        side.database.execute("SET LOCAL vigia.maintenance = 'truncate'")
        side.database.execute(f"TRUNCATE {LOG}")
    fill_log(side, SMALL_ROWS, months=1)


def fill_log(side: Side, rows: int, *, months: int) -> None:
    """As many rows for each month, their ids spread evenly over its time that has passed."""
    done = 0
    for place, (start, end) in enumerate(past_months(months)):
        share = rows * (place + 1) // months - rows * place // months
        for first in range(0, share, BATCH):
            last = min(first + BATCH, share) - 1
            side.database.execute(
                f"INSERT INTO {LOG} (id, {LOG_COLUMNS}, request_id) "  # noqa: S608 - constants alone
                "SELECT uuidv7(make_interval(secs => %(start)s + n * %(step)s "
                "- extract(epoch FROM clock_timestamp())::float8)), "
                f"{LOG_COLUMNS}, uuidv7()::text "
                "FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n "
                "JOIN bench_row AS pattern ON pattern.at = n %% (SELECT count(*) FROM bench_row)",
                {"start": start, "step": (end - start) / share, "first": first, "last": last},
            )
            done += last - first + 1
            if rows > BATCH:
                say(f"  {done:,} of {rows:,} rows")


def past_months(months: int) -> Iterator[tuple[float, float]]:
    """Begin and end of each month in Unix seconds, the oldest first; the last one is ours and ends now."""
    end = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    found = []
    for _ in range(months):
        start = end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        found.append((start.timestamp(), end.timestamp()))
        end = start - dt.timedelta(seconds=1)
    return reversed(found)


def grow_log(side: Side, rows: int) -> None:
    """Partitions as they would have been made month by month, and rows in all of them."""
    oldest = dt.datetime.fromtimestamp(next(past_months(MONTHS))[0], dt.UTC)
    side.vigia.manage(
        "shell",
        "-c",
        "import datetime; from predictions.log import partitions; "
        f"partitions.ensure(datetime.datetime({oldest.year}, {oldest.month}, 1), {MONTHS - 1})",
    )
    side.is_small = False
    side.database.execute("SET synchronous_commit = off")  # of this connection alone
    fill_log(side, rows, months=MONTHS)


def add_versions(side: Side, total: int) -> None:
    """Retired copies of churn's version, each with a run of its own."""
    missing = total - count(side.database, "training_modelversion")
    if missing < 1:
        return
    run_columns = _columns(side, "training_trainingrun")
    version_columns = _columns(side, "training_modelversion")
    changed = {
        "number": "copied.n + (SELECT max(number) FROM training_modelversion AS own "
        "WHERE own.registered_model_id = version.registered_model_id)",
        "run_id": "copied.id",
        "status": "'retired'",
    }
    values = ", ".join(changed.get(name, f"version.{name}") for name in version_columns)
    first = (
        "FROM training_modelversion JOIN training_registeredmodel AS model "
        "ON model.id = registered_model_id WHERE model.name = 'churn' AND number = 1"
    )
    side.database.execute(
        f"WITH run AS (INSERT INTO training_trainingrun ({', '.join(run_columns)}) "  # noqa: S608
        f"SELECT {', '.join(f'run.{name}' for name in run_columns)} "
        "FROM training_trainingrun AS run, generate_series(1, %(missing)s) "
        f"WHERE run.id = (SELECT run_id {first}) RETURNING id), "
        "copied AS (SELECT id, row_number() OVER () AS n FROM run) "
        f"INSERT INTO training_modelversion ({', '.join(version_columns)}) "
        f"SELECT {values} FROM training_modelversion AS version, copied "
        f"WHERE version.id = (SELECT training_modelversion.id {first})",
        {"missing": missing},
    )


def _columns(side: Side, table: str) -> list[str]:
    found = side.database.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_name = %s AND column_name <> 'id' ORDER BY ordinal_position",
        [table],
    )
    return [str(name) for (name,) in found]


def add_keys(side: Side, total: int) -> None:
    """Keys of the client that asks."""
    missing = max(0, total - count(side.database, "knox_authtoken"))
    _insert_keys(side, missing, "newcomer")


def add_clients(side: Side, keys: int) -> None:
    """Clients with every right, and their keys."""
    database = side.database
    with database.transaction():
        database.execute(
            "INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, "
            "is_staff, is_active, date_joined) "
            "SELECT 'bench-' || n, '!', false, '', '', '', false, true, now() "
            "FROM generate_series(1, %s) AS n",
            [keys // KEYS_A_CLIENT],
        )
        database.execute(
            "INSERT INTO auth_user_user_permissions (user_id, permission_id) "
            "SELECT made.id, given.permission_id FROM auth_user AS made, auth_user AS like_it "
            "JOIN auth_user_user_permissions AS given ON given.user_id = like_it.id "
            "WHERE made.username LIKE 'bench-%' AND like_it.username = 'newcomer'"
        )
        _insert_keys(side, KEYS_A_CLIENT, "bench-%")


def _insert_keys(side: Side, each: int, clients: str) -> None:
    """So many keys for each client of that name; nobody knows them, as the digests are random."""
    side.database.execute(
        "INSERT INTO knox_authtoken (digest, token_key, user_id, created, expiry) "
        "SELECT encode(sha512(uuid_send(gen_random_uuid())), 'hex'), "
        "left(md5(gen_random_uuid()::text), 15), client.id, now(), NULL "
        "FROM auth_user AS client, generate_series(1, %s) WHERE client.username LIKE %s",
        [each, clients],
    )


@contextmanager
def at_rest(*sides: Side) -> Iterator[None]:
    """The keepers sleep: ten million rows that come at once are minutes of counting, no part of a request.

    What counting costs, whatever the log holds, is what `bench.rollups` measures."""
    for side in sides:
        os.kill(side.vigia.keeper_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for side in sides:  # or they would not hear that they are to end
            os.kill(side.vigia.keeper_pid, signal.SIGCONT)


def tidy(side: Side) -> None:
    """What autovacuum would do in its time, done now; returns when the server has nothing left to do."""
    for table in TOUCHED:
        side.database.execute(f"VACUUM (ANALYZE) {table}")

    def is_quiet() -> bool:
        before = cpu_seconds(side.vigia.postgres_pid)
        time.sleep(2)
        return cpu_seconds(side.vigia.postgres_pid) - before < 0.1

    if not wait_until(is_quiet, QUIET_SECONDS):
        say("  PostgreSQL is still busy with itself")


# -- asking --------------------------------------------------------------------------------------------


def ask(side: Side, way: str, seconds: float) -> Load:
    if side.is_small:
        empty_log(side)
    return load(SCENARIO, side.vigia.service, seconds, side.vigia.postgres_pid, WAYS[way])


def ask_both(step: Step, small: Side, large: Side, rounds: int, seconds: float) -> list[Pair]:
    found = []
    for way in WAYS:
        for side in (small, large):
            ask(side, way, WARM_UP_SECONDS)
    for turn in range(rounds):
        for way in WAYS:
            sides = [small, large] if turn % 2 == 0 else [large, small]
            loads = {side.vigia.service.name: ask(side, way, seconds) for side in sides}
            pair = Pair(step.title, way, loads["small"], loads["large"])
            found.append(pair)
            say(
                f"{turn + 1} {way:<8} small {_line(pair.small)}   large {_line(pair.large)}   "
                f"CPU large ÷ small {_cpu(pair.large) / _cpu(pair.small):.3f}"
            )
    return found


def _line(found: Load) -> str:
    return (
        f"{_rate(found):8,.0f}/s {_web(found) * 1e6:7.1f} + {_postgres(found) * 1e6:6.1f} µs "
        f"(autovacuum {found.autovacuum_cpu:.2f} s, others {found.other_cpu / found.seconds:4.0%})"
    )


def _web(found: Load) -> float:
    return found.server_cpu / max(1, found.requests)


def _postgres(found: Load) -> float:
    return (found.postgres_cpu - found.autovacuum_cpu) / max(1, found.requests)


def _cpu(found: Load) -> float:
    return _web(found) + _postgres(found)


# -- the page ------------------------------------------------------------------------------------------


def section(facts: report.Facts, steps: Sequence[Step], pairs: Sequence[Pair], large_bytes: int) -> str:
    """The tables and what they say."""
    parts = [
        f"Measured on {facts.date}: {facts.machine}; {facts.software}. PostgreSQL: {facts.durability}.",
        (
            f"{SCENARIO.title[0].upper()}{SCENARIO.title[1:]}; {facts.rounds} rounds of {facts.seconds} s, "
            "small and large in turn. Medians over the rounds; ratios are taken within a round, then their "
            f"median. The large database was {large_bytes / 2**30:.1f} GiB at the end."
        ),
    ]
    titles = {"fast": "Answered in the event loop", "ordinary": "The ordinary way, through Django and DRF"}
    for way in WAYS:
        parts += ["", f"**{titles[way]}**", ""]
        parts += list(_table(way, steps, pairs))
    loads = [each for pair in pairs for each in (pair.small, pair.large)]
    failed = sum(each.refused + each.broken for each in loads)
    busy = sorted(each.other_cpu / each.seconds for each in loads)
    worst = max(_ratio(pairs, step, way, _cpu) for step in steps for way in WAYS)
    vacuum = [
        sum(each.autovacuum_cpu for each in side) / max(1, sum(each.requests for each in side))
        for side in ([pair.small for pair in pairs], [pair.large for pair in pairs])
    ]
    others = f"{statistics.median(busy):.2f} in the median run, {busy[-1]:.2f} in the worst"
    verdict = "within" if worst <= TARGET else "**beyond**"
    parts += [
        "",
        f"- Largest ratio of all processor time: {worst:.2f}, {verdict} the {TARGET - 1:.0%} aimed at.",
        (
            "- Autovacuum, which comes once a minute if at all, is left out of PostgreSQL's time. Over all "
            f"runs it took {report.micro(vacuum[0])} µs a request in the small database, "
            f"{report.micro(vacuum[1])} in the large one."
        ),
        f"- Requests that failed, of {sum(each.requests for each in loads):,}: {failed}.",
        f"- Cores used by everything else: {others}.",
    ]
    return "\n".join(parts)


def _table(way: str, steps: Sequence[Step], pairs: Sequence[Pair]) -> Iterator[str]:
    yield (
        "| the large one has | requests/s, small | large | web CPU µs/request, small | large | large ÷ small "
        "| PostgreSQL CPU µs/request, small | large | large ÷ small | CPU in all, large ÷ small |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in steps:
        held = [pair for pair in pairs if pair.step == step.title and pair.way == way]
        small, large = [pair.small for pair in held], [pair.large for pair in held]
        cells = [step.title]
        cells += [report.thousands(_median(side, _rate)) for side in (small, large)]
        for cost in (_web, _postgres):
            cells += [report.micro(_median(side, cost)) for side in (small, large)]
            cells.append(report.ratio(_ratio(pairs, step, way, cost)))
        cells.append(report.ratio(_ratio(pairs, step, way, _cpu)))
        yield f"| {' | '.join(cells)} |"


def _rate(found: Load) -> float:
    return found.requests / found.seconds


def _median(loads: Sequence[Load], what: Callable[[Load], float]) -> float:
    return statistics.median(what(each) for each in loads)


def _ratio(pairs: Sequence[Pair], step: Step, way: str, what: Callable[[Load], float]) -> float:
    held = [pair for pair in pairs if pair.step == step.title and pair.way == way]
    return statistics.median(what(pair.large) / max(what(pair.small), 1e-9) for pair in held)


# -- the command ---------------------------------------------------------------------------------------


def start(started: Started, bodies: Bodies, name: str) -> Side:
    vigia = start_vigia(started, started.logs / name, bodies, name)
    vigia.service.write_bodies(started.logs)
    return Side(vigia, psycopg.connect(vigia.database_url, autocommit=True))


def main() -> int:
    check_machine()
    rows = number("GROWTH_ROWS", 10_000_000)
    versions, keys = number("GROWTH_VERSIONS", 10_000), number("GROWTH_KEYS", 100_000)
    rounds, seconds = number("GROWTH_ROUNDS", 5), number("GROWTH_SECONDS", 4)
    steps = [
        Step("no more than the small one: how far apart two equals are", lambda side: None),
        Step(f"{rows:,} rows in the log (the small one: {SMALL_ROWS:,})", lambda side: grow_log(side, rows)),
        Step(f"and {versions:,} versions ({SMALL_VERSIONS})", lambda side: add_versions(side, versions)),
        Step(f"and {keys:,} keys of the client ({SMALL_KEYS})", lambda side: add_keys(side, keys)),
        Step(
            f"and {keys:,} keys of {keys // KEYS_A_CLIENT:,} other clients (0)",
            lambda side: add_clients(side, keys),
        ),
    ]
    with starting() as started:
        folder = started.logs
        if shutil.disk_usage(folder).free < rows * BYTES_A_ROW:
            raise Failed(f"{rows:,} rows may need {rows * BYTES_A_ROW / 2**30:.0f} GiB below {folder}")
        say("Starting two Vigías (their first models are trained) ...")
        bodies = Bodies.drawn()
        small, large = (start(started, bodies, name) for name in ("small", "large"))
        for side in (small, large):
            prepare(side)
        pairs: list[Pair] = []
        with at_rest(small, large):
            for step in steps:
                began = time.monotonic()
                step.grow(large)
                tidy(large)
                say(f"The large one now: {step.title} ({time.monotonic() - began:.0f} s)")
                pairs += ask_both(step, small, large, rounds, seconds)
        facts = report.Facts.gathered(large.vigia.database_url, seconds, rounds)
        found = large.database.execute("SELECT pg_database_size(current_database())").fetchone()
        assert found is not None
        text = section(facts, steps, pairs, found[0])
        say(text)
        if os.environ.get("BENCH_WRITE") != "0":
            report.put(text, BEGIN, END)
        for side in (small, large):
            side.database.close()
        return 0


if __name__ == "__main__":
    run(main)
