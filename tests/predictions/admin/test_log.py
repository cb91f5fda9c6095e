"""The prediction log in the admin: read-only, escaped, and fast at any length."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.log import recent_counts, search, time_browser
from predictions.models import Prediction
from tests.conftest import new_ids
from training.models import GroupScope, ModelVersion, RegisteredModel

pytestmark = pytest.mark.django_db(transaction=True)
LOG = "/admin/predictions/prediction/"
SCRIPT = "<script>alert(1)</script>"


def cells(version: ModelVersion, **inputs: Any) -> list[Any]:
    """Returns a row's stored inputs; null for columns without a value."""
    return [inputs.get(column.name) for column in version.dataset_schema.columns]


def answered(version: ModelVersion, count: int = 1, **fields: Any) -> list[Prediction]:
    """Creates rows of the log, the oldest first."""
    ids = fields.pop("ids", None) or new_ids(count)
    usual: dict[str, Any] = {
        "registered_model": version.registered_model,
        "version": version,
        "cells": cells(version, tenure=3),
        "prediction": True,
        "probability": 0.75,
        "warnings": [],
        "request_id": "r-1",
    }
    return Prediction.objects.bulk_create(Prediction(id=id, **usual | fields) for id in ids)


def id_at(*moment: int) -> uuid.UUID:
    return uuid.UUID(int=lowest_at(dt.datetime(*moment, tzinfo=dt.UTC)).int | 0x7000_8000_0000_0000_0001)  # type: ignore[misc]


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def shown(response: Any) -> list[Prediction]:
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def test_the_log_is_listed_newest_first_and_a_row_has_a_page(admin: Client, churn: ModelVersion) -> None:
    rows = answered(churn, 3, key="customer-7", warnings=[{"field": "tenure", "code": "out_of_range"}])
    assert shown(admin.get(LOG)) == rows[::-1]
    response = admin.get(reverse("admin:predictions_prediction_change", args=[rows[0].pk]))
    page = response.content.decode()
    for expected in (str(rows[0].pk), "customer-7", "outside the training range", "r-1", "75.0 %"):
        assert expected in page
    assert response.context["lineage"]["dataset_sha256"] == churn.dataset.sha256
    assert "a test needs it" in page  # the reason of the activation


