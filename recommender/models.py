"""The catalogue's movies and their interactions."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Func
from django.utils import timezone

from recommender.files.interactions import LONGEST_REFERENCE
from recommender.movie_schema import (
    FIRST_YEAR,
    HIGHEST_RATING,
    LANGUAGE,
    LAST_YEAR,
    LONGEST_DESCRIPTION,
    LONGEST_LANGUAGE,
    LONGEST_TERM,
    LONGEST_TITLE,
    MOST_TERMS,
)
from recommender.title_keys import key_of
from training.models import ModelVersion


def lowered(terms: str | models.Expression) -> Func:
    """Returns an expression for a list of texts in lower case, by a function that an index accepts."""
    return Func(terms, function="vigia_lowered", output_field=ArrayField(models.TextField()))


class Movie(models.Model):
    """One movie of the catalogue. Rows are never deleted: the log refers to them. A withdrawn movie is not
    recommended.

    `recommender.catalogue.service` changes movies.

    id : the source's id. title_key : search key of the title, see `recommender.title_keys`. year : of
    release. popularity : 0 or more, in the source's unit; it breaks ties of score. rating : mean of the
    votes, 0 to 10; null without votes. runtime : minutes. changed_at : last change of any field, withdrawal
    and readmission included.
    """

    id = models.BigIntegerField(primary_key=True, validators=[MinValueValidator(1)])
    title = models.CharField(max_length=LONGEST_TITLE)
    original_title = models.CharField("original title", max_length=LONGEST_TITLE, blank=True)
    description = models.TextField(blank=True, max_length=LONGEST_DESCRIPTION)
    genres = ArrayField(
        models.CharField(max_length=LONGEST_TERM), default=list, blank=True, size=MOST_TERMS["genres"]
    )
    keywords = ArrayField(
        models.CharField(max_length=LONGEST_TERM), default=list, blank=True, size=MOST_TERMS["keywords"]
    )
    year = models.SmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(FIRST_YEAR), MaxValueValidator(LAST_YEAR)]
    )
    language = models.CharField(
        max_length=LONGEST_LANGUAGE,
        blank=True,
        validators=[RegexValidator(rf"^(?:{LANGUAGE.pattern})\Z")],
        help_text="Such as en, es or pt-br.",
    )
    popularity = models.FloatField(default=0.0, validators=[MinValueValidator(0)])
    rating = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(HIGHEST_RATING)]
    )
    votes = models.PositiveIntegerField(default=0)
    runtime = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Minutes.")
    # The collation "C" compares bytes, so that one index serves equality, prefixes and order.
    title_key = models.TextField(db_collation="C", editable=False)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    withdrawn_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["id"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(condition=models.Q(id__gte=1), name="movie_id_from_one"),
            models.CheckConstraint(condition=~models.Q(title_key=""), name="movie_has_a_title"),
            models.CheckConstraint(
                condition=models.Q(year__isnull=True) | models.Q(year__range=(FIRST_YEAR, LAST_YEAR)),
                name="movie_year_plausible",
            ),
            # NaN counts as larger than every number.
            models.CheckConstraint(
                condition=models.Q(popularity__gte=0, popularity__lt=float("inf")),
                name="movie_popularity_finite",
            ),
            models.CheckConstraint(
                condition=models.Q(rating__isnull=True) | models.Q(rating__range=(0, HIGHEST_RATING)),
                name="movie_rating_plausible",
            ),
        ]
        indexes = [
            # Equality of titles, and titles that a user is typing: a rare beginning by this index, a frequent
            # beginning by the next index, whose first rows match.
            models.Index(fields=["title_key"], name="movie_title"),
            # Suggestions, and the most popular movies.
            models.Index(
                fields=["-popularity", "id"],
                name="movie_popular",
                condition=models.Q(withdrawn_at__isnull=True),
            ),
            # ?genre=, ignoring case.
            GinIndex(lowered("genres"), name="movie_genre"),
            # ?year=, and the admin's filter, in pages by id.
            models.Index(fields=["year", "id"], name="movie_year"),
            # The admin's filter by language, in pages by id; and the list of languages.
            models.Index(fields=["language", "id"], name="movie_language"),
            # Movies that changed since an index's snapshot.
            models.Index(fields=["changed_at", "id"], name="movie_changed"),
            # Withdrawn movies, which every process reads at each new generation; and ?withdrawn=true.
            models.Index(
                fields=["id"], name="movie_withdrawn", condition=models.Q(withdrawn_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} ({self.year})" if self.year else self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the movie with the key of its title."""
        self.title_key = key_of(self.title)
        super().save(*args, **kwargs)

    @property
    def is_withdrawn(self) -> bool:
        return self.withdrawn_at is not None


class Interaction(models.Model):
    """One interaction of a user with a movie. Append-only.

    An interaction has a recommendation (then also its version and the movie's rank) or a user, often both.

    user : the client's reference to a person, never a name. rank : place in the recommendation; 1 is the
    first. at : time of the interaction. client : account that reported it; null for a row loaded from a file.
    """

    class Kind(models.TextChoices):
        CLICKED = "clicked"
        WATCHED = "watched"
        LIKED = "liked"
        DISLIKED = "disliked"

    user = models.CharField(max_length=LONGEST_REFERENCE, null=True)  # noqa: DJ001 - null: no user was reported
    movie = models.ForeignKey(Movie, on_delete=models.PROTECT, db_index=False, related_name="interactions")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    # No foreign key: the log is partitioned, and old partitions are dropped.
    recommendation = models.UUIDField(null=True)
    version = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.PROTECT, db_index=False, related_name="interactions"
    )
    rank = models.PositiveSmallIntegerField(null=True)
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    at = models.DateTimeField()
    received_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user__isnull=False) | models.Q(recommendation__isnull=False),
                name="interaction_of_somebody",
            ),
            models.CheckConstraint(condition=~models.Q(user=""), name="interaction_user_named"),
            models.CheckConstraint(
                condition=models.Q(kind__in=["clicked", "watched", "liked", "disliked"]),
                name="interaction_kind_known",
            ),
            # Repeated feedback adds no row.
            models.UniqueConstraint(
                fields=["recommendation", "movie", "kind"],
                name="interaction_feedback_once",
                condition=models.Q(recommendation__isnull=False),
            ),
            # Nor does a repeated interaction without a recommendation.
            models.UniqueConstraint(
                fields=["user", "movie", "kind", "at"],
                name="interaction_once",
                condition=models.Q(recommendation__isnull=True),
            ),
        ]
        indexes = [
            # A user's profile: the interactions, newest first.
            models.Index(
                fields=["user", "-at"], name="interaction_user", condition=models.Q(user__isnull=False)
            ),
            # The interactions of one movie: the link from its page in the admin.
            models.Index(fields=["movie", "-id"], name="interaction_movie"),
            # Click-through by version and time.
            models.Index(
                fields=["version", "at"],
                name="interaction_version",
                condition=models.Q(version__isnull=False),
            ),
            # The check whether an account to be deleted reported any (PROTECT).
            models.Index(
                fields=["client"], name="interaction_client", condition=models.Q(client__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.recommendation} {self.kind} movie {self.movie_id}"
