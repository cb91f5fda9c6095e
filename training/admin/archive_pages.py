"""Pages that archive, restore and delete bytes: they show the references to a row and require a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from unfold.widgets import UnfoldAdminTextInputWidget

from training.admin.activation_pages import ReasonForm
from training.admin.rights import RegistryAdmin, allowed_ids, require
from training.models import Archival, RegisteredModel
from training.registry import archiving
from training.registry.archiving import Target
from vigia_ml.errors import VigiaError


class ConfirmForm(ReasonForm):
    """Asks for the reason of a deletion, and for the name of the model, version or dataset."""

    confirm = forms.CharField(
        label="Name",
        help_text="Type the name as the heading shows it.",
        widget=UnfoldAdminTextInputWidget,
    )


@dataclass(frozen=True)
class Step:
    """A step of archiving: its service, its button, and its description."""

    act: Callable[..., Archival]
    title: str
    button: str
    words: str
    done: str


STEPS: dict[str, Step] = {
    "archive": Step(
        archiving.archive,
        "Archive",
        "Archive",
        "After you confirm, it serves no request: API clients receive the error “archived” (410). Its rows, "
        "its log and its lineage stay, and you can restore it.",
        "is archived.",
    ),
    "restore": Step(
        archiving.restore,
        "Restore",
        "Restore",
        "After you confirm, it serves requests again.",
        "is restored.",
    ),
    "delete_bytes": Step(
        archiving.delete_bytes,
        "Delete the bytes of",
        "Delete bytes",
        "This cannot be undone. The stored files are deleted; all rows stay, so the log still says which "
        "version answered. Bytes that another version or dataset needs stay in the store.",
        "has no stored bytes any more.",
    ),
}


class ArchivablePages(RegistryAdmin):
    """The pages of an admin whose rows can be archived."""

    archive_routes: ClassVar = {
        "archive": "<int:row_id>/archive/",
        "restore": "<int:row_id>/restore/",
        "delete_bytes": "<int:row_id>/delete-bytes/",
    }

    def archive_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        return self._archive_step(request, row_id, "archive")

    def restore_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        return self._archive_step(request, row_id, "restore")

    def delete_bytes_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        return self._archive_step(request, row_id, "delete_bytes")

    def archive_context(self, request: HttpRequest, target: Target) -> dict[str, Any]:
        """Returns what the row's page shows about archiving."""
        model_id = target.pk if isinstance(target, RegisteredModel) else target.registered_model_id
        return {
            "archived_at": target.archived_at,
            "archivals": target.archivals.select_related("by")[:5],
            "can_archive": model_id in allowed_ids(request, "activate"),
            "bytes_deleted": archiving.has_no_bytes(target),
        }

    def _archive_step(self, request: HttpRequest, row_id: int, name: str) -> HttpResponse:
        target: Target = self.get_row(request, row_id)
        model = target if isinstance(target, RegisteredModel) else target.registered_model
        require(request, "activate", model)
        step, called = STEPS[name], archiving.named(target)
        kind = ConfirmForm if name == "delete_bytes" else ReasonForm
        form = kind(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            if form.cleaned_data.get("confirm", called) != called:
                messages.error(request, f"Nothing was changed: the name is {called}.")
                return self.redirect_to(target)
            assert isinstance(request.user, User)
            try:
                row = step.act(target, by=request.user, reason=form.cleaned_data["reason"])
            except VigiaError as error:
                messages.error(request, f"Nothing was changed: {error.message}.")
            else:
                freed = f" This freed {filesizeformat(row.freed)}." if row.freed else ""
                messages.success(request, f"{called} {step.done}{freed}")
            return self.redirect_to(target)
        references = archiving.references(target)
        return self.render(
            request,
            "admin/training/archive.html",
            f"{step.title} {called}",
            step=step,
            target=target,
            called=called,
            references=references,
            blocked=name == "archive" and any(each.blocks for each in references),
            form=form,
            back=self.redirect_to(target).url,
        )