def test_nobody_changes_the_log(admin: Client, churn: ModelVersion) -> None:
    [row] = answered(churn)
    assert admin.get(f"{LOG}add/").status_code == 403
    assert admin.post(f"{LOG}{row.pk}/change/", {"key": "x"}).status_code == 403
    assert admin.post(f"{LOG}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    admin.post(LOG, {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    row.refresh_from_db()
    assert row.key is None


def test_values_from_clients_are_escaped(admin: Client, churn: ModelVersion) -> None:
    [row] = answered(
        churn,
        key=SCRIPT,
        cells=cells(churn, gender=SCRIPT),
        prediction=SCRIPT,
        warnings=[{"field": SCRIPT, "code": SCRIPT}],
        request_id=SCRIPT,
    )
    for address in (LOG, f"{LOG}{row.pk}/change/", f"{LOG}?q={SCRIPT}"):
        page = admin.get(address).content.decode()
        assert SCRIPT not in page, address
        assert "&lt;script&gt;" in page, address


def test_the_list_makes_the_same_few_queries_at_any_length(admin: Client, churn: ModelVersion) -> None:
    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(LOG).status_code == 200
        return [query["sql"] for query in captured.captured_queries]

    answered(churn, 3)
    few = statements()
    answered(churn, 200)
    many = statements()
    assert len(few) == len(many) <= 20
    for statement in many:
        if "predictions_prediction" in statement:
            assert not re.search(r"count\s*\(", statement, re.IGNORECASE), statement
            assert "LIMIT" in statement, statement


def test_pages_go_by_position_in_the_index(admin: Client, churn: ModelVersion) -> None:
    rows = answered(churn, 60)
    first = admin.get(LOG)
    assert shown(first) == rows[:9:-1]
    older = first.context["cl"].next_page
    assert older == f"?before={rows[10].pk}"
    second = admin.get(f"{LOG}{older}")
    assert shown(second) == rows[9::-1]
    assert second.context["cl"].next_page is None
    assert second.context["cl"].first_page == "?"


def test_a_search_finds_a_key_or_an_id_exactly(admin: Client, churn: ModelVersion) -> None:
    [kept] = answered(churn, key="customer-7")
    [other] = answered(churn, key="customer-77")
    assert shown(admin.get(LOG, {"q": "customer-7"})) == [kept]
    assert shown(admin.get(LOG, {"q": str(other.pk)})) == [other]
    assert shown(admin.get(LOG, {"q": "customer"})) == []
    assert not search.by_term(Prediction.objects.all(), "a\x00b", [churn.registered_model_id])


def test_filters_by_model_version_client_and_warnings(admin: Client, churn: ModelVersion) -> None:
    client = User.objects.create_user("shop")
    [plain] = answered(churn)
    [warned] = answered(churn, client=client, warnings=[{"field": "tenure", "code": "out_of_range"}])
    assert shown(admin.get(LOG, {"model": "churn"})) == [warned, plain]
    assert shown(admin.get(LOG, {"model": "nothing"})) == []
    assert shown(admin.get(LOG, {"version__id__exact": churn.pk})) == [warned, plain]
    assert shown(admin.get(LOG, {"version__id__exact": churn.pk + 1})) == []
    assert shown(admin.get(LOG, {"client": client.pk})) == [warned]
    assert shown(admin.get(LOG, {"client": "x"})) == []
    assert shown(admin.get(LOG, {"warnings": "yes"})) == [warned]
    assert shown(admin.get(LOG, {"warnings": "no"})) == [plain]


def test_conditions_without_an_index_search_a_bounded_part(churn: ModelVersion) -> None:
    rows = answered(churn, 5)
    every = Prediction.objects.all()
    assert list(search.newest(every, 3).order_by("-id")) == rows[:1:-1]
    assert search.newest(every, 5).count() == 5


@pytest.mark.parametrize(
    "query",
    ["prediction=true", "inputs__tenure=3", "key__contains=a", "request_id=r-1", "probability__gt=0.5"],
)
def test_other_conditions_are_refused(admin: Client, churn: ModelVersion, query: str) -> None:
    assert admin.get(f"{LOG}?{query}").status_code == 400


def test_another_order_is_ignored(admin: Client, churn: ModelVersion) -> None:
    rows = answered(churn, 3)
    assert shown(admin.get(LOG, {"o": "1.6"})) == rows[::-1]


@pytest.mark.parametrize("query", ["period=yesterday", "before=here", "period=2026-13"])
def test_an_invalid_position_redirects_to_the_list(admin: Client, churn: ModelVersion, query: str) -> None:
    assert admin.get(f"{LOG}?{query}").headers["Location"] == f"{LOG}?e=1"


def test_the_log_is_browsed_by_year_month_day_and_hour(admin: Client, churn: ModelVersion) -> None:
    ids = [id_at(2025, 12, 31, 23, 59), id_at(2026, 1, 1, 0, 0), id_at(2026, 3, 9, 14, 30)]
    old, turn, late = answered(churn, ids=ids)
    for period, rows, steps in [
        ("", [late, turn, old], ["2025", "2026"]),
        ("2026", [late, turn], ["2026-01", "2026-03"]),
        ("2026-03", [late], ["2026-03-09"]),
        ("2026-03-09", [late], ["2026-03-09T14"]),
        ("2026-03-09T14", [late], []),
        ("2026-03-09T15", [], []),
        ("2025", [old], ["2025-12"]),
    ]:
        response = admin.get(LOG, {"period": period} if period else {})
        assert shown(response) == rows, period
        assert [str(step) for step in response.context["cl"].steps] == steps, period


def test_a_period_has_the_calendars_bounds() -> None:
    february = time_browser.Period.parse("2028-02")
    assert february is not None
    assert (february.start.isoformat(), february.end.isoformat()) == (
        "2028-02-01T00:00:00+00:00",
        "2028-03-01T00:00:00+00:00",
    )
    assert len(february.children()) == 29
    for text in ("", "26", "2026-2", "2026-02-30", "2026-01-01T24", "9999", "0000", "2026-01-01T12:00"):
        assert time_browser.Period.parse(text) is None, text


def test_the_count_of_a_day_stops_at_its_cap(churn: ModelVersion) -> None:
    answered(churn, 5)
    model = churn.registered_model_id
    hour = timezone.now() - dt.timedelta(hours=1)
    assert str(recent_counts.since([model], hour)[model]) == "5"
    assert str(recent_counts.since([model], hour, cap=3)[model]) == "3+"
    assert str(recent_counts.since([model], timezone.now() + dt.timedelta(hours=1))[model]) == "0"


def test_an_export_holds_no_formulas(admin: Client, churn: ModelVersion) -> None:
    rows = answered(churn, 2, key="\u00a0=1+1", cells=cells(churn, tenure=3, gender="@SUM(A1)"))
    chosen = {"action": "export_selected", "_selected_action": [str(row.pk) for row in rows]}
    response: Any = admin.post(LOG, chosen)
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    text = response.getvalue().decode()
    assert text.count("'\u00a0=1+1") == 2
    assert "'@SUM(A1)" in text
    assert ",\u00a0=1+1" not in text


def test_staff_see_only_the_log_of_models_that_they_may_read(churn: ModelVersion) -> None:
    other = RegisteredModel.objects.exclude(pk=churn.registered_model_id).first()
    assert other is not None
    [row] = answered(churn)
    user = User.objects.create_user("clerk", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(LOG).status_code == 403
    group = Group.objects.create(name="readers")
    group.permissions.add(Permission.objects.get(codename="read_log"))
    scope = GroupScope.objects.create(group=group)
    scope.registered_models.add(other)
    user.groups.add(group)
    assert shown(client.get(LOG)) == []
    assert shown(client.get(LOG, {"q": str(row.pk)})) == []
    assert client.get(f"{LOG}{row.pk}/change/").status_code == 302
    scope.registered_models.add(churn.registered_model)
    assert shown(client.get(LOG)) == [row]
    assert client.get(f"{LOG}{row.pk}/change/").status_code == 200
