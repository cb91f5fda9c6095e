"""Serializers of answers and log rows."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from predictions.models import Prediction
from predictions.outcomes import recording
from training.registry import activation as version_activation
from training.serializers import ActivationSerializer

PROBABILITY = (
    "With two classes the probability of the second one (true, or the second level), whatever the prediction "
    "is; with more classes that of the predicted class. Absent for numbers."
)
PROBABILITIES = (
    "Probability of each class; the keys are the classes as JSON text in the order of the version's classes. "
    "Absent for numbers, and if the model's answers_probabilities is off."
)


class WarningSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    code = serializers.ChoiceField(choices=["out_of_range", "unseen_level"])


class GivenSerializer(serializers.Serializer[Any]):
    """One answer."""

    id = serializers.UUIDField()
    prediction = serializers.JSONField()
    probability = serializers.FloatField(required=False, help_text=PROBABILITY)
    probabilities = serializers.DictField(
        child=serializers.FloatField(), required=False, help_text=PROBABILITIES
    )
    warnings = WarningSerializer(many=True)
    key = serializers.CharField(required=False, allow_null=True, help_text="Only with include=inputs.")
    inputs = serializers.DictField(required=False, help_text="Only with include=inputs.")


class AnswerSerializer(serializers.Serializer[Any]):
    """Answers in the order of the instances."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    predictions = GivenSerializer(many=True)


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    """One row of the log."""

    at = serializers.DateTimeField()
    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")
    inputs = serializers.DictField(help_text="Values by the names of the schema's columns.")
    probabilities = serializers.DictField(
        child=serializers.FloatField(), required=False, help_text=PROBABILITIES
    )
    batch = serializers.IntegerField(
        source="batch_id", required=False, help_text="Id of the batch; absent for the answer to a request."
    )

    class Meta:
        model = Prediction
        fields: ClassVar = [
            "id", "at", "model", "version", "key", "inputs", "prediction", "probability",
            "probabilities", "warnings", "request_id", "batch",
        ]  # fmt: skip

    def to_representation(self, instance: Prediction) -> dict[str, Any]:
        shown = super().to_representation(instance)
        for name in ("probability", "probabilities", "batch"):
            if shown[name] is None:
                del shown[name]
        return shown


class OneOutcomeSerializer(serializers.Serializer[Any]):
    """One outcome in a prediction's history."""

    actual = serializers.JSONField()
    observed_at = serializers.DateTimeField()
    received_at = serializers.DateTimeField()


class OutcomeSerializer(serializers.Serializer[Any]):
    """The current outcome of a prediction."""

    actual = serializers.JSONField()
    observed_at = serializers.DateTimeField()
    corrections = serializers.IntegerField(help_text="Number of later corrections.")
    history = OneOutcomeSerializer(many=True, help_text="The last outcomes, the current one first.")


class PredictionPageSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    predictions = PredictionSerializer(many=True)
    next = serializers.URLField(allow_null=True)


class PredictionDetailSerializer(PredictionSerializer):
    """One log row with its outcome and its lineage."""

    client = serializers.CharField(source="client.username", default=None, allow_null=True)
    outcome = serializers.SerializerMethodField()
    lineage = serializers.SerializerMethodField()

    class Meta(PredictionSerializer.Meta):
        fields: ClassVar = [*PredictionSerializer.Meta.fields, "client", "outcome", "lineage"]

    @extend_schema_field(OutcomeSerializer(allow_null=True))
    def get_outcome(self, row: Prediction) -> dict[str, Any] | None:
        outcome = recording.of(row.id)
        return None if outcome is None else dict(OutcomeSerializer(outcome).data)

    def get_lineage(self, row: Prediction) -> dict[str, Any]:
        """Returns the version's lineage, and the activation in force at the time of the row."""
        activation = version_activation.active_at(row.registered_model, row.at)
        answered_as_active = activation is not None and activation.version_id == row.version_id
        shown = ActivationSerializer(activation).data if answered_as_active else None
        return row.version.lineage | {"activation": shown}
