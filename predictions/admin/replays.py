"""Admin of replays: request from a version's page, progress, result."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from unfold.widgets import INPUT_CLASSES

from predictions.models import Replay
from predictions.replays import jobs as replays
from training import queueing
from training.admin.charts import chart
from training.admin.columns import ROWS, VERSION, WINDOW, column, numbered
from training.admin.filters import ModelFilter, by_choice
from training.admin.jobs import PROGRESS, REQUESTED_BY, JobAdmin
from training.admin.rights import allowed_ids, require, visible_ids
from training.models import Job, ModelVersion
from training.reports import side_by_side
from training.templatetags.vigia import badge, share

_MINUTES = "%Y-%m-%dT%H:%M"


def _moment() -> forms.DateTimeInput:
    """Returns the browser's field for a time, to the minute."""
    attributes = {"type": "datetime-local", "class": " ".join(INPUT_CLASSES)}
    return forms.DateTimeInput(attributes, format=_MINUTES)


class WindowForm(forms.Form):
    """A window of the log in UTC."""

    since = forms.DateTimeField(label="Since (UTC)", widget=_moment())
    until = forms.DateTimeField(label="Until (UTC)", widget=_moment())

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        since, until = cleaned.get("since"), cleaned.get("until")
        if since is not None and until is not None and since >= min(until, timezone.now()):
            raise forms.ValidationError("The beginning must be before the end, and in the past.")
        return cleaned


def _changed(row: Replay) -> str:
    if row.result is None:
        return "–"
    changed = row.result["changed_share"]
    if changed is not None:
        return share(changed)
    beyond = row.result["beyond"].get("0.05")
    return f"{share(beyond)} by over 5 %" if beyond is not None else "–"


@admin.register(Replay)
class ReplayAdmin(JobAdmin):
    kind = "replay"
    nothing_yet: ClassVar = "Start a replay on the page of a version."
    list_display: ClassVar = [
        numbered("replay"),
        VERSION,
        column("state", "status", lambda row: badge(row.status)),
        PROGRESS,
        WINDOW,
        ROWS,
        column("changed", "changed", _changed),
        REQUESTED_BY,
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("status", Job.Status)]
    related: ClassVar = ("registered_model", "requested_by")
    versions: ClassVar = ("version",)
    pages: ClassVar = JobAdmin.pages | {"ask": "of/<int:version_id>/"}

    def page(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        return {
            "title": f"Replay {row.pk} with {row.version}",
            "replay": row,
            "can_cancel": self.can_cancel(request, row),
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
            "can_read_log": row.registered_model_id in allowed_ids(request, "read_log"),
            **(shown(row, row.result) if row.result is not None else {}),
        }

    def ask_page(self, request: HttpRequest, version_id: int) -> HttpResponse:
        """Shows the form for the window with its number of rows; POST queues the replay."""
        versions = ModelVersion.objects.select_related("registered_model")
        version = get_object_or_404(versions, pk=version_id, registered_model_id__in=visible_ids(request))
        require(request, "train", version.registered_model)
        now = timezone.now().replace(second=0, microsecond=0) + dt.timedelta(minutes=1)
        usual = {"since": now - replays.USUAL_WINDOW, "until": now}
        counting = "count" in request.GET
        form = WindowForm(request.POST or (request.GET if counting else None), initial=usual)
        if request.method == "POST" and form.is_valid():
            by: Any = request.user
            since, until = form.cleaned_data["since"], min(form.cleaned_data["until"], timezone.now())
            replay = replays.request(version, since, until, by=by)
            queueing.enqueue(replay)
            messages.success(request, f"Replay {replay.pk} is queued; this page shows its progress.")
            return self.redirect_to(replay)
        chosen = form.cleaned_data if form.is_bound and form.is_valid() else usual
        return self.render(
            request,
            "admin/predictions/replay/ask.html",
            f"Replay with {version}",
            version=version,
            form=form,
            chosen=chosen,
            count=replays.rows_in(version.registered_model, chosen["since"], chosen["until"]),
        )


def shown(row: Replay, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the context of a result's page."""
    shift, rows = result["shift"], max(1, result["answered"])
    series = {"logged": shift["before"], f"version {row.version.number}": shift["after"]}
    answers = chart(
        "answers",
        "Answers: logged and by this version",
        _shift_in_words(shift),
        kind="bar",
        x=result["of"].capitalize(),
        y="share of the rows in per cent",
        labels=shift["labels"],
        series=[
            {"name": name, "values": [round(100 * each / rows, 3) for each in counts]}
            for name, counts in series.items()
        ],
    )
    outcomes = result["outcomes"]
    return {
        "result": result,
        "chart": answers,
        "matrix": _matrix(result["transitions"]),
        "beyond": [(float(bound), part) for bound, part in result["beyond"].items()],
        "quantiles": [(float(bound), part) for bound, part in result["change_quantiles"].items()],
        "metrics": side_by_side.metric_rows(row.registered_model, [outcomes["before"], outcomes["after"]])
        if outcomes["before"]
        else [],
        "unanswered": sum(result["unreadable"].values()),
    }


def _shift_in_words(shift: dict[str, Any]) -> str:
    parts = [
        f"{name} {shift[key]:.3f}" for name, key in (("PSI", "psi"), ("KS", "ks")) if shift[key] is not None
    ]
    return ", ".join(parts)


def _matrix(transitions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the transitions as a table with one line per logged label."""
    if not transitions:
        return None
    by_name = {str(label): label for move in transitions for label in (move["before"], move["after"])}
    labels = [by_name[name] for name in sorted(by_name)]
    rows = {(str(move["before"]), str(move["after"])): move["rows"] for move in transitions}
    lines = [
        (old, [(rows.get((str(old), str(new)), 0), str(old) == str(new)) for new in labels]) for old in labels
    ]
    return {"labels": labels, "lines": lines}
