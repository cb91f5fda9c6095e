"""What goes in and out, for forms and for OpenAPI; reading is `recommender.recommendations.request`."""

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
from training.serializers import field_for
from vigia_ml.schema import Column
from vigia_ml.schema.row_keys import KEY_FIELD, KEY_LENGTH


def _field(column: Column) -> serializers.Field[Any, Any, Any, Any]:
    """A list is shown as text with commas in a form, and is an array in JSON."""
    if column.name not in LISTS:
        field = field_for(column)
        given = EXAMPLE.get(column.name)
        field.initial = None if given is None else str(given)
        return field
    item: Any = serializers.IntegerField() if LISTS[column.name] == "ids" else serializers.CharField()
    said = f"{column.description} In this form with commas between them."
    return _Listed(child=item, required=False, allow_null=True, help_text=said, label=column.name)


class _Listed(serializers.ListField):
    """A list that a form shows as one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("style", {"base_template": "input.html"})
        super().__init__(*args, **kwargs)
        self.initial: Any = ""


class QuestionSerializer(serializers.Serializer[Any]):
    """One of movie_id, title, text, liked, or a user; and how the answer is narrowed. Null is as left out."""

    def get_fields(self) -> dict[str, Any]:
        found = {column.name: _field(column) for column in QUESTION.columns}
        return found | {
            KEY_FIELD: serializers.CharField(
                required=False,
                allow_null=True,
                max_length=KEY_LENGTH,
                help_text="The client's own reference for this question.",
            )
        }

    def to_representation(self, instance: Any) -> Any:
        """A form shows again what was sent."""
        return dict(self.initial_data)


class SharedTermSerializer(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="title, description, genres, keywords or together.")
    term = serializers.CharField()
    share = serializers.FloatField(
        help_text="Of the score; all of one movie add up to 1. Negative where something disliked has it."
    )


class RecommendedSerializer(serializers.Serializer[Any]):
    """One recommended movie."""

    movie_id = serializers.IntegerField()
    title = serializers.CharField()
    year = serializers.IntegerField(allow_null=True)
    genres = serializers.ListField(child=serializers.CharField())
    score = serializers.FloatField(help_text="The cosine with what was asked for.")
    because = SharedTermSerializer(many=True, required=False)


class MatchedSerializer(serializers.Serializer[Any]):
    """The movie a title or an id was taken for."""

    movie_id = serializers.IntegerField()
    title = serializers.CharField()


class RecommendationSerializer(serializers.Serializer[Any]):
    """The answer: best first, none at random; `reason` says why there is none."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    id = serializers.UUIDField()
    basis = serializers.ChoiceField(
        choices=["similarity", "genres"],
        help_text="genres: there was no text to compare, so by genres and popularity.",
    )
    matched = MatchedSerializer(required=False)
    recommendations = RecommendedSerializer(many=True)
    reason = serializers.ChoiceField(
        choices=["nothing_to_compare", "no_neighbour", "filtered_out", "no_interactions"], required=False
    )


class WelcomeSerializer(serializers.Serializer[Any]):
    """What answers now, and a question to begin with."""

    model = serializers.CharField()
    version = serializers.IntegerField(allow_null=True)
    example = serializers.DictField()


class FeedbackSerializer(serializers.Serializer[Any]):
    """What somebody did with a recommended movie."""

    movie_id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Interaction.Kind.choices)
    at = serializers.DateTimeField(required=False, help_text="ISO 8601; now, when it is left out.")


class FeedbackRecordedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    recorded = serializers.IntegerField()
    repeated = serializers.IntegerField(help_text="Known already; nothing was written.")


class GivenFeedbackSerializer(serializers.ModelSerializer[Interaction]):
    """One report of what became of a recommendation."""

    movie_id = serializers.IntegerField()

    class Meta:
        model = Interaction
        fields: ClassVar = ["movie_id", "kind", "rank", "at", "received_at"]


class LoggedMovieSerializer(serializers.Serializer[Any]):
    movie_id = serializers.IntegerField()
    title = serializers.CharField(allow_null=True, help_text="As the catalogue has it now.")
    score = serializers.FloatField()


class LoggedRecommendationSerializer(PredictionDetailSerializer):
    """One row of the log and everything that explains it."""

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
        given: QuerySet[Interaction, Interaction] = Interaction.objects.filter(recommendation=row.pk)
        return GivenFeedbackSerializer(given.order_by("id"), many=True).data


class ShareSerializer(serializers.Serializer[Any]):
    """A share with its 95 % interval (Wilson); without bounds where there are too few answers for one."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    rows = serializers.IntegerField()


class ClickThroughSerializer(serializers.Serializer[Any]):
    """What became of one version's answers."""

    version = serializers.IntegerField()
    answered = serializers.IntegerField()
    empty = serializers.IntegerField(help_text="Answers that name no movie.")
    clicked = serializers.IntegerField(help_text="Of which a movie was clicked, watched or liked.")
    click_through = ShareSerializer(allow_null=True, help_text="clicked / (answered - empty)")
    mean_rank = serializers.FloatField(
        allow_null=True, help_text="Of the best placed of them; 1 is the first."
    )
    liked = serializers.IntegerField()
    disliked = serializers.IntegerField()


class RecommendationQualitySerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    versions = ClickThroughSerializer(many=True)
