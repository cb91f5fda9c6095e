"""The list of a model's versions, and the push of a new one."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, ClassVar, Final

from django.conf import settings
from django.core.files.base import File
from django.http import QueryDict
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from core.errors import TooLarge, UnknownModel
from training import queueing
from training.access import permissions
from training.access.permissions import Right
from training.idempotency import RetryKey
from training.models import LARGE_COLUMNS, Origin, RegisteredModel, StoredUpload
from training.parsers import BODY_LIMIT, PushParser, content_length
from training.runs import manifests, pushes
from training.runs.pushes import Staged
from training.serializers import PushSerializer, TrainingRunSerializer, VersionSummarySerializer
from training.views.base import PREFER_PARAMETER, before, requesting_user
from training.views.charged import ChargedView, Once
from training.views.idempotent import retry_key
from training.views.prefer_wait import JobResponse
from training.views.runs import shown
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import clip

PARTS: Final = ("manifest", *manifests.FILES)
_CSRF: Final = "csrfmiddlewaretoken"


class VersionsView(ChargedView):
    """Lists the versions of a model, newest first (GET); pushes a version as a compiled graph (POST)."""

    rights: ClassVar = {"POST": "push"}
    without_form: ClassVar = ("POST",)
    parser_classes = [PushParser]
    max_bytes = settings.PUSH_MAX_BYTES
    charged_as = StoredUpload.Kind.PUSH
    manifest: bytes
    files: dict[str, Any]
    staging: Staged

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method == "POST":
            # Before the session's CSRF check, which reads the body of a form.
            request.META[BODY_LIMIT] = self.max_bytes
            if content_length(request) > self.max_bytes:
                raise TooLarge(
                    f"the push has {content_length(request):,} bytes; accepted: at most {self.max_bytes:,}"
                )
        super().initial(request, *args, **kwargs)

    def find_model(self, name: str) -> RegisteredModel:
        """Returns the model; for a push of a model that does not exist, a row that is not stored."""
        try:
            return super().find_model(name)
        except UnknownModel:
            if self.request.method != "POST":
                raise
            return RegisteredModel(name=name)

    def require(self, request: Request, right: Right) -> None:
        if self.model._state.adding:
            permissions.require_everywhere(request.user, right, self.model.name)
        else:
            super().require(request, right)

    @extend_schema(
        responses=VersionSummarySerializer(many=True),
        operation_id="list_versions",
        parameters=[
            OpenApiParameter("before", int, description="Lists only versions with a smaller number.")
        ],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(self.model.versions.defer(*LARGE_COLUMNS), request, "number")
        return Response(VersionSummarySerializer(rows, many=True, context={"request": request}).data)

    @extend_schema(
        request={"multipart/form-data": PushSerializer},
        responses={202: TrainingRunSerializer, 201: TrainingRunSerializer},
        operation_id="push_version",
        parameters=[PREFER_PARAMETER],
    )
    def post(self, request: Request, model: str) -> Response:
        run = pushes.request(model, self.staging, origin=Origin.PUSHED, by=requesting_user(request))
        queueing.enqueue(run)
        location = reverse("training-run", args=[run.registered_model.name, run.pk], request=request)
        return JobResponse(request, run, partial(shown, request), location=location)

    def retry_key(self, request: Request) -> RetryKey | None:
        """Returns the key and the digest of the manifest, which names the digests of the files.

        The content type has a new boundary in every request.
        """
        manifest = _manifest(request.data)
        return retry_key(request, ("multipart/form-data", hashlib.sha256(manifest or b"").hexdigest()))

    def stored_bytes(self, request: Request) -> int:
        """Returns the bytes of manifest and files, also of a chunked body, which declares no length."""
        pushes.check_name(self.model.name)
        self.manifest, self.files = _parts(request.data)
        return len(self.manifest) + sum(file.size or 0 for file in self.files.values())

    def perform(self, once: Once, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Stages the files before the transaction of `once`, because a store may be slow."""
        with pushes.staged(self.manifest, self.files) as self.staging:
            if self.staging.manifest.activation_reason.strip():
                self.require(request, "activate")
            return once(request, *args, **kwargs)


def _manifest(data: Any) -> bytes | None:
    """Returns the text of the part ``manifest``, a field or a file; None without it."""
    part: object = data.get("manifest") if isinstance(data, QueryDict) else None
    if isinstance(part, File):
        part.seek(0)
        return bytes(part.read(manifests.LARGEST + 1))
    return None if part is None else str(part).encode("utf-8", "surrogatepass")


def _parts(data: Any) -> tuple[bytes, dict[str, Any]]:
    """Returns the manifest and the files of a body.

    Raises
    ------
    InvalidRows : parts are missing, unknown, given twice, or no files.
    """
    faults = []
    for name in data:
        if name not in (*PARTS, _CSRF):
            message = f"{clip(name)} is not a part of a push"
            faults.append(Fault(clip(name), "unknown_field", message, allowed=PARTS))
        elif len(data.getlist(name)) > 1:
            faults.append(Fault(name, "duplicate_field", f"{name} is given twice"))
    manifest = _manifest(data)
    if manifest is None:
        faults.append(Fault("manifest", "missing_field", "manifest is missing: send its JSON as a field"))
    files = {name: data[name] for name in manifests.FILES if name in data}
    for name, part in files.items():
        if not isinstance(part, File):
            faults.append(Fault(name, "not_a_file", f"{name} must be a file, with a file name"))
    if faults or manifest is None:
        raise InvalidRows(faults, message="the parts of the push are invalid")
    return manifest, files
