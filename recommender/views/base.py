"""The base of the recommender's views: it checks rights on the registered model `movies`."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.http import QueryDict
from rest_framework.serializers import BaseSerializer

from predictions.views.base import typed_cells
from recommender.declaration import NAME
from training.views.base import ModelView


class MoviesView(ModelView):
    """A view of the recommender, whose rights are those on `movies`."""

    model_name = NAME


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
