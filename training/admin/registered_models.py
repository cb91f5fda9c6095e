"""Registered models: activation policy, versions side by side, retraining and rollback."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.validators import MaxValueValidator
from django.db.models import Model, Prefetch
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from training import providers, queueing
from training.admin import activation_pages
from training.admin.archive_pages import ArchivablePages
from training.admin.columns import column
from training.admin.rights import allowed_ids, is_superuser, require
from training.models import ModelVersion, RegisteredModel, TrainingRun, sharing_versions
from training.registry import activation, declarations, disk_use
from training.reports import side_by_side as comparison
from training.runs import requests as run_requests
from training.templatetags.vigia import badge, metric
from vigia_ml.errors import VigiaError

SIDE_BY_SIDE = 6
LONGEST_WINDOW_HOURS = 365 * 24


class RetrainForm(forms.Form):
    """Options of a training run on known rows."""

    trials = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=run_requests.MOST_TRIALS,
        label="Hyper-parameter search: combinations to try",
        help_text="Number of combinations. Empty: no search, the declared hyper-parameters.",
        widget=UnfoldAdminIntegerFieldWidget,
    )


def _active(row: Any) -> str:
    return badge(f"version {row.active[0].number}", "good") if row.active else badge("none", "warn")


def _primary(row: Any) -> str:
    name = comparison.primary_metric(row)
    if name is None or not row.active:
        return "–"
    return format_html(
        '<span class="vg-metric"><b>{}</b> {}</span>', metric(row.active[0].metrics.get(name)), name
    )


def _origin(row: RegisteredModel) -> str:
    """Returns the source of a model's versions."""
    if declarations.is_trainable(row):
        return "file of the catalogue"
    if providers.find(row.name):
        return "application"
    return "pushes and imports" if row.declared else "its file was removed"


def _newest_version(row: RegisteredModel) -> int:
    return row.versions.values_list("number", flat=True).order_by("-number").first() or 0


