"""Movies and interactions as the API shows and takes them; reading is `recommender.movie_schema`."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from recommender.models import Interaction, Movie
from recommender.movie_schema import COLUMNS, FIELDS, LONGEST_TERM, MOST_TERMS
from training.serializers import field_for


class TermsField(serializers.ListField):
    """Genres or keywords: an array in JSON, one line with bars between them in a form."""

    child = serializers.CharField(max_length=LONGEST_TERM)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("style", {"base_template": "input.html"})
        super().__init__(*args, **kwargs)


class GivenMovieSerializer(serializers.Serializer[Any]):
    """A movie of the catalogue. What is left out or null is empty."""

    def get_fields(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in FIELDS.items():
            if name in COLUMNS:
                found[name] = field_for(COLUMNS[name])
            else:
                found[name] = TermsField(
                    required=False,
                    allow_null=True,
                    max_length=MOST_TERMS[name],
                    help_text=f"{field.description} An array; in a form with | between them.",
                    initial=" | ".join(field.example),
                )
        found["description"].style = {"base_template": "textarea.html"}
        return found

    def to_representation(self, instance: Any) -> Any:
        """A form shows again what was sent; one for a movie that is there, what it says now."""
        if isinstance(instance, Movie):
            return {name: getattr(instance, name) for name in FIELDS}
        return dict(self.initial_data)


class ReplacedMovieSerializer(GivenMovieSerializer):
    """All of a movie; its id is in the address. What is left out or null is empty."""

    def get_fields(self) -> dict[str, Any]:
        found = super().get_fields()
        found["id"].required = False
        return found


class MovieSerializer(serializers.ModelSerializer[Movie]):
    """One movie of the catalogue."""

    class Meta:
        model = Movie
        fields: ClassVar = [*FIELDS, "changed_at", "withdrawn_at"]
        extra_kwargs: ClassVar = {
            "withdrawn_at": {"help_text": "Since when it is not recommended any more; null: it is."}
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
    """What a user did with a movie."""

    user = serializers.CharField(max_length=200, help_text="The client's own reference to somebody.")
    movie_id = serializers.IntegerField(min_value=1)
    kind = serializers.ChoiceField(choices=Interaction.Kind.values)
    at = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="ISO 8601. Left out: now, unless the same is known already.",
    )


class InteractionsRecordedSerializer(serializers.Serializer[Any]):
    """What became of the rows of one request."""

    model = serializers.CharField()
    received = serializers.IntegerField()
    recorded = serializers.IntegerField(help_text="New ones.")
    repeated = serializers.IntegerField(help_text="Known already; nothing was written.")


class InteractionSerializer(serializers.ModelSerializer[Interaction]):
    """One interaction as it came."""

    movie_id = serializers.IntegerField()
    version = serializers.IntegerField(
        source="version.number", default=None, allow_null=True, help_text="Whose recommendation it followed."
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
