"""Display names of models that other packages define."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from unfold.views import ChangeList


class RenamedOptions:
    """The options (`_meta`) of another package's model with display names of ours."""

    def __init__(self, options: Any, singular: str, plural: str) -> None:
        self._options, self.verbose_name, self.verbose_name_plural = options, singular, plural

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


class RenamedChangeList(ChangeList):
    """A change list that shows the display names of its `ModelAdmin`."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.opts = self.model_admin.opts
