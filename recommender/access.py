"""Who may ask for recommendations: the rights of the registered model `movies`."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework.request import Request

from recommender.declaration import NAME
from training.models import RegisteredModel
from training.services import access, registry
from training.views.idempotent import IdempotentView


class MoviesView(IdempotentView):
    """A route of the recommender: asks for the right the method needs, or for any.

    rights : method -> right on `movies`.
    """

    rights: ClassVar[dict[str, access.Right]] = {}
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.model = registry.get_model(NAME)
        right = self.rights.get("GET" if request.method == "HEAD" else request.method or "")
        if right is not None:
            access.require(request.user, right, self.model)
        else:
            access.require_any(request.user, self.model)
