"""Serializers of drift reviews, for the API and for downloads."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from predictions.models import DriftFinding, DriftReview


class BinsSerializer(serializers.Serializer[Any]):
    """The bins of a column, in the same order in each list."""

    labels = serializers.ListField(child=serializers.CharField())
    apart = serializers.ListField(
        child=serializers.ChoiceField(["", "missing", "unseen", "outside"]),
        required=False,
        help_text="Reason why a bin's rows are not like training rows, or empty; absent in older reviews.",
    )
    reference = serializers.ListField(
        child=serializers.IntegerField(), help_text="Rows of the reference profile."
    )
    window = serializers.ListField(child=serializers.IntegerField(), help_text="Rows of the window.")


class FindingSerializer(serializers.ModelSerializer[DriftFinding]):
    """The finding for one column; docs/drift.md explains the numbers."""

    bins = BinsSerializer()

    class Meta:
        model = DriftFinding
        exclude: ClassVar = ["id", "review", "position"]


class ReviewSummarySerializer(serializers.ModelSerializer[DriftReview]):
    """A review without its findings."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")
    drifting = serializers.SerializerMethodField(help_text="The columns that drifted.")

    class Meta:
        model = DriftReview
        fields: ClassVar = [
            "id", "model", "version", "since", "until", "counted_to", "rows", "verdict", "reason", "drifting",
            "scheduled", "created_at", "kept", "log_removed_at", "run", "run_note",
        ]  # fmt: skip

    def get_drifting(self, review: DriftReview) -> list[str]:
        return [each.column for each in review.findings.all() if each.verdict == "drift"]


class ReviewSerializer(ReviewSummarySerializer):
    """A review: the verdict, a finding for each column, the realised and the expected quality."""

    findings = FindingSerializer(many=True)

    class Meta(ReviewSummarySerializer.Meta):
        fields: ClassVar = [*ReviewSummarySerializer.Meta.fields, "quality", "expected", "findings"]


class KeepSerializer(serializers.Serializer[Any]):
    """Whether retention keeps the log's rows of a review's window."""

    kept = serializers.BooleanField()
