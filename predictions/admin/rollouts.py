"""Shadow and canary in the admin: started from a version's page, followed and stopped on their own."""

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
    """Why; stays with the rollout."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        label="Reason",
        help_text="Stays with the rollout, with your name and the time.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        error_messages={"required": "Say why: a rollout needs a reason."},
    )


class PercentForm(ReasonForm):
    """A canary's share."""

    percent = forms.FloatField(
        min_value=0.01,
        max_value=100,
        label="Per cent of the clients",
        help_text="Always the same ones: whoever is in stays in when the percentage is raised.",
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
    )
    override = forms.BooleanField(
        required=False, label="Begin although the gate was not passed", widget=UnfoldBooleanWidget
    )
    field_order = ["percent", "reason", "override"]


class KindFilter(ChoiceFilter):
    title = "kind"
    parameter_name = "kind"
    field = "kind"
    choices_of = Rollout.Kind


@admin.register(Rollout)
class RolloutAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "The page of a candidate begins a shadow or a canary."
    list_display: ClassVar = ["name", "how", "state", "began", "by", "ended", "why"]
    list_filter: ClassVar = [ModelFilter, KindFilter]
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    search_fields: ClassVar = ["reason", "stop_reason"]
    search_help_text = "Words of a reason"
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
    def how(self, row: Rollout) -> str:
        shown = f"{row.kind} {row.share}".strip()
        if row.overridden:
            return format_html("{} {}", shown, badge("overridden"))
        return shown

    @display(description="state")
    def state(self, row: Rollout) -> str:
        return badge("running") if row.is_running else badge("ended")

    @display(description="began (UTC)")
    def began(self, row: Rollout) -> datetime:
        return row.started_at

    @display(description="by")
    def by(self, row: Rollout) -> str:
        return row.started_by.get_username() if row.started_by else "the service"

    @display(description="ended (UTC)")
    def ended(self, row: Rollout) -> datetime | None:
        return row.stopped_at

    @display(description="reason")
    def why(self, row: Rollout) -> str:
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
        found = arm_comparison.compare(row)
        both = [arm for arm in (found.active, found.tried) if arm is not None]
        return {
            "title": f"{row.kind.capitalize()} of {row.version}",
            "rollout": row,
            "maker": providers.find(row.registered_model.name),
            "found": found,
            "tallies": arm_comparison.tallies(row),
            "figures": figures(found),
            "chart": chart(found),
            "names": [f"version {arm.version}" for arm in both],
            "can_stop": row.is_running and row.registered_model_id in allowed_ids(request, "activate"),
        }

    def start(self, request: HttpRequest, version_id: int, kind: str) -> HttpResponse:
        """Asks why (and for a canary how many); on POST begins it."""
        rows = ModelVersion.objects.select_related("registered_model").filter(pk=version_id)
        version = rows.first()
        if version is None or kind not in Rollout.Kind.values:
            raise Http404
        require(request, "activate", version.registered_model)
        kind_of_form = PercentForm if kind == Rollout.Kind.CANARY else ReasonForm
        form = kind_of_form(request.POST or None, initial={"percent": 10})
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            begun = self._tried(
                request,
                lambda by: rollouts.start(
                    version,
                    kind=kind,
                    by=by,
                    reason=given["reason"],
                    percent=given.get("percent"),
                    override=given.get("override", False),
                ),
            )
            if begun is not None:
                messages.success(request, f"The {kind} of {version} runs.")
                return HttpResponseRedirect(_address(begun))
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
        return self._shown(request, "admin/training/rollout/start.html", context)

    def stop(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Asks why; on POST ends it."""
        row = self._found(request, rollout_id)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            ended = self._tried(request, lambda by: rollouts.stop(row, by=by, reason=reason))
            if ended is not None:
                messages.success(request, f"The {row.kind} of {row.version} ended.")
            return HttpResponseRedirect(_address(row))
        context = {"title": f"Stop the {row.kind} of {row.version}", "rollout": row, "form": form}
        return self._shown(
            request, "admin/training/rollout/change.html", context | {"back": _address(row), "act": "Stop it"}
        )

    def raise_percent(self, request: HttpRequest, rollout_id: int) -> HttpResponse:
        """Asks for a higher percentage, and why; on POST begins it."""
        row = self._found(request, rollout_id)
        if row.kind != Rollout.Kind.CANARY:
            raise Http404
        form = PercentForm(request.POST or None, initial={"percent": min(100, 2 * (row.percent or 0))})
        del form.fields["override"]
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            begun = self._tried(
                request,
                lambda by: rollouts.raise_percent(
                    row, percent=given["percent"], by=by, reason=given["reason"]
                ),
            )
            if begun is not None:
                messages.success(request, f"The canary of {row.version} answers {begun.share} now.")
            return HttpResponseRedirect(_address(begun or row))
        context = {"title": f"Raise the canary of {row.version}", "rollout": row, "form": form}
        return self._shown(
            request,
            "admin/training/rollout/change.html",
            context | {"back": _address(row), "act": "Raise it"},
        )

    def _tried(self, request: HttpRequest, act: Any) -> Rollout | None:
        """What the service made; None, with a message, when it refused."""
        assert isinstance(request.user, User)
        try:
            done: Rollout = act(request.user)
        except VigiaError as error:
            messages.error(request, f"Nothing was changed: {error.message}.")
            return None
        return done

    def _found(self, request: HttpRequest, rollout_id: int) -> Rollout:
        row = self.get_queryset(request).filter(pk=rollout_id).first()
        if row is None:
            raise Http404
        require(request, "activate", row.registered_model)
        return row

    def _shown(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        shared = self.admin_site.each_context(request)
        media = context["form"].media
        return TemplateResponse(request, template, {**shared, "opts": self.opts, "media": media, **context})


def figures(found: arm_comparison.Comparison) -> list[dict[str, Any]]:
    """The arms' figures as rows of a table: name, one estimate an arm, the difference."""
    both = [arm for arm in (found.active, found.tried) if arm is not None]
    rows = [
        {
            "name": name,
            "values": [arm.metrics[name] for arm in both],
            "difference": found.differences.get(name),
        }
        for name in found.tried.metrics
    ]
    mean = "mean probability" if found.task == "classification" else "mean answer"
    rows.append(
        {"name": mean, "values": [arm.mean for arm in both], "difference": found.differences.get("mean")}
    )
    return rows


def chart(found: arm_comparison.Comparison) -> dict[str, Any] | None:
    """What both arms answered, as a chart (see charts.js); None before any row."""
    both = [arm for arm in (found.active, found.tried) if arm is not None and arm.histogram]
    if not both:
        return None
    edges = found.edges
    classifies = found.task == "classification"
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
