"""Display names of models that other packages define."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from unfold.views import ChangeList


class RenamedOptions:
    """The options (`_meta`) of another package's model with display names of ours."""

    def __init__(self, options: Any, singular: str, plural: str) -> None:
        self._options, self.verbose_name, self.verbose_name_plural = options, singular, plural

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


class Renamed:
    """A mixin of `ModelAdmin` with display names of ours for another package's model."""

    singular: ClassVar[str]
    plural: ClassVar[str]

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)  # type: ignore[call-arg]
        self.opts: Any = RenamedOptions(model._meta, self.singular, self.plural)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RenamedChangeList


class RenamedChangeList(ChangeList):
    """A change list that shows the display names of its `ModelAdmin`."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.opts = self.model_admin.opts
