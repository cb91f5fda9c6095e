"""The log's writer: entries released without an error are committed once, and no client waits for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections, transaction
from uuid_utils import uuid7

from predictions.errors import LogUnavailable, NotStorable, OutcomeUnknown
from predictions.log import connection as wire
from predictions.log import writer as log
from predictions.log.statements import Claim, LogRows
from predictions.log.writer import AlreadyAnswered, Entry, Stale, Writer
from predictions.models import Prediction
from tests.conftest import at_once
from training.models import IdempotencyKey, ModelVersion
from training.serving import routing

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def writer(db: None) -> Iterator[Writer]:
    made = Writer(most_rows=1_000)
    yield made
    made.close()


Make = Callable[..., Entry]


@pytest.fixture
def entry(churn: ModelVersion) -> Make:
    """Entries with rows of the churn model; `changed` are the cells of all rows by their column's name."""

    def make(rows: int = 1, claim: Claim | None = None, **given: Any) -> Entry:
        cells: dict[str, bytes | None] = {
            "model": b"%d" % churn.registered_model_id, "version": b"%d" % churn.pk, "client": None,
            "request": b"r-1", "inputs": b'{"tenure": 1}', "predictions": b"true", "probabilities": b"0.5",
            "keys": None, "warnings": None,
        } | given.pop("changed", {})  # fmt: skip
        origin: Any = tuple(cells.pop(name) for name in ("model", "version", "client", "request"))
        ids = [cells.pop("ids", None) or str(uuid7()).encode() for _ in range(rows)]
        inputs = cells.pop("inputs") + b"\n"
        columns: Any = {name: None if cell is None else [cell] * rows for name, cell in cells.items()}
        made = LogRows(origin, ids, inputs * rows, **columns)
        return Entry(made, given.pop("generation", None) or routing.generation(), claim=claim, **given)

    return make


def released(writer: Writer, *entries: Entry) -> list[Exception | None]:
    for each in entries:
        writer.submit(each)
    assert all(each.wait(20) for each in entries)
    return [each.error for each in entries]


@pytest.mark.parametrize("rows", [1, 2, 32, 33, 700])
def test_rows_are_committed_when_their_entry_is_released(writer: Writer, entry: Make, rows: int) -> None:
    """The number of rows selects the form of the statement; both store the same row."""
    made = entry(
        rows,
        changed={
            "keys": 'tab\there, "\\", line\nnew\rñ 🦫'.encode(),
            "inputs": rb'["a\\b\tc\u00f1\"", null, 1.5]',
            "probabilities": None,
            "warnings": '[{"code": "a \\"b\\" \\\\ 🦫"}]'.encode(),
        },
    )
    assert released(writer, made) == [None]
    assert Prediction.objects.count() == rows
    row = Prediction.objects.order_by("id").first()
    assert row is not None
    assert str(row.id).encode() == made.rows.ids[0]
    assert row.key == 'tab\there, "\\", line\nnew\rñ 🦫'
    assert row.cells == ['a\\b\tcñ"', None, 1.5]
    assert row.warnings == [{"code": 'a "b" \\ 🦫'}]
    assert row.probability is None
    assert row.client is None


def test_queued_entries_are_committed_together(writer: Writer, entry: Make) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:  # holds the first group up
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        entries = [entry(2) for _ in range(20)]
        for each in entries:
            writer.submit(each)
        assert not entries[0].wait(0.1)
    assert all(each.wait(20) and each.error is None for each in entries)
    assert Prediction.objects.count() == 40
    assert writer.groups <= 2, "what had come before the first was taken, and all that came meanwhile"
    assert writer.waiting_rows == 0


def test_a_group_is_limited_by_its_bytes(writer: Writer, entry: Make) -> None:
    long = b'["%b"]' % (b"x" * 2**19)
    with transaction.atomic():
        with connection.cursor() as cursor:  # holds the first group up
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        entries = [entry(changed={"inputs": long}) for _ in range(20)]
        for each in entries:
            writer.submit(each)
        assert not entries[0].wait(0.1)
    assert all(each.wait(20) and each.error is None for each in entries)
    assert Prediction.objects.count() == 20
    assert 3 <= writer.groups <= 5, "ten megabytes in groups of up to four"


