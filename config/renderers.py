"""The browsable API's renderer."""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer


class BrowsableRenderer(BrowsableAPIRenderer):
    """DRF's pages, with the raw-data form filled with a valid example where the view has one."""

    template = "config/api.html"

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        example = getattr(view, "raw_example", None)
        if form is not None and example is not None and method == "POST":
            form.fields["_content"].initial = example()
        return form
