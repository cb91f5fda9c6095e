"""The base of the recommender's views: it checks rights on the registered model `movies`."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework.request import Request

from recommender.declaration import NAME
from training.access import permissions
from training.models import RegisteredModel
from training.registry import lookup
from training.views.idempotent import IdempotentView


class MoviesView(IdempotentView):
    """A view of the recommender: it requires the method's right on `movies`, or any right.

    rights : method -> right on `movies`.
    """

    rights: ClassVar[dict[str, permissions.Right]] = {}
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.model = lookup.get_model(NAME)
        right = self.rights.get("GET" if request.method == "HEAD" else request.method or "")
        if right is not None:
            permissions.require(request.user, right, self.model)
        else:
            permissions.require_any(request.user, self.model)
