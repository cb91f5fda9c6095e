"""Admin of rollouts: start from a version's page; comparison, raise and stop on the rollout's page."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from predictions.rollouts import arm_comparison
from training import providers
from training.admin.activation_pages import LONGEST_REASON, require
from training.admin.filters import ChoiceFilter, ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.models import ModelVersion, Rollout, sharing_versions
from training.registry import rollouts
from training.reports import side_by_side
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError


class ReasonForm(forms.Form):
    """The reason for a change of a rollout, which is recorded."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        label="Reason",
        help_text="Recorded with the rollout, your name and the time.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        error_messages={"required": "A rollout needs a reason; enter one."},
    )


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


class KindFilter(ChoiceFilter):
    title = "kind"
    parameter_name = "kind"
    field = "kind"
    choices_of = Rollout.Kind


@admin.register(Rollout)
class RolloutAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "Start a shadow or a canary on the page of a candidate."
    list_display: ClassVar = ["name", "kind_and_share", "state", "started", "by", "ended", "latest_reason"]
    list_filter: ClassVar = [ModelFilter, KindFilter]
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    search_fields: ClassVar = ["reason", "stop_reason"]
    search_help_text = "Words in a reason"
    fields: ClassVar = ["reason"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rollout, Rollout]:
        rows: QuerySet[Rollout, Rollout] = super().get_queryset(request)
        rows = rows.select_related("registered_model", "started_by", "stopped_by")
        return rows.prefetch_related(*sharing_versions("version"))

    # -- the list ----------------------------------------------------------------------------------

    @display(description="version")
    def name(self, row: Rollout) -> str:
        return str(row.version)

    @display(description="kind")
    def kind_and_share(self, row: Rollout) -> str:
        shown = f"{row.kind} {row.share}".strip()
        if row.overridden:
            return format_html("{} {}", shown, badge("overridden"))
        return shown

    @display(description="state")
    def state(self, row: Rollout) -> str:
        return badge("running") if row.is_running else badge("ended")

    @display(description="started (UTC)")
    def started(self, row: Rollout) -> datetime:
        return row.started_at

    @display(description="by")
    def by(self, row: Rollout) -> str:
        return row.started_by.get_username() if row.started_by else "the service"

    @display(description="ended (UTC)")
    def ended(self, row: Rollout) -> datetime | None:
        return row.stopped_at

    @display(description="reason")
    def latest_reason(self, row: Rollout) -> str:
        return format_html('<span class="vg-reason" title="{0}">{0}</span>', row.stop_reason or row.reason)

    # -- pages -------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("start/<int:version_id>/<str:kind>/", wrap(self.start), name="training_rollout_start"),
            path("<int:rollout_id>/stop/", wrap(self.stop), name="training_rollout_stop"),
            path("<int:rollout_id>/raise/", wrap(self.raise_percent), name="training_rollout_raise"),
        ]
        return own + list(super().get_urls())

    def page(self, request: HttpRequest, row: Rollout) -> dict[str, Any]:
        comparison = arm_comparison.compare(row)
        both = [arm for arm in (comparison.active, comparison.tried) if arm is not None]
        return {
            "title": f"{row.kind.capitalize()} of {row.version}",
            "rollout": row,
            "provider": providers.find(row.registered_model.name),
            "comparison": comparison,
            "tallies": arm_comparison.tallies(row),
            "figures": figures(comparison),
            "chart": chart(comparison),
            "names": [f"version {arm.version}" for arm in both],
            "can_stop": row.is_running and row.registered_model_id in allowed_ids(request, "activate"),
        }

    def start(self, request: HttpRequest, version_id: int, kind: str) -> HttpResponse:
        """Shows the form for the reason (and a canary's share); POST starts the rollout."""
        rows = ModelVersion.objects.select_related("registered_model").filter(pk=version_id)
        version = rows.first()
        if version is None or kind not in Rollout.Kind.values:
            raise Http404
        require(request, "activate", version.registered_model)
        kind_of_form = PercentForm if kind == Rollout.Kind.CANARY else ReasonForm
        form = kind_of_form(request.POST or None, initial={"percent": 10})
        if request.method == "POST" and form.is_valid():
            cleaned = form.cleaned_data
            started = self._attempt(
                request,
                lambda by: rollouts.start(
                    version,
                    kind=kind,
                    by=by,
                    reason=cleaned["reason"],
                    percent=cleaned.get("percent"),
                    override=cleaned.get("override", False),
                ),
            )
            if started is not None:
                messages.success(request, f"The {kind} of {version} is running.")
                return HttpResponseRedirect(_address(started))
        active = version.registered_model.active_version
        context = {
            "title": f"{kind.capitalize()} of {version}",
            "version": version,
            "kind": kind,
            "active": active,
            "form": form,
            "gate_passed": bool(version.gate.get("passed")),
            "failed_checks": [check for check in version.gate.get("checks", []) if not check["passed"]],
            "switch": side_by_side.switch(active, version),
            "back": reverse("admin:training_modelversion_change", args=[version.pk]),
        }
        return self._render(request, "admin/training/rollout/start.html", context)

    def stop(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Shows the form for the reason; POST stops the rollout."""
        row = self._get_row(request, rollout_id)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            stopped = self._attempt(request, lambda by: rollouts.stop(row, by=by, reason=reason))
            if stopped is not None:
                messages.success(request, f"The {row.kind} of {row.version} was stopped.")
            return HttpResponseRedirect(_address(row))
        context = {"title": f"Stop the {row.kind} of {row.version}", "rollout": row, "form": form}
        return self._render(
            request,
            "admin/training/rollout/change.html",
            context | {"back": _address(row), "action": f"Stop the {row.kind}"},
        )

    def raise_percent(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Shows the form for a higher share and the reason; POST raises the canary."""
        row = self._get_row(request, rollout_id)
        if row.kind != Rollout.Kind.CANARY:
            raise Http404
        form = PercentForm(request.POST or None, initial={"percent": min(100, 2 * (row.percent or 0))})
        del form.fields["override"]
        if request.method == "POST" and form.is_valid():
            cleaned = form.cleaned_data
            raised = self._attempt(
                request,
                lambda by: rollouts.raise_percent(
                    row, percent=cleaned["percent"], by=by, reason=cleaned["reason"]
                ),
            )
            if raised is not None:
                messages.success(
                    request, f"The canary of {row.version} now answers {raised.share} of the clients."
                )
            return HttpResponseRedirect(_address(raised or row))
        context = {"title": f"Raise the canary of {row.version}", "rollout": row, "form": form}
        return self._render(
            request,
            "admin/training/rollout/change.html",
            context | {"back": _address(row), "action": "Raise the canary"},
        )

    def _attempt(self, request: HttpRequest, service: Any) -> Rollout | None:
        """Returns the service's rollout; shows its error and returns None if it rejects the call."""
        assert isinstance(request.user, User)
        try:
            done: Rollout = service(request.user)
        except VigiaError as error:
            messages.error(request, f"Nothing was changed: {error.message}.")
            return None
        return done

    def _get_row(self, request: HttpRequest, rollout_id: int) -> Rollout:
        row = self.get_queryset(request).filter(pk=rollout_id).first()
        if row is None:
            raise Http404
        require(request, "activate", row.registered_model)
        return row

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        shared = self.admin_site.each_context(request)
        media = context["form"].media
        return TemplateResponse(request, template, {**shared, "opts": self.opts, "media": media, **context})


def figures(comparison: arm_comparison.Comparison) -> list[dict[str, Any]]:
    """Returns the arms' figures as rows of a table: name, one estimate per arm, and the difference."""
    both = [arm for arm in (comparison.active, comparison.tried) if arm is not None]
    rows = [
        {
            "name": name,
            "values": [arm.metrics[name] for arm in both],
            "difference": comparison.differences.get(name),
        }
        for name in comparison.tried.metrics
    ]
    mean = "mean probability" if comparison.task == "classification" else "mean answer"
    rows.append(
        {"name": mean, "values": [arm.mean for arm in both], "difference": comparison.differences.get("mean")}
    )
    return rows


def chart(comparison: arm_comparison.Comparison) -> dict[str, Any] | None:
    """Returns the chart (see charts.js) of both arms' answers; None without rows."""
    both = [arm for arm in (comparison.active, comparison.tried) if arm is not None and arm.histogram]
    if not both:
        return None
    edges = comparison.edges
    classifies = comparison.task == "classification"
    labels = [
        f"{low * 100:.0f} to {high * 100:.0f} %" if classifies else f"{low:,.4g} to {high:,.4g}"
        for low, high in pairwise(edges)
    ]
    return {
        "id": "answers",
        "title": "Probabilities" if classifies else "Answers",
        "note": "Share of each arm's rows",
        "spec": {
            "kind": "bar",
            "x": "probability" if classifies else "answer",
            "y": "share of the rows",
            "labels": labels,
            "series": [{"name": f"version {arm.version}", "values": arm.histogram} for arm in both],
        },
    }


def _address(rollout: Rollout) -> str:
    return reverse("admin:training_rollout_change", args=[rollout.pk])
