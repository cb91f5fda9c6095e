"""The interactions of users with movies, newest first; read-only."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import DropdownFilter

from recommender.admin import rights
from recommender.models import Interaction
from training.admin.columns import CLIENT, column, emphasised
from training.admin.paging import AfterParameter, HiddenFilter, PositionAdmin, PositionChangeList
from training.models import sharing_versions
from training.templatetags.vigia import badge
from vigia_ml.schema.columns import is_storable

SEARCHED_ROWS = 50_000
MOVIE = "movie"
TONES = {"liked": "good", "disliked": "bad", "watched": "calm", "clicked": "calm"}


class KindFilter(DropdownFilter):
    """Filters the newest interactions by kind. No index serves the kind, so the limit bounds a page's
    cost."""

    title = f"kind, among the newest {SEARCHED_ROWS:,}"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(kind, kind) for kind in Interaction.Kind.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in Interaction.Kind.values:
            return queryset
        ids = queryset.order_by("-pk").values_list("pk", flat=True)
        floor = ids[SEARCHED_ROWS : SEARCHED_ROWS + 1].first()
        return queryset.filter(kind=self.value(), pk__gt=floor or 0)


class MovieParameter(HiddenFilter):
    parameter_name = MOVIE


class InteractionChangeList(PositionChangeList):
    """Interactions, newest first."""

    order = ("-pk",)

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        movie_id = request.GET.get(MOVIE)
        if not movie_id:
            return rows
        is_id = movie_id.isascii() and movie_id.isdigit() and len(movie_id) < 19
        return rows.filter(movie_id=int(movie_id)) if is_id else rows.none()

    def position(self, row: Interaction) -> str:
        return str(row.pk)

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        number = int(position)
        if not 0 < number < 2**63:
            raise ValueError(position)
        return rows.filter(pk__lt=number)


def _movie(row: Interaction) -> str:
    address = reverse("admin:recommender_movie_change", args=[row.movie_id])
    return format_html('<a href="{}">{}</a>', address, row.movie)


def _followed(row: Interaction) -> str:
    if row.recommendation is None:
        return "–"
    address = reverse("admin:predictions_prediction_change", args=[row.recommendation])
    place = f"place {row.rank}" if row.rank else "requested movie"
    number = f" of version {row.version.number}" if row.version else ""
    return format_html('<a href="{}">{}{}</a>', address, place, number)


@admin.register(Interaction)
class InteractionAdmin(PositionAdmin):
    changelist = InteractionChangeList
    nothing_yet: ClassVar = "Clients report over the API what users do with movies."
    list_display: ClassVar = [
        column("time", "time (UTC)", attrgetter("at")),
        column("user_key", "user", lambda row: emphasised("key", row.user) if row.user else "–"),
        column("movie_link", "movie", _movie),
        column("kind_badge", "kind", lambda row: badge(row.kind, TONES[row.kind])),
        column("followed", "after the recommendation", _followed),
        column("received", "received (UTC)", attrgetter("received_at")),
        CLIENT,
    ]
    list_filter: ClassVar = [KindFilter, MovieParameter, AfterParameter]
    list_select_related: ClassVar = ["movie", "client"]
    list_display_links: ClassVar = None
    search_fields: ClassVar = ["user"]  # shows the box; `search` does the search
    search_help_text = "A user's reference, exactly"
    fields: ClassVar = ["user"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Interaction, Interaction]:
        return Interaction.objects.prefetch_related(*sharing_versions("version"))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return rights.sees_interactions(request)

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        return rows.filter(user=term) if is_storable(term) else rows.none()

    def page(self, request: HttpRequest, row: Interaction) -> dict[str, Any]:
        return {"title": f"Interaction {row.pk}"}