def test_columns_of_different_lengths_are_not_written(writer: Writer, entry: Make) -> None:
    made = entry(3)
    made.rows = replace(made.rows, predictions=made.rows.predictions[:2])
    [error] = released(writer, made)
    assert isinstance(error, NotStorable)
    assert Prediction.objects.count() == 0


def test_a_stale_generation_writes_nothing(writer: Writer, entry: Make) -> None:
    errors = released(writer, entry(generation=-1), entry(40, generation=-1))
    assert [type(error) for error in errors] == [Stale, Stale]
    assert released(writer, entry()) == [None], "the connection is as good as before"
    assert Prediction.objects.count() == 1


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": b'{"a": '},
        {"inputs": b"[1]\n[2]"},
        {"probabilities": b"no number"},
        {"ids": b"no id"},
        {"request": b"r" * 65},
        {"keys": b"k" * 201},
        {"predictions": b"tru"},
        {"warnings": b"["},
    ],
    ids=str,
)
def test_a_row_that_cannot_be_stored_does_not_fail_other_entries(
    writer: Writer, entry: Make, rows: int, changed: dict[str, bytes]
) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        first, good, bad, other = entry(), entry(rows), entry(rows, changed=changed), entry(rows)
        for each in (first, good, bad, other):
            writer.submit(each)
        assert not first.wait(0.1)
    assert all(each.wait(20) for each in (first, good, bad, other))
    assert [each.error for each in (first, good, other)] == [None] * 3
    assert isinstance(bad.error, NotStorable)
    assert Prediction.objects.count() == 1 + 2 * rows


def test_a_full_queue_refuses_entries_and_loses_none(writer: Writer, entry: Make) -> None:
    writer.most_rows = 10
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        first = entry()
        writer.submit(first)
        until = time.monotonic() + 10
        while writer.waiting_rows and time.monotonic() < until:
            time.sleep(0.01)
        waiting = [entry(4), entry(4)]
        for each in waiting:
            writer.submit(each)
        with pytest.raises(LogUnavailable):
            writer.submit(entry(4))
    assert all(each.wait(20) and each.error is None for each in [first, *waiting])
    assert Prediction.objects.count() == 9
    assert released(writer, entry(500)) == [None], "one large request goes through an empty queue"


def test_an_entry_without_a_waiting_client_can_be_withdrawn(writer: Writer, entry: Make) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        first, second = entry(), entry()
        writer.submit(first)
        until = time.monotonic() + 10
        while writer.waiting_rows and time.monotonic() < until:
            time.sleep(0.01)
        writer.submit(second)
        assert writer.withdraw(second)
        assert not writer.withdraw(first), "it is being written: what becomes of it is unknown"
    assert first.wait(20)
    assert Prediction.objects.count() == 1


def test_closing_writes_queued_entries_and_refuses_new_ones(entry: Make) -> None:
    writer = Writer(most_rows=100)
    entries = [entry() for _ in range(5)]
    for each in entries:
        writer.submit(each)
    writer.close()
    assert [each.error for each in entries] == [None] * 5
    assert Prediction.objects.count() == 5
    with pytest.raises(LogUnavailable):
        writer.submit(entry())


def backends() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction it shows one moment
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'vigia log'")
        return [pid for (pid,) in cursor.fetchall()]