@admin.register(RegisteredModel)
class RegisteredModelAdmin(ArchivablePages):
    model_field: ClassVar = "pk"
    nothing_yet: ClassVar = (
        "A file in training/catalogue/ declares a model, and the next start registers it. A push or an "
        "import creates a model without a file."
    )
    list_display: ClassVar = [
        "name",
        "title",
        column("answering", "active version", _active),
        column("primary", "primary metric", _primary),
        column("decides", "policy", lambda row: row.get_policy_display(), "policy"),
        column("versions_made", "versions", _newest_version),
        column("declared_by", "declared by", _origin),
        column("state", "state", lambda row: badge("archived", "warn") if row.archived_at else "in use"),
    ]
    pages: ClassVar = {
        "rollback": "<int:model_id>/rollback/",
        "retrain": "<int:model_id>/retrain/",
        **ArchivablePages.archive_routes,
    }
    list_filter_submit = False
    fields: ClassVar = [
        "policy",
        "second_person",
        "parallel_runs",
        "answers_probabilities",
        "kept_artifacts",
        "review_hours",
        "review_window_hours",
        "retrain_on",
        "retrain_cooldown_hours",
    ]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Returns the fields; those of retraining only for a model that can be trained."""
        if isinstance(obj, RegisteredModel) and declarations.why_not_trainable(obj):
            return [name for name in self.fields if not name.startswith("retrain_")]
        return list(self.fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Returns ``second_person`` as read-only once it is set: a user whom the rule binds must not lift it.

        A superuser can lift it, and the model's history records that.
        """
        fixed = isinstance(obj, RegisteredModel) and obj.second_person and not is_superuser(request)
        return ("second_person",) if fixed else ()

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name == "review_window_hours":
            # A longer review is rejected, so a scheduled one would never run.
            message = f"At most {LONGEST_WINDOW_HOURS:,} hours, which is a year."
            field.validators = [*field.validators, MaxValueValidator(LONGEST_WINDOW_HOURS, message)]
        return field

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Requires the right to activate, because the policy decides about activation."""
        ids = allowed_ids(request, "activate")
        return self.has_view_permission(request, obj) and (bool(ids) if obj is None else obj.pk in ids)

    def get_queryset(self, request: HttpRequest) -> Any:
        active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE)
        return super().get_queryset(request).prefetch_related(Prefetch("versions", active, to_attr="active"))

    def page(self, request: HttpRequest, row: RegisteredModel) -> dict[str, Any]:
        active, provider = row.active_version, providers.find(row.name)
        versions = side_by_side(row, active)
        columns = [version.metrics for version in versions]
        may_activate = row.archived_at is None and row.pk in allowed_ids(request, "activate")
        not_trainable = declarations.why_not_trainable(row)
        return {
            "title": row.title,
            "show_history": True,
            "model": row,
            "declared": comparison.declaration(row),
            "active": active,
            "versions": versions,
            "metrics": comparison.metric_rows(row, columns),
            "primary": comparison.primary_metric(row),
            "baseline": active.baseline if active else {},
            "runs": row.runs.select_related("requested_by").prefetch_related(*sharing_versions("version"))[
                :5
            ],
            "activations": row.activations.select_related("actor").prefetch_related(
                *sharing_versions("version", "previous")
            )[:5],
            "rollouts": row.rollouts.select_related("version", "started_by", "stopped_by")[:5],
            "can_activate": may_activate,
            "can_roll_back": may_activate and activation.rollback_target(row) is not None,
            "provider": provider,
            "disk": disk_use.of(row.pk),
            **self.archive_context(request, row),
            "can_train": (
                (active or provider) is not None
                and row.archived_at is None
                and not not_trainable
                and row.pk in allowed_ids(request, "train")
            ),
            "not_trainable": not_trainable,
            "can_read_log": row.pk in allowed_ids(request, "read_log"),
            "can_score": (
                active is not None
                and provider is None
                and row.archived_at is None
                and row.pk in allowed_ids(request, "predict")
            ),
        }

    def rollback_page(self, request: HttpRequest, model_id: int) -> HttpResponse:
        return activation_pages.rollback(self, request, self.get_row(request, model_id))

    def retrain_page(self, request: HttpRequest, model_id: int) -> HttpResponse:
        """Requests a run on the active version's dataset, or on the source of the model's provider."""
        model: RegisteredModel = self.get_row(request, model_id)
        require(request, "train", model)
        active, provider = model.active_version, providers.find(model.name)
        back = self.redirect_to(model)
        if active is None and provider is None:
            messages.info(
                request, f"No version of {model.name} is active, so there is no dataset to train on."
            )
            return back
        try:
            run_requests.require_declared(model)
        except VigiaError as error:
            messages.warning(request, f"{error.message}.")
            return back
        can_search = run_requests.can_search(model)
        form = RetrainForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            by: Any = request.user
            trials = form.cleaned_data["trials"] if can_search else None
            if trials:
                rows, mode = run_requests.active_rows(model), TrainingRun.Mode.REPLACE
                run = run_requests.request(model, rows, mode=mode, by=by, search={"n_iter": trials})
            else:
                run = run_requests.request_again(model, by=by)
            queueing.enqueue(run)
            messages.success(request, f"Run {run.pk} is queued; this page shows its progress.")
            return HttpResponseRedirect(reverse("admin:training_trainingrun_change", args=[run.pk]))
        return self.render(
            request,
            "admin/training/retrain.html",
            f"Retrain {model.name}",
            model=model,
            active=active,
            provider=provider,
            form=form,
            can_search=can_search,
        )


def side_by_side(model: RegisteredModel, active: ModelVersion | None) -> list[ModelVersion]:
    """Returns the newest versions and the active one, newest first."""
    newest = list(model.versions.select_related("dataset", "pruned").order_by("-number")[:SIDE_BY_SIDE])
    if active is not None and active not in newest:
        newest = [*newest[: SIDE_BY_SIDE - 1], active]
    return newest
