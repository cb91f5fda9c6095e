"""Admin of rollouts: start from a version's page; comparison, raise and stop on the rollout's page."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldBooleanWidget

from predictions.rollouts import arm_comparison
from training import providers
from training.admin.activation_pages import ReasonForm
from training.admin.charts import chart
from training.admin.columns import VERSION, column, emphasised, username
from training.admin.filters import ModelFilter, by_choice
from training.admin.rights import RegistryAdmin, allowed_ids, require
from training.models import ModelVersion, Rollout
from training.registry import rollouts
from training.reports import side_by_side
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError


class PercentForm(ReasonForm):
    """The share of a canary, with its reason."""

    percent = forms.FloatField(
        min_value=0.01,
        max_value=100,
        label="Per cent of the clients",
        help_text="The same clients each time; raising the share adds clients and keeps the present ones.",
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
    )
    override = forms.BooleanField(
        required=False, label="Start although the gate was not passed", widget=UnfoldBooleanWidget
    )
    field_order = ["percent", "reason", "override"]


def _kind_and_share(row: Rollout) -> str:
    shown = f"{row.kind} {row.share}".strip()
    return format_html("{} {}", shown, badge("overridden")) if row.overridden else shown


@admin.register(Rollout)
class RolloutAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "Start a shadow or a canary on the page of a candidate."
    list_display: ClassVar = [
        VERSION,
        column("kind_and_share", "kind", _kind_and_share),
        column("state", "state", lambda row: badge("running" if row.is_running else "ended")),
        column("started", "started (UTC)", attrgetter("started_at")),
        column("by", "by", lambda row: username(row.started_by, "the service")),
        column("ended", "ended (UTC)", attrgetter("stopped_at")),
        column("latest_reason", "reason", lambda row: emphasised("reason", row.stop_reason or row.reason)),
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("kind", Rollout.Kind)]
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    search_fields: ClassVar = ["reason", "stop_reason"]
    search_help_text = "Words in a reason"
    fields: ClassVar = ["reason"]
    related: ClassVar = ("registered_model", "started_by", "stopped_by")
    versions: ClassVar = ("version",)
    pages: ClassVar = {
        "start": "start/<int:version_id>/<str:kind>/",
        "stop": "<int:rollout_id>/stop/",
        "raise": "<int:rollout_id>/raise/",
    }

    def page(self, request: HttpRequest, row: Rollout) -> dict[str, Any]:
        comparison = arm_comparison.compare(row)
        return {
            "title": f"{row.kind.capitalize()} of {row.version}",
            "rollout": row,
            "provider": providers.find(row.registered_model.name),
            "comparison": comparison,
            "tallies": arm_comparison.tallies(row),
            "figures": figures(comparison),
            "chart": answers(comparison),
            "names": [f"version {arm.version}" for arm in comparison.arms],
            "can_stop": row.is_running and row.registered_model_id in allowed_ids(request, "activate"),
        }

    def start_page(self, request: HttpRequest, version_id: int, kind: str) -> HttpResponse:
        """Shows the form for the reason (and a canary's share); POST starts the rollout."""
        version = get_object_or_404(ModelVersion.objects.select_related("registered_model"), pk=version_id)
        if kind not in Rollout.Kind.values:
            raise Http404
        require(request, "activate", version.registered_model)
        kind_of_form = PercentForm if kind == Rollout.Kind.CANARY else ReasonForm
        form = kind_of_form(request.POST or None, initial={"percent": 10})
        if request.method == "POST" and form.is_valid():
            started = self._attempt(request, rollouts.start, version, kind=kind, **form.cleaned_data)
            if started is not None:
                messages.success(request, f"The {kind} of {version} is running.")
                return self.redirect_to(started)
        active = version.registered_model.active_version
        return self.render(
            request,
            "admin/training/rollout/start.html",
            f"{kind.capitalize()} of {version}",
            version=version,
            kind=kind,
            active=active,
            form=form,
            gate_passed=bool(version.gate.get("passed")),
            failed_checks=[check for check in version.gate.get("checks", []) if not check["passed"]],
            switch=side_by_side.switch(active, version),
            back=reverse("admin:training_modelversion_change", args=[version.pk]),
        )

    def stop_page(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Shows the form for the reason; POST stops the rollout."""
        row = self._get_row(request, rollout_id)
        form = ReasonForm(request.POST or None)
        return self._change(request, row, form, rollouts.stop, "Stop", lambda stopped: "was stopped")

    def raise_page(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Shows the form for a higher share and the reason; POST raises the canary."""
        row = self._get_row(request, rollout_id)
        if row.kind != Rollout.Kind.CANARY:
            raise Http404
        form = PercentForm(request.POST or None, initial={"percent": min(100, 2 * (row.percent or 0))})
        del form.fields["override"]
        return self._change(
            request,
            row,
            form,
            rollouts.raise_percent,
            "Raise",
            lambda raised: f"now answers {raised.share} of the clients",
        )

    def _change(
        self,
        request: HttpRequest,
        row: Rollout,
        form: ReasonForm,
        service: Callable[..., Rollout],
        verb: str,
        result: Callable[[Rollout], str],
    ) -> HttpResponse:
        if request.method == "POST" and form.is_valid():
            changed = self._attempt(request, service, row, **form.cleaned_data)
            if changed is not None:
                messages.success(request, f"The {row.kind} of {row.version} {result(changed)}.")
            return self.redirect_to(changed or row)
        return self.render(
            request,
            "admin/training/rollout/change.html",
            f"{verb} the {row.kind} of {row.version}",
            rollout=row,
            form=form,
            back=self.redirect_to(row).url,
            action=f"{verb} the {row.kind}",
        )

    def _attempt(
        self, request: HttpRequest, service: Callable[..., Rollout], *subject: Any, **arguments: Any
    ) -> Rollout | None:
        """Returns the service's rollout; shows its error and returns None if it rejects the call."""
        try:
            return service(*subject, by=request.user, **arguments)
        except VigiaError as error:
            messages.error(request, f"Nothing was changed: {error.message}.")
            return None

    def _get_row(self, request: HttpRequest, rollout_id: int) -> Rollout:
        row: Rollout = self.get_row(request, rollout_id)
        require(request, "activate", row.registered_model)
        return row


def figures(comparison: arm_comparison.Comparison) -> list[dict[str, Any]]:
    """Returns the arms' figures as rows of a table: name, one estimate per arm, and the difference."""
    mean = "mean probability" if comparison.task == "classification" else "mean answer"
    names = {name: name for name in comparison.tried.metrics} | {"mean": mean}
    return [
        {
            "name": shown,
            "values": [(arm.metrics | {"mean": arm.mean})[name] for arm in comparison.arms],
            "difference": comparison.differences.get(name),
        }
        for name, shown in names.items()
    ]


def answers(comparison: arm_comparison.Comparison) -> dict[str, Any] | None:
    """Returns the chart of both arms' answers; None without rows."""
    both = [arm for arm in comparison.arms if arm.histogram]
    if not both:
        return None
    classifies = comparison.task == "classification"
    return chart(
        "answers",
        "Probabilities" if classifies else "Answers",
        "Share of each arm's rows",
        kind="bar",
        x="probability" if classifies else "answer",
        y="share of the rows",
        labels=[
            f"{low * 100:.0f} to {high * 100:.0f} %" if classifies else f"{low:,.4g} to {high:,.4g}"
            for low, high in pairwise(comparison.edges)
        ],
        series=[{"name": f"version {arm.version}", "values": arm.histogram} for arm in both],
    )
