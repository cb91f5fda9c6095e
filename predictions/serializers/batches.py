"""Serializers of batches."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from predictions.batches import results
from predictions.models import Batch

SHOWN_ERRORS = 20


class LocationSerializer(serializers.Serializer[Any]):
    """A file in a folder that the operator has declared (`BATCH_LOCATIONS`)."""

    location = serializers.CharField(max_length=100, help_text="Name of the declared folder.")
    path = serializers.CharField(
        max_length=1000, trim_whitespace=False, help_text="Path of the file below that folder."
    )
    format = serializers.ChoiceField(
        choices=Batch.Format.values,
        required=False,
        help_text="Format of the rows; default: by the file's name.",
    )


class UploadSerializer(serializers.Serializer[Any]):
    """The file as a part of a form."""

    file = serializers.FileField(help_text="The file; its name or its Content-Type tells the format.")
    format = serializers.ChoiceField(
        choices=Batch.Format.values, required=False, help_text="Format of the rows."
    )


class RowFaultSerializer(serializers.Serializer[Any]):
    """A fault of an invalid row."""

    row = serializers.IntegerField(help_text="Position of the row in the file, from 0.")
    column = serializers.CharField(allow_null=True)
    code = serializers.CharField()
    message = serializers.CharField()
    value = serializers.CharField(allow_null=True)
    line = serializers.IntegerField(allow_null=True, help_text="Line of a CSV, counted from 1.")


class BatchSummarySerializer(serializers.ModelSerializer[Batch]):
    """A batch in a list."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")
    location = serializers.CharField(allow_null=True, help_text="Null: the file was uploaded.")
    path = serializers.CharField(allow_null=True)
    size = serializers.IntegerField(source="source_size", help_text="Bytes of the file.")
    rows = serializers.SerializerMethodField(help_text="Rows of the file; null until they are counted.")
    scored = serializers.IntegerField(help_text="Number of rows that are scored and logged so far.")
    invalid = serializers.IntegerField(help_text="Number of invalid rows so far.")
    rows_per_second = serializers.SerializerMethodField()
    requested_by = serializers.CharField(source="requested_by.username", default=None, allow_null=True)
    results_until = serializers.SerializerMethodField(
        help_text="Time when the results and the error file are removed; null while the batch runs."
    )
    links = serializers.SerializerMethodField()

    class Meta:
        model = Batch
        fields: ClassVar = [
            "id", "status", "model", "version", "format", "on_invalid", "location", "path", "size", "rows",
            "scored", "invalid", "rows_per_second", "stage", "percent", "error", "requested_by", "attempts",
            "queued_at", "started_at", "finished_at", "results_until", "links",
        ]  # fmt: skip

    def to_representation(self, instance: Batch) -> dict[str, Any]:
        shown = super().to_representation(instance)
        return shown | {name: shown[name] or None for name in ("location", "path")}

    def get_rows(self, batch: Batch) -> int | None:
        return batch.rows if batch.read_whole else None

    def get_rows_per_second(self, batch: Batch) -> float | None:
        """Returns the mean rate so far, invalid rows included; null before the first chunk."""
        return rate(batch)

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_results_until(self, batch: Batch) -> str | None:
        until = kept_until(batch)
        return None if until is None else serializers.DateTimeField().to_representation(until)

    @extend_schema_field(serializers.DictField(child=serializers.URLField()))
    def get_links(self, batch: Batch) -> dict[str, str]:
        request, arguments = self.context["request"], [batch.registered_model.name, batch.pk]
        routes = {"batch": "batch"}
        if batch.is_finished and batch.removed_at is None:
            routes |= {"results": "batch-results", "errors": "batch-errors"}
        return {name: reverse(route, args=arguments, request=request) for name, route in routes.items()}


class BatchSerializer(BatchSummarySerializer):
    """A batch with its first faults."""

    first_errors = serializers.SerializerMethodField(help_text="The first faults; all are in the error file.")

    class Meta(BatchSummarySerializer.Meta):
        fields: ClassVar = [*BatchSummarySerializer.Meta.fields, "first_errors"]

    @extend_schema_field(RowFaultSerializer(many=True))
    def get_first_errors(self, batch: Batch) -> list[dict[str, Any]]:
        faults = results.first_errors(batch, SHOWN_ERRORS) if batch.invalid else []
        numbers = ("row", "line")
        return [
            {name: int(text) if text and name in numbers else text or None for name, text in fault.items()}
            for fault in faults
        ]


def rate(batch: Batch) -> float | None:
    """Returns rows per second, from the start of the batch until now or its end."""
    done = batch.scored + batch.invalid
    if batch.started_at is None or not done:
        return None
    seconds = ((batch.finished_at or timezone.now()) - batch.started_at).total_seconds()
    return round(done / max(seconds, 0.001), 1)


def kept_until(batch: Batch) -> dt.datetime | None:
    """Returns the time when a finished batch's files are removed; None before, or with BATCH_KEEP_DAYS=0."""
    if batch.finished_at is None or not settings.BATCH_KEEP_DAYS:
        return None
    return batch.removed_at or batch.finished_at + dt.timedelta(days=settings.BATCH_KEEP_DAYS)
