"""Serializers of log exports."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from predictions.models import LogExport


class LogExportRequestSerializer(serializers.Serializer[Any]):
    """The window of the model's log to export, by time of the predictions."""

    since = serializers.DateTimeField(help_text="Start of the window.")
    until = serializers.DateTimeField(
        required=False, help_text="End, exclusive; default and latest: the end of the complete log."
    )


class ExportedFileSerializer(serializers.Serializer[Any]):
    """One file of an export."""

    path = serializers.CharField(help_text="Path of the file in the dataset.")
    rows = serializers.IntegerField(allow_null=True, help_text="Null for `_manifest.json` and `_SUCCESS`.")
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    url = serializers.URLField()


class LogExportSummarySerializer(serializers.ModelSerializer[LogExport]):
    """An export without its files."""

    model = serializers.CharField(source="registered_model.name")
    bytes = serializers.IntegerField(source="size", help_text="Size of all files.")
    kept_until = serializers.DateTimeField(allow_null=True, help_text="Time when the files are removed.")

    class Meta:
        model = LogExport
        fields: ClassVar = [
            "id", "status", "model", "since", "until", "rows", "bytes", "stage", "percent", "error",
            "attempts", "queued_at", "started_at", "finished_at", "kept_until", "removed_at",
        ]  # fmt: skip


class LogExportSerializer(LogExportSummarySerializer):
    """An export with its files, once it has succeeded and until they are removed."""

    files = serializers.SerializerMethodField()
    archive = serializers.SerializerMethodField(
        help_text="Address of a zip with all files; null without files."
    )

    class Meta(LogExportSummarySerializer.Meta):
        fields: ClassVar = [*LogExportSummarySerializer.Meta.fields, "files", "archive"]

    @extend_schema_field(ExportedFileSerializer(many=True))
    def get_files(self, export: LogExport) -> list[dict[str, Any]]:
        if not export.has_files:
            return []
        route = "log-export-file"
        return [entry | {"url": self._address(route, export, entry["path"])} for entry in export.files]

    def get_archive(self, export: LogExport) -> str | None:
        return self._address("log-export-archive", export) if export.has_files else None

    def _address(self, route: str, export: LogExport, *parts: str) -> str:
        arguments = [export.registered_model.name, export.pk, *parts]
        return str(reverse(route, args=arguments, request=self.context["request"]))
