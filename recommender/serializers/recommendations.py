"""Serializers of recommendations for forms and OpenAPI; `recommender.recommendations.request` parses."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from predictions.models import Prediction
from predictions.serializers.predictions import PredictionDetailSerializer
from recommender.declaration import EXAMPLE
from recommender.models import Interaction, Movie
from recommender.recommendations.request import LISTS, QUESTION
from recommender.serializers.catalogue import OneLineListField
from training.serializers import field_for
from vigia_ml.schema import Column
from vigia_ml.schema.row_keys import KEY_FIELD, KEY_LENGTH


def _field(column: Column) -> serializers.Field[Any, Any, Any, Any]:
    """Returns the field of a column; a list is an array in JSON and text with commas in a form."""
    if column.name not in LISTS:
        field = field_for(column)
        example = EXAMPLE.get(column.name)
        field.initial = None if example is None else str(example)
        return field
    item: Any = serializers.IntegerField() if LISTS[column.name] == "ids" else serializers.CharField()
    help_text = f"{column.description} Separated by commas in this form."
    return OneLineListField(
        child=item, required=False, allow_null=True, help_text=help_text, label=column.name, initial=""
    )


class QuestionSerializer(serializers.Serializer[Any]):
    """A recommendation request: one of movie_id, title, text, liked or user, and filters. Null means
    absent."""

    def get_fields(self) -> dict[str, Any]:
        fields = {column.name: _field(column) for column in QUESTION.columns}
        return fields | {
            KEY_FIELD: serializers.CharField(
                required=False,
                allow_null=True,
                max_length=KEY_LENGTH,
                help_text="The client's own reference for this request.",
            )
        }

    def to_representation(self, instance: Any) -> Any:
        """Returns the values just sent, for the form."""
        return dict(self.initial_data)


class SharedTermSerializer(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="title, description, genres, keywords or together.")
    term = serializers.CharField()
    share = serializers.FloatField(
        help_text="Share of the score; a movie's shares add up to 1. Negative for terms of disliked movies."
    )


class RecommendedSerializer(serializers.Serializer[Any]):
    """One recommended movie."""

    movie_id = serializers.IntegerField()
    title = serializers.CharField()
    year = serializers.IntegerField(allow_null=True)
    genres = serializers.ListField(child=serializers.CharField())
    score = serializers.FloatField(help_text="Cosine similarity with the request.")
    because = SharedTermSerializer(many=True, required=False)


class MatchedSerializer(serializers.Serializer[Any]):
    """The movie that the request's title or id names."""

    movie_id = serializers.IntegerField()
    title = serializers.CharField()


class RecommendationSerializer(serializers.Serializer[Any]):
    """The recommended movies, best first and never random; `reason` says why there are none."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    id = serializers.UUIDField()
    basis = serializers.ChoiceField(
        choices=["similarity", "genres"],
        help_text="similarity: by terms; genres: by genres and popularity, for lack of comparable text.",
    )
    matched = MatchedSerializer(required=False)
    recommendations = RecommendedSerializer(many=True)
    reason = serializers.ChoiceField(
        choices=["nothing_to_compare", "no_neighbour", "filtered_out", "no_interactions"], required=False
    )


class WelcomeSerializer(serializers.Serializer[Any]):
    """The active version, and an example of a request."""

    model = serializers.CharField()
    version = serializers.IntegerField(allow_null=True)
    example = serializers.DictField()


class FeedbackSerializer(serializers.Serializer[Any]):
    """One interaction with a recommended movie."""

    movie_id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Interaction.Kind.choices)
    at = serializers.DateTimeField(
        required=False, help_text="Time of the interaction (ISO 8601); default: now."
    )


class FeedbackRecordedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    recorded = serializers.IntegerField()
    repeated = serializers.IntegerField(help_text="Number of interactions that were already recorded.")


class GivenFeedbackSerializer(serializers.ModelSerializer[Interaction]):
    """One recorded interaction with a recommended movie."""

    movie_id = serializers.IntegerField()

    class Meta:
        model = Interaction
        fields: ClassVar = ["movie_id", "kind", "rank", "at", "received_at"]


class LoggedMovieSerializer(serializers.Serializer[Any]):
    movie_id = serializers.IntegerField()
    title = serializers.CharField(allow_null=True, help_text="The title in the catalogue now.")
    score = serializers.FloatField()


class LoggedRecommendationSerializer(PredictionDetailSerializer):
    """One logged recommendation with its lineage and feedback."""

    recommendations = serializers.SerializerMethodField()
    feedback = serializers.SerializerMethodField()

    class Meta(PredictionDetailSerializer.Meta):
        fields: ClassVar = [
            "id", "at", "model", "version", "key", "inputs", "recommendations", "feedback", "request_id",
            "client", "lineage",
        ]  # fmt: skip

    def to_representation(self, instance: Prediction) -> dict[str, Any]:
        return serializers.ModelSerializer.to_representation(self, instance)

    @extend_schema_field(LoggedMovieSerializer(many=True))
    def get_recommendations(self, row: Prediction) -> list[dict[str, Any]]:
        ids = [each["movie_id"] for each in row.prediction]
        titles = dict(Movie.objects.filter(pk__in=ids).values_list("pk", "title"))
        return [each | {"title": titles.get(each["movie_id"])} for each in row.prediction]

    @extend_schema_field(GivenFeedbackSerializer(many=True))
    def get_feedback(self, row: Prediction) -> Any:
        rows: QuerySet[Interaction, Interaction] = Interaction.objects.filter(recommendation=row.pk)
        return GivenFeedbackSerializer(rows.order_by("id"), many=True).data


class ShareSerializer(serializers.Serializer[Any]):
    """A share with its 95 % interval (Wilson); the bounds are null if there are too few answers."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    rows = serializers.IntegerField()


class ClickThroughSerializer(serializers.Serializer[Any]):
    """Click-through of one version."""

    version = serializers.IntegerField()
    answered = serializers.IntegerField()
    empty = serializers.IntegerField(help_text="Answers without a movie.")
    clicked = serializers.IntegerField(help_text="Answers of which a movie was clicked, watched or liked.")
    click_through = ShareSerializer(allow_null=True, help_text="clicked / (answered - empty)")
    mean_rank = serializers.FloatField(
        allow_null=True, help_text="Mean place of the best placed such movie; 1 is the first."
    )
    liked = serializers.IntegerField()
    disliked = serializers.IntegerField()


class RecommendationQualitySerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    versions = ClickThroughSerializer(many=True)
