"""Serializers of rollouts."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from predictions.rollouts import arm_comparison
from training.models import Rollout
from training.serializers import ReasonSerializer


class TalliesSerializer(serializers.Serializer[Any]):
    """Counts of a shadow's rows. For a canary, `failed` counts the rows that the active version answered
    because the canary could not be loaded."""

    answered = serializers.IntegerField()
    dropped = serializers.IntegerField(help_text="Rows dropped under pressure, without a prediction.")
    failed = serializers.IntegerField()


class EstimateSerializer(serializers.Serializer[Any]):
    """A value with its 95 % interval; `low` and `high` are null with too few rows."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    rows = serializers.IntegerField()
    too_few = serializers.BooleanField()


class ArmSerializer(serializers.Serializer[Any]):
    """One version's figures over the rows during the rollout."""

    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    outcomes = serializers.IntegerField(help_text="Rows with an outcome.")
    coverage = serializers.FloatField(allow_null=True, help_text="outcomes / rows.")
    metrics = serializers.DictField(
        child=EstimateSerializer(allow_null=True), help_text="accuracy and brier, or mae and rmse."
    )
    mean = EstimateSerializer(allow_null=True, help_text="Mean probability or answer.")
    histogram = serializers.ListField(child=serializers.FloatField(), help_text="Share of the rows by bin.")


class ArmsComparisonSerializer(serializers.Serializer[Any]):
    """Comparison of both arms. A canary's arms answer different clients, a shadow's the same rows."""

    kind = serializers.CharField(help_text="shadow or canary")
    task = serializers.CharField(help_text="classification or regression")
    active = ArmSerializer(allow_null=True)
    tried = ArmSerializer()
    differences = serializers.DictField(
        child=EstimateSerializer(allow_null=True),
        help_text="Tried minus active, of each metric and of the mean.",
    )
    agreement = EstimateSerializer(allow_null=True, help_text="Shadow only: share of equal answers.")
    gap = EstimateSerializer(
        allow_null=True, help_text="Shadow only: mean absolute difference of probabilities or answers."
    )
    edges = serializers.ListField(child=serializers.FloatField(), help_text="Edges of the histograms' bins.")
    bound = serializers.IntegerField(help_text="Maximum number of an arm's rows that are read, the newest.")


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    """A shadow or canary with the reasons and users of its start and stop."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")
    running = serializers.BooleanField(source="is_running")
    started_by = serializers.CharField(source="started_by.username", default=None, allow_null=True)
    stopped_by = serializers.CharField(source="stopped_by.username", default=None, allow_null=True)

    class Meta:
        model = Rollout
        fields: ClassVar = [
            "id", "model", "version", "kind", "percent", "running", "reason", "overridden", "started_by",
            "started_at", "stopped_by", "stopped_at", "stop_reason",
        ]  # fmt: skip


class RolloutDetailSerializer(RolloutSerializer):
    """A shadow or canary with its tallies and the comparison of both arms."""

    tallies = serializers.SerializerMethodField()
    quality = serializers.SerializerMethodField()

    class Meta(RolloutSerializer.Meta):
        fields: ClassVar = [*RolloutSerializer.Meta.fields, "tallies", "quality"]

    @extend_schema_field(TalliesSerializer)
    def get_tallies(self, rollout: Rollout) -> dict[str, int]:
        return arm_comparison.tallies(rollout)

    @extend_schema_field(ArmsComparisonSerializer)
    def get_quality(self, rollout: Rollout) -> dict[str, Any]:
        return dict(ArmsComparisonSerializer(arm_comparison.compare(rollout)).data)


class StartSerializer(serializers.Serializer[Any]):
    """The version, kind and reason of a rollout to start."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    kind = serializers.ChoiceField(
        choices=Rollout.Kind.choices,
        # DRF's message repeats the value, which may not be encodable as text.
        error_messages={"invalid_choice": f"a rollout is one of: {', '.join(Rollout.Kind.values)}"},
    )
    percent = serializers.FloatField(
        required=False,
        allow_null=True,
        help_text="Share of the clients in per cent, for a canary: above 0, at most 100.",
    )
    reason = serializers.CharField(min_length=1, max_length=500)
    override = serializers.BooleanField(
        default=False, help_text="Start a canary although the gate was not passed; this is recorded."
    )


class StopSerializer(ReasonSerializer):
    """The reason for stopping a rollout."""


class RaiseSerializer(StopSerializer):
    percent = serializers.FloatField(help_text="Per cent above the present share; present clients stay.")
