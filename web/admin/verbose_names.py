"""Models of other packages under the names they go by here."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from unfold.views import ChangeList


class Named:
    """A model's options under the name it goes by here; the model belongs to another package."""

    def __init__(self, options: Any, one: str, many: str) -> None:
        self._options, self.verbose_name, self.verbose_name_plural = options, one, many

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


class NamedChangeList(ChangeList):
    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.opts = self.model_admin.opts
