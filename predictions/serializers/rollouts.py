"""What a rollout looks like in the API."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from predictions.rollouts import arm_comparison
from training.models import Rollout


class TalliesSerializer(serializers.Serializer[Any]):
    """Rows a shadow was asked for, in all. Of a canary, `failed` are the rows the active version answered
    because the canary could not be loaded."""

    answered = serializers.IntegerField()
    dropped = serializers.IntegerField(help_text="Under pressure: not asked.")
    failed = serializers.IntegerField()


class EstimateSerializer(serializers.Serializer[Any]):
    """A value with its 95 % interval; without bounds where there are too few rows for one."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    rows = serializers.IntegerField()
    too_few = serializers.BooleanField()


class ArmSerializer(serializers.Serializer[Any]):
    """One version's figures over the rows of the rollout's time."""

    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    outcomes = serializers.IntegerField(help_text="Rows whose ground truth is known.")
    coverage = serializers.FloatField(allow_null=True, help_text="Their share.")
    metrics = serializers.DictField(
        child=EstimateSerializer(allow_null=True), help_text="accuracy and brier, or mae and rmse."
    )
    mean = EstimateSerializer(allow_null=True, help_text="Of the probabilities, or of the answers.")
    histogram = serializers.ListField(child=serializers.FloatField(), help_text="Share of the rows by bin.")


class ArmsComparisonSerializer(serializers.Serializer[Any]):
    """Both arms. A canary's answered different clients; a shadow's were asked the same rows."""

    task = serializers.CharField(help_text="classification or regression")
    active = ArmSerializer(allow_null=True)
    tried = ArmSerializer()
    differences = serializers.DictField(
        child=EstimateSerializer(allow_null=True), help_text="Tried minus active, by metric, and of the mean."
    )
    agreement = EstimateSerializer(allow_null=True, help_text="Of a shadow: share of equal answers.")
    gap = EstimateSerializer(
        allow_null=True, help_text="Of a shadow: mean absolute difference of probabilities, or of answers."
    )
    edges = serializers.ListField(child=serializers.FloatField(), help_text="Of the histograms' bins.")
    bound = serializers.IntegerField(help_text="At most so many rows of an arm are read: the newest.")


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    """A shadow or canary: what, why, and by whom it was started and stopped."""

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
    """The same with what was learned so far."""

    tallies = serializers.SerializerMethodField()
    quality = serializers.SerializerMethodField()

    class Meta(RolloutSerializer.Meta):
        fields: ClassVar = [*RolloutSerializer.Meta.fields, "tallies", "quality"]

    @extend_schema_field(TalliesSerializer)
    def get_tallies(self, rollout: Rollout) -> dict[str, int]:
        return arm_comparison.tallies(rollout)

    @extend_schema_field(ArmsComparisonSerializer)
    def get_quality(self, rollout: Rollout) -> dict[str, Any]:
        return arm_comparison.compare(rollout).as_dict()


class StartSerializer(serializers.Serializer[Any]):
    """Which version to try, how, and why."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    kind = serializers.ChoiceField(
        choices=Rollout.Kind.choices,
        # The usual message repeats what was sent, which need not be text that can be sent back.
        error_messages={"invalid_choice": f"a rollout is one of: {', '.join(Rollout.Kind.values)}"},
    )
    percent = serializers.FloatField(
        required=False, allow_null=True, help_text="Of the clients, for a canary: above 0, at most 100."
    )
    reason = serializers.CharField(min_length=1, max_length=500)
    override = serializers.BooleanField(
        default=False, help_text="Begin a canary although the gate was not passed; recorded."
    )


class StopSerializer(serializers.Serializer[Any]):
    """Why it is stopped; stays with the rollout."""

    reason = serializers.CharField(min_length=1, max_length=500)


class RaiseSerializer(StopSerializer):
    percent = serializers.FloatField(help_text="Above the present one; whoever is in stays in.")
