"""The pages that switch the active version: they show the differences and require a reason."""

from __future__ import annotations

from collections.abc import Callable

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from training.access import permissions
from training.admin.rights import RegistryAdmin, require
from training.models import Activation, ModelVersion, RegisteredModel
from training.registry import activation, answers_check
from training.reports import side_by_side
from vigia_ml.errors import VigiaError

LONGEST_REASON = 500


class ReasonForm(forms.Form):
    """The reason of a change, which is stored for ever."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        label="Reason",
        help_text="It is stored with your name and the time.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        error_messages={"required": "Enter a reason: it is stored with the change."},
    )


class SwitchForm(ReasonForm):
    """The reason of a switch, and the switch that the page had shown: another may have happened since."""

    override = forms.BooleanField(
        required=False,
        label="Activate although the version did not pass its gate",
        widget=UnfoldBooleanWidget,
    )
    before = forms.IntegerField(required=False, widget=forms.HiddenInput)
    after = forms.IntegerField(widget=forms.HiddenInput)


def activate(page: RegistryAdmin, request: HttpRequest, version: ModelVersion) -> HttpResponse:
    """Shows the differences that activating `version` would bring; POST activates it."""
    model = version.registered_model
    require(request, "activate", model)
    if version.status in (ModelVersion.Status.ACTIVE, ModelVersion.Status.REJECTED):
        state = "is already active" if version.status == ModelVersion.Status.ACTIVE else "was rejected"
        messages.info(request, f"{version} {state}.")
        return _redirect(version)

    if version.pruned_at is not None:
        messages.info(request, f"The artifact of {version} was pruned: the version cannot answer.")
        return _redirect(version)

    def act(by: User, reason: str, override: bool) -> Activation:
        return activation.activate(version, by=by, reason=reason, override=override)

    return _confirm(page, request, version, act, kind="activate")


def rollback(page: RegistryAdmin, request: HttpRequest, model: RegisteredModel) -> HttpResponse:
    """Shows the version to which `model` would roll back, and the differences; POST rolls back."""
    require(request, "activate", model)
    target = activation.rollback_target(model)
    if target is None:
        messages.info(request, f"{model.name} has no earlier active version to go back to.")
        return HttpResponseRedirect(reverse("admin:training_registeredmodel_change", args=[model.pk]))

    def act(by: User, reason: str, override: bool) -> Activation:
        return activation.rollback(model, by=by, reason=reason)

    return _confirm(page, request, target, act, kind="rollback")


def _confirm(
    page: RegistryAdmin,
    request: HttpRequest,
    version: ModelVersion,
    act: Callable[[User, str, bool], Activation],
    *,
    kind: str,
) -> HttpResponse:
    model = version.registered_model
    active = model.active_version
    shown = {"before": active.pk if active else None, "after": version.pk}
    form = SwitchForm(request.POST or None, initial=shown)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if {"before": data["before"], "after": data["after"]} != shown:
            messages.warning(
                request,
                "The active version has changed since you opened this page: check the differences again.",
            )
            return HttpResponseRedirect(request.path)
        assert isinstance(request.user, User)
        try:
            row = act(request.user, data["reason"], data["override"])
        except VigiaError as error:
            messages.error(request, f"Nothing was changed: {error.message}.")
        else:
            messages.success(request, f"{row.version} is active now.")
            return _redirect(row.version)
    return page.render(
        request,
        "admin/training/switch.html",
        f"Roll back {model.name}" if kind == "rollback" else f"Activate {version}",
        model=model,
        version=version,
        kind=kind,
        form=form,
        needs_another=kind == "activate" and permissions.needs_another(version, request.user),  # type: ignore[arg-type]
        switch=side_by_side.switch(active, version),
        failed_checks=[check for check in version.gate.get("checks", []) if not check["passed"]],
        gate_passed=bool(version.gate.get("passed")),
        cannot_answer=answers_check.cannot_answer(version),
    )


def _redirect(version: ModelVersion) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:training_modelversion_change", args=[version.pk]))
