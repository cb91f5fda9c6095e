"""`manage.py deliver_events`: heartbeat, a database that goes away, and a graceful end."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from core.models import Delivery, SubscriptionState
from tests import proxy
from tests.core.events.processes import processes, receiver, subscribe
from tests.core.events.recording import await_, write
from training.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)


def end_sessions(application: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s "
            "AND datname = current_database() AND pid <> pg_backend_pid()",
            [application],
        )
        return int(cursor.fetchone()[0])


def test_a_dispatcher_waits_for_its_database_and_goes_on_and_ends_on_request(tmp_path: Path) -> None:
    with (
        receiver() as received,
        processes(tmp_path) as running,
        proxy.before(running.env["DATABASE_URL"]) as (between, address),
    ):
        running.env |= {"DATABASE_URL": f"{address}?application_name=dispatcher"}
        subscribe(received, "a")
        running.start("first")
        write("1")
        await_(lambda: len(received.messages) == 1, 60)
        file = tmp_path / "metrics" / "heartbeats" / "events"
        await_(file.exists)
        heartbeat = Heartbeat.objects.get(role="events")

        between.cuts_ready = True
        assert end_sessions("dispatcher") > 0
        write("2")
        await_(lambda: "events cannot be delivered at present" in running.log("first").read_text())
        assert len(received.messages) == 1
        between.cuts_ready = False
        await_(lambda: len(received.messages) == 2)
        await_(lambda: not Delivery.objects.exclude(state="delivered").exists())
        await_(lambda: Heartbeat.objects.get(role="events").at > heartbeat.at)
        assert running.end("first") == 0
    assert not file.exists()
    assert not Heartbeat.objects.filter(role="events").exists()
    assert SubscriptionState.objects.get().owner is None
    assert [text for _, _, text, _ in received.messages] == ["1", "2"]
