"""Archives over HTTP: parse, call one service, present. The same routes exist below a model, a version and a
dataset."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import Prefetch
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from core.errors import NotFound
from training.artifacts import DIGEST
from training.models import Dataset, ModelVersion
from training.registry import archiving, lookup
from training.registry.archiving import Target
from training.serializers import (
    ArchivalSerializer,
    DatasetSerializer,
    DeleteBytesSerializer,
    ReasonSerializer,
    ReferencesSerializer,
)
from training.views.base import BodyFormView, ModelView, before
from vigia_ml.schema import InvalidRows


def _datasets(view: ModelView) -> Any:
    versions = Prefetch("versions", ModelVersion.objects.only("number", "dataset"))
    return view.model.datasets.select_related("registered_model").prefetch_related(versions)


def _target(view: ModelView) -> Target:
    """Returns the model, the version or the dataset that the route's path names."""
    if "number" in view.kwargs:
        return lookup.get_version(view.model, view.kwargs["number"])
    if "sha256" in view.kwargs:
        return _dataset(view)
    return view.model


def _dataset(view: ModelView) -> Dataset:
    digest = view.kwargs["sha256"]
    row: Dataset | None = _datasets(view).filter(sha256=digest).first() if DIGEST.fullmatch(digest) else None
    if row is None:
        raise NotFound(f"{view.model.name} has no dataset {digest[:64]}")
    return row


class ReferencesView(ModelView):
    """Lists the references to a model, a version or a dataset, and marks those that prevent archiving."""

    @extend_schema(responses=ReferencesSerializer)
    def get(self, request: Request, **_: Any) -> Response:
        target = _target(self)
        shown = {"archived_at": target.archived_at, "references": archiving.references(target)}
        return Response(ReferencesSerializer(shown).data)


class ArchiveView(BodyFormView):
    """Archives a model, a version or a dataset: it serves no request, and its rows stay."""

    rights: ClassVar = {"POST": "activate"}
    body = ReasonSerializer
    takes_archived = True

    @extend_schema(request=ReasonSerializer, responses=ArchivalSerializer)
    def post(self, request: Request, **_: Any) -> Response:
        return Response(ArchivalSerializer(archiving.archive(_target(self), **self.values(request))).data)


class RestoreView(BodyFormView):
    """Ends archiving; impossible once the bytes are deleted."""

    rights: ClassVar = {"POST": "activate"}
    body = ReasonSerializer
    takes_archived = True

    @extend_schema(request=ReasonSerializer, responses=ArchivalSerializer)
    def post(self, request: Request, **_: Any) -> Response:
        return Response(ArchivalSerializer(archiving.restore(_target(self), **self.values(request))).data)


class DeleteBytesView(BodyFormView):
    """Deletes the stored bytes of an archived model, version or dataset. This cannot be undone."""

    rights: ClassVar = {"POST": "activate"}
    body = DeleteBytesSerializer
    takes_archived = True

    @extend_schema(request=DeleteBytesSerializer, responses=ArchivalSerializer)
    def post(self, request: Request, **_: Any) -> Response:
        target, values = _target(self), self.values(request)
        expected = str(self.kwargs.get("number", self.kwargs.get("sha256", self.model.name)))
        if values.pop("confirm") != expected:
            message = f"confirm must be {expected!r}, the last name in the path before delete-bytes"
            raise InvalidRows.single("confirm", "not_confirmed", message)
        return Response(ArchivalSerializer(archiving.delete_bytes(target, **values)).data)


class DatasetsView(ModelView):
    """Lists the datasets of a model, newest first."""

    @extend_schema(
        responses=DatasetSerializer(many=True),
        operation_id="list_datasets",
        parameters=[OpenApiParameter("before", int, description="Lists only datasets with a smaller id.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(_datasets(self), request, "id")
        return Response(DatasetSerializer(rows, many=True, context={"request": request}).data)


class DatasetView(ModelView):
    """One dataset and the versions trained on it."""

    @extend_schema(responses=DatasetSerializer, operation_id="get_dataset")
    def get(self, request: Request, model: str, sha256: str) -> Response:
        return Response(DatasetSerializer(_dataset(self), context={"request": request}).data)
