"""The base of the recommender's views: it checks rights on the registered model `movies`."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.http import QueryDict
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer

from predictions.views.base import typed_cells
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


class FormView(MoviesView):
    """A view with a form in the browsable API: the fields of `form_serializer`, or `example` as raw JSON."""

    form_serializer: ClassVar[type[BaseSerializer[Any]]]
    example: ClassVar[Any]

    def get_serializer(self, *args: Any, **kwargs: Any) -> BaseSerializer[Any]:
        if self.request._request.method == "POST" and isinstance(self.request.data, QueryDict):
            kwargs["data"] = typed_cells(self.request.data)
        return self.form_serializer(*args, **kwargs)

    def raw_example(self) -> str:
        return json.dumps(self.example, indent=2, ensure_ascii=False)
