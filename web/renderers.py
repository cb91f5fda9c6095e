"""The browsable API's renderer."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import APIException
from rest_framework.renderers import BrowsableAPIRenderer

from vigia_ml.errors import VigiaError


class BrowsableRenderer(BrowsableAPIRenderer):
    """Renders DRF's pages; forms hold a valid example and show only to users who may send them."""

    template = "web/api.html"

    def show_form_for_method(self, view: Any, method: str, request: Any, obj: Any) -> bool:
        if not super().show_form_for_method(view, method, request, obj):
            return False
        if method in getattr(view, "without_form", ()):  # its bodies are not written by hand
            return False
        from training.access import permissions  # needs loaded apps; the settings import this module earlier

        rights = getattr(view, "rights", None)  # the rights that views below /models/{model}/ require
        if rights is None:
            return True
        model = getattr(view, "model", None)  # missing if the address names no model
        right = rights.get(method)
        return model is not None and (right is None or permissions.may(request.user, right, model))

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        try:
            return super().get_rendered_html_form(data, view, method, request)
        except (VigiaError, APIException):  # no version for the form, or an unreadable body
            return None

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        example = getattr(view, "raw_example", None)
        if form is not None and example is not None and method == "POST":
            try:
                form.fields["_content"].initial = example()
            except VigiaError:
                return None
        return form