def terminate(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS pid", [pids])


def test_a_connection_that_ended_while_idle_is_reopened_without_an_error(writer: Writer, entry: Make) -> None:
    assert released(writer, entry()) == [None]
    terminate(backends())
    assert released(writer, entry()) == [None]
    assert released(writer, entry(40)) == [None]
    assert Prediction.objects.count() == 42


def test_lost_prepared_statements_are_prepared_again(writer: Writer, entry: Make) -> None:
    """A pooler's DISCARD ALL removes prepared statements."""
    assert released(writer, entry()) == [None]
    assert writer._wire._connection is not None
    writer._wire._connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert released(writer, entry()) == [None]
    assert Prediction.objects.count() == 2


def test_a_connection_that_breaks_during_a_write_leaves_the_result_unknown(
    writer: Writer, entry: Make
) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        broken = entry()
        writer.submit(broken)
        until = time.monotonic() + 10
        while not backends() and time.monotonic() < until:
            time.sleep(0.01)
        assert not broken.wait(0.2)
        terminate(backends())
        assert broken.wait(20)
        assert isinstance(broken.error, OutcomeUnknown)
    assert released(writer, entry()) == [None]
    assert Prediction.objects.count() == 1


def test_a_silent_server_is_abandoned_and_its_statement_cancelled(
    writer: Writer, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.3)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        [error] = released(writer, entry())
        assert isinstance(error, OutcomeUnknown)
    assert released(writer, entry()) == [None]
    assert Prediction.objects.count() == 1, "the cancelled write was not committed later"


def test_entries_fail_at_once_without_a_server_and_succeed_after_its_return(
    writer: Writer, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [entry() for _ in range(4)]
    monkeypatch.setitem(connections["default"].settings_dict, "PORT", "1")
    started = time.monotonic()
    errors = released(writer, *made[:3])
    assert [type(error) for error in errors] == [LogUnavailable] * 3
    assert time.monotonic() - started < 5
    monkeypatch.undo()
    time.sleep(log.IDLE_SECONDS)
    assert released(writer, made[3]) == [None]
    assert Prediction.objects.count() == 1


# -- idempotency keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 40])
def test_a_claim_and_its_rows_are_written_together_or_not_at_all(
    writer: Writer, entry: Make, client_user: User, rows: int
) -> None:
    awkward = 'it\'s a \\ "key" 🦫'
    claim = Claim(client_user.pk, awkward, "a" * 64, '{"x": "\\\\ \' \\n"}', 24)
    assert released(writer, entry(rows, claim=claim)) == [None]
    stored = IdempotencyKey.objects.get()
    assert (stored.key, stored.answer) == (awkward, claim.answer)
    assert isinstance(released(writer, entry(rows, claim=claim))[0], AlreadyAnswered)
    assert Prediction.objects.count() == rows
    other = Claim(client_user.pk, "other", "a" * 64, "{}", 24)
    bad = entry(rows, claim=other, changed={"probabilities": b"no number"})
    assert isinstance(released(writer, bad)[0], NotStorable)
    stale = entry(rows, claim=other, generation=-1)
    assert isinstance(released(writer, stale)[0], Stale)
    assert IdempotencyKey.objects.count() == 1


def test_the_second_writer_of_a_claim_waits_and_writes_nothing(
    writer: Writer, entry: Make, client_user: User
) -> None:
    other = Writer(most_rows=100)
    claim = Claim(client_user.pk, "same", "a" * 64, "{}", 24)
    first, second = entry(claim=claim), entry(claim=claim)
    writer.submit(first)
    other.submit(second)
    assert first.wait(20)
    assert second.wait(20)
    other.close()
    assert sorted(str(type(each.error).__name__) for each in (first, second)) == [
        "AlreadyAnswered",
        "NoneType",
    ]
    assert Prediction.objects.count() == 1


# -- references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    "changed", [{"model": b"999999"}, {"version": b"999999"}, {"client": b"999999"}], ids=str
)
def test_a_row_with_unknown_references_is_refused(
    writer: Writer, entry: Make, rows: int, changed: dict[str, bytes]
) -> None:
    assert isinstance(released(writer, entry(rows, changed=changed))[0], NotStorable)
    assert not Prediction.objects.exists()


def test_rows_that_the_log_refers_to_cannot_be_deleted(
    writer: Writer, entry: Make, churn: ModelVersion
) -> None:
    client = User.objects.create(username="kept")
    bystander = User.objects.create(username="not in the log")
    assert released(writer, entry(changed={"client": b"%d" % client.pk})) == [None]
    for table, pk in (("auth_user", client.pk), ("training_modelversion", churn.pk)):
        with (
            pytest.raises(IntegrityError, match="stands in the prediction log"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(f"DELETE FROM {table} WHERE id = %s", [pk])
            cursor.execute("SET CONSTRAINTS kept_by_log IMMEDIATE")
    bystander.delete()


# -- processes -----------------------------------------------------------------------------------------


def test_a_forked_child_gets_its_own_writer(churn: ModelVersion) -> None:
    parents = log.writer()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os.write(write, b"1" if log.writer() is not parents else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    assert log.writer() is parents


def test_many_threads_share_one_writer(entry: Make) -> None:
    def ask(count: int) -> None:
        for _ in range(count):
            log.append(entry(3))

    at_once(*[lambda: ask(10)] * 8)
    assert Prediction.objects.count() == 240
    assert len(backends()) == 1
    log.renew()


# -- the event loop ------------------------------------------------------------------------------------


def in_loop(writer: Writer, *groups: list[Entry]) -> list[Exception | None]:
    """Submits groups in the loop that the writer uses, each after the release of the group before."""

    async def run() -> None:
        writer.attach_loop(asyncio.get_running_loop())
        for group in groups:
            writer.submit_all(group)
            until = time.monotonic() + 20
            while not all(each.is_released for each in group) and time.monotonic() < until:
                await asyncio.sleep(0.005)
                writer.hand_over_late_write()

    asyncio.run(run())
    assert all(each.is_released for group in groups for each in group)
    return [each.error for group in groups for each in group]


def test_the_loop_writes_small_groups_without_the_thread(writer: Writer, entry: Make) -> None:
    threads: list[str] = []

    def done(_: Entry) -> None:
        threads.append(threading.current_thread().name)

    groups = [[entry(done=done)], [entry(2, done=done), entry(done=done)], [entry(4, done=done)]]
    assert in_loop(writer, *groups, [entry(done=done)]) == [None] * 5
    # The thread opens the connection and prepares the statements of one row and of four.
    assert threads == ["log-writer"] * 3 + ["MainThread"] * 2
    assert Prediction.objects.count() == 9
    assert (writer.groups, writer.written_rows) == (4, 9)


@pytest.mark.parametrize("rows", [1, 20])
def test_entries_that_arrive_during_a_write_of_the_loop_share_the_next_group(
    writer: Writer, entry: Make, rows: int
) -> None:
    assert released(writer, entry(rows)) == [None]
    entries = [entry(rows) for _ in range(10)]

    async def run() -> None:
        writer.attach_loop(asyncio.get_running_loop())
        for each in entries:
            writer.submit_all([each])
        while not all(each.is_released for each in entries):
            await asyncio.sleep(0.005)

    asyncio.run(run())
    assert [each.error for each in entries] == [None] * 10
    assert writer.groups == 3
    assert Prediction.objects.count() == 11 * rows


def test_threads_and_the_loop_share_one_writer(writer: Writer, entry: Make) -> None:
    assert released(writer, entry()) == [None]
    ended = threading.Event()
    generation = routing.generation()

    async def run() -> None:
        writer.attach_loop(asyncio.get_running_loop())
        while not ended.is_set():
            each = entry(3, generation=generation)
            writer.submit_all([each])
            while not each.is_released:
                await asyncio.sleep(0)
            assert each.error is None

    def ask() -> None:
        for rows in (1, 40) * 20:
            assert released(writer, entry(rows)) == [None]

    def hold() -> None:
        for _ in range(20):
            with writer.holding_off_changes():
                assert released(writer, entry()) == [None]

    def stop_loop() -> None:
        at_once(ask, ask, hold)
        ended.set()

    at_once(lambda: asyncio.run(run()), stop_loop)
    assert Prediction.objects.count() == writer.written_rows
    assert len(backends()) == 1


@pytest.mark.parametrize("changed", [{"inputs": b'{"a": '}, {"client": b"999999"}], ids=str)
def test_a_bad_row_in_a_group_of_the_loop_fails_alone(
    writer: Writer, entry: Make, changed: dict[str, bytes]
) -> None:
    assert released(writer, entry(2)) == [None]
    good, bad = entry(), entry(changed=changed)
    errors = in_loop(writer, [good, bad], [entry()])
    assert isinstance(errors.pop(1), NotStorable)
    assert errors == [None, None]
    assert writer.failures["refused"] == 2, "once for the group, once for the entry"


def test_a_stale_group_of_the_loop_writes_nothing(writer: Writer, entry: Make) -> None:
    assert released(writer, entry()) == [None]
    stale, good = in_loop(writer, [entry(generation=-1)], [entry()])
    assert isinstance(stale, Stale)
    assert good is None
    assert Prediction.objects.count() == 2


def test_the_loop_survives_lost_statements_and_lost_connections(writer: Writer, entry: Make) -> None:
    assert released(writer, entry()) == [None]
    assert writer._wire._connection is not None
    writer._wire._connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert in_loop(writer, [entry()]) == [None]
    terminate(backends())
    assert in_loop(writer, [entry()], [entry()]) == [None, None]
    assert Prediction.objects.count() == 4


def test_a_connection_that_breaks_during_a_write_of_the_loop_leaves_the_result_unknown(
    writer: Writer, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert released(writer, entry()) == [None]
    broken = entry()
    close, alone = wire.Wire.close, []

    def closing(closed: wire.Wire) -> None:
        alone.append(writer._writing.locked())
        close(closed)

    monkeypatch.setattr(wire.Wire, "close", closing)

    async def run() -> None:
        writer.attach_loop(asyncio.get_running_loop())
        writer.submit_all([broken])
        await asyncio.to_thread(at_once, lambda: terminate(writing))
        while not broken.is_released:
            await asyncio.sleep(0.005)

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        writing = backends()
        asyncio.run(run())
    assert isinstance(broken.error, OutcomeUnknown)
    assert alone == [True], "nobody else may use a connection while it is closed"
    assert in_loop(writer, [entry()]) == [None]
    assert Prediction.objects.count() == 2


def test_the_thread_abandons_a_silent_server_for_the_loop(
    writer: Writer, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert released(writer, entry()) == [None]
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(log, "LOOP_SECONDS", 0.1)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        [error] = in_loop(writer, [entry()])
    assert isinstance(error, OutcomeUnknown)
    assert in_loop(writer, [entry()]) == [None]
    assert Prediction.objects.count() == 2, "the cancelled write was not committed later"


def test_closing_finishes_the_write_of_an_ended_loop(entry: Make) -> None:
    writer = Writer(most_rows=100)
    assert released(writer, entry()) == [None]
    entries = [entry(), entry()]

    async def run() -> None:
        writer.attach_loop(asyncio.get_running_loop())
        for each in entries:
            writer.submit_all([each])

    asyncio.run(run())
    writer.close()
    assert [each.error for each in entries] == [None, None]
    assert Prediction.objects.count() == 3


def test_a_taken_claim_in_a_group_of_the_loop_fails_alone(
    writer: Writer, entry: Make, client_user: User
) -> None:
    first, second = (Claim(client_user.pk, key, "a" * 64, "{}", 24) for key in ("first", "second"))
    assert released(writer, entry(claim=first)) == [None]
    errors = in_loop(writer, [entry(claim=first), entry(claim=second), entry()], [entry()])
    assert isinstance(errors.pop(0), AlreadyAnswered)
    assert errors == [None] * 3
    assert IdempotencyKey.objects.count() == 2
    assert Prediction.objects.count() == 4


def test_alike_and_different_origins_are_stored_in_one_group_of_columns(writer: Writer, entry: Make) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:  # holds the first group up
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        first = entry()
        writer.submit(first)
        assert not first.wait(0.1)
        group = [
            entry(40, changed={"request": b"a", "keys": b"k", "warnings": b'[{"code": "x"}]'}),
            entry(40, changed={"request": b"b", "probabilities": None}),
        ]
        for each in group:
            writer.submit(each)
    assert all(each.wait(20) and each.error is None for each in group)
    stored = Prediction.objects.exclude(request_id="r-1").values_list(
        "request_id", "key", "probability", "warnings"
    )
    expected = [("a", "k", 0.5, [{"code": "x"}])] * 40 + [("b", None, None, [])] * 40
    assert sorted(stored, key=lambda row: row[0]) == expected
    assert writer.groups == 2


@pytest.mark.parametrize("rows", [3, 40])
def test_rows_with_and_without_every_class_are_stored_in_one_group(
    writer: Writer, entry: Make, rows: int
) -> None:
    """Three rows are cells of one statement, forty are columns."""
    with transaction.atomic():
        with connection.cursor() as cursor:  # holds the first group up
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
        first = entry()
        writer.submit(first)
        assert not first.wait(0.1)
        group = [
            entry(rows, changed={"request": b"a", "by_class": b"[0.1,1e-7,0.8999999]"}),
            entry(rows, changed={"request": b"b"}),
            entry(rows, changed={"request": b"c", "by_class": b"[0.1, 0.9"}),
        ]
        for each in group:
            writer.submit(each)
    assert all(each.wait(20) for each in group)
    assert [type(each.error) for each in group] == [type(None), type(None), NotStorable]
    stored = Prediction.objects.exclude(request_id="r-1").values_list("request_id", "by_class")
    expected = [("a", [0.1, 1e-7, 0.8999999])] * rows + [("b", None)] * rows
    assert sorted(stored, key=lambda row: row[0]) == expected
