"""Serializers of movies and interactions; `recommender.movie_schema` validates the input."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from recommender.models import Interaction, Movie
from recommender.movie_schema import COLUMNS, FIELDS, LONGEST_TERM, MOST_TERMS
from training.serializers import field_for


class OneLineListField(serializers.ListField):
    """An array in JSON; a form shows it as one line, with separators."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("style", {"base_template": "input.html"})
        super().__init__(*args, **kwargs)


class GivenMovieSerializer(serializers.Serializer[Any]):
    """A movie of the catalogue. An absent or null field becomes empty."""

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, field in FIELDS.items():
            if name in COLUMNS:
                fields[name] = field_for(COLUMNS[name])
            else:
                fields[name] = OneLineListField(
                    child=serializers.CharField(max_length=LONGEST_TERM),
                    required=False,
                    allow_null=True,
                    max_length=MOST_TERMS[name],
                    help_text=f"{field.description} An array in JSON; separated by | in a form.",
                    initial=" | ".join(field.example),
                )
        fields["description"].style = {"base_template": "textarea.html"}
        return fields

    def to_representation(self, instance: Any) -> Any:
        """Returns the values that a form shows: the fields of an existing movie, or the values just sent."""
        if isinstance(instance, Movie):
            return {name: getattr(instance, name) for name in FIELDS}
        return dict(self.initial_data)


class ReplacedMovieSerializer(GivenMovieSerializer):
    """A movie's fields except the id, which the address holds. An absent or null field becomes empty."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        fields["id"].required = False
        return fields


class MovieSerializer(serializers.ModelSerializer[Movie]):
    """One movie of the catalogue."""

    class Meta:
        model = Movie
        fields: ClassVar = [*FIELDS, "changed_at", "withdrawn_at"]
        extra_kwargs: ClassVar = {
            "withdrawn_at": {"help_text": "Time of the withdrawal; null for a movie that is not withdrawn."}
        }


class MoviePageSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    movies = MovieSerializer(many=True)
    next = serializers.URLField(allow_null=True)


class SuggestedSerializer(serializers.ModelSerializer[Movie]):
    class Meta:
        model = Movie
        fields: ClassVar = ["id", "title", "year"]


class SuggestionsSerializer(serializers.Serializer[Any]):
    movies = SuggestedSerializer(many=True)


class GivenInteractionSerializer(serializers.Serializer[Any]):
    """One interaction of a user with a movie."""

    user = serializers.CharField(max_length=200, help_text="The client's reference to a person.")
    movie_id = serializers.IntegerField(min_value=1)
    kind = serializers.ChoiceField(choices=Interaction.Kind.values)
    at = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="Time of the interaction (ISO 8601); default: now, unless it is already recorded.",
    )


class InteractionsRecordedSerializer(serializers.Serializer[Any]):
    """Counts of one request's rows."""

    model = serializers.CharField()
    received = serializers.IntegerField()
    recorded = serializers.IntegerField(help_text="Number of new interactions.")
    repeated = serializers.IntegerField(help_text="Number of interactions that were already recorded.")


class InteractionSerializer(serializers.ModelSerializer[Interaction]):
    """One recorded interaction."""

    movie_id = serializers.IntegerField()
    version = serializers.IntegerField(
        source="version.number",
        default=None,
        allow_null=True,
        help_text="Version of the recommendation before it.",
    )
    client = serializers.CharField(source="client.username", default=None, allow_null=True)

    class Meta:
        model = Interaction
        fields: ClassVar = [
            "id", "user", "movie_id", "kind", "recommendation", "version", "rank", "at", "received_at",
            "client",
        ]  # fmt: skip


class InteractionPageSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    interactions = InteractionSerializer(many=True)
    next = serializers.URLField(allow_null=True)
