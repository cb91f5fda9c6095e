"""The catalogue, most popular movies first. The right to train allows changing and withdrawing movies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from unfold.contrib.filters.admin import DropdownFilter
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from recommender.admin import rights
from recommender.catalogue import service as catalogue
from recommender.models import Movie
from recommender.movie_schema import FIELDS, Entry, Refused, split_terms
from training.admin.columns import column
from training.admin.filters import ChoiceFilter
from training.admin.paging import AfterParameter, PositionAdmin, PositionChangeList
from training.templatetags.vigia import badge
from vigia_ml.schema.faults import first_of

LISTS = ("genres", "keywords")
SHOWN_GENRES = 3


class MovieForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of one movie; it validates fields as the API does."""

    genres = forms.CharField(
        required=False,
        help_text="One genre per line, or separated by |.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )
    keywords = forms.CharField(
        required=False,
        help_text="Subjects of the movie as words or phrases; one per line, or separated by |.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
    )
    withdrawn = forms.BooleanField(
        required=False,
        help_text="A withdrawn movie is not recommended. Its row stays, because the log refers to it.",
        widget=UnfoldBooleanWidget,
    )

    class Meta:
        model = Movie
        fields: ClassVar = [*FIELDS]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            for name in LISTS:
                self.initial[name] = "\n".join(getattr(self.instance, name))
            self.initial["withdrawn"] = self.instance.is_withdrawn

    def clean(self) -> dict[str, Any]:
        """Applies the API's validation of each field after the form's own."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name, field in FIELDS.items():
            if name not in cleaned:
                continue
            cell = split_terms(name, cleaned[name]) if name in LISTS else cleaned[name]
            try:
                value = None if cell in ("", None) else field.from_json(cell)
            except Refused as refused:
                self.add_error(name, [fault.message for fault in refused.faults])
                cleaned.pop(name, None)
            else:
                value = field.empty if value is None else value
                cleaned[name] = list(value) if name in LISTS else value
        return cleaned


class WithdrawnFilter(DropdownFilter):
    title = "withdrawn"
    parameter_name = "withdrawn"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("yes", "withdrawn")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if request.GET.get("q", "").strip().isdigit():
            return queryset  # a search by id shows the movie, withdrawn or not
        return queryset.filter(withdrawn_at__isnull=self.value() != "yes")


class _ValueFilter(ChoiceFilter):
    """Filters by one value of a column that has few distinct values."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(str(value), str(value)) for value in catalogue.values_of(self.parameter_name)]


class YearFilter(_ValueFilter):
    title = "year"
    parameter_name = "year"


class LanguageFilter(_ValueFilter):
    title = "language"
    parameter_name = "language"


class MovieChangeList(PositionChangeList):
    """Movies, most popular first: the order of the index `movie_popular`."""

    order = ("-popularity", "pk")

    def position(self, row: Movie) -> str:
        return f"{row.popularity!r},{row.pk}"

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        score, _, pk = position.partition(",")
        popularity, number = float(score), int(pk)
        if not 0 <= popularity < float("inf") or not 0 < number < 2**63:
            raise ValueError(position)
        # The index serves the first condition; the second leaves out the rows of the previous page.
        behind = Q(popularity__lt=popularity) | Q(popularity=popularity, pk__gt=number)
        return rows.filter(popularity__lte=popularity).filter(behind)


def _genres(row: Movie) -> str:
    return first_of(row.genres, SHOWN_GENRES) or "–"


@admin.register(Movie)
class MovieAdmin(PositionAdmin):
    changelist = MovieChangeList
    form = MovieForm
    nothing_yet: ClassVar = "manage.py load_movies loads a file of movies; the API adds single movies."
    list_display: ClassVar = [
        "title",
        column("shown_year", "year", lambda row: "–" if row.year is None else str(row.year)),
        column("shown_genres", "genres", _genres),
        "language",
        column("score", "popularity", lambda row: f"{row.popularity:,.1f}"),
        column("state", "", lambda row: badge("withdrawn", "warn") if row.is_withdrawn else ""),
    ]
    list_filter: ClassVar = [YearFilter, LanguageFilter, WithdrawnFilter, AfterParameter]
    list_disable_select_all = True
    search_fields: ClassVar = ["title_key"]  # shows the box; `search` does the search
    search_help_text = "The beginning of a title, or an id"
    actions: ClassVar = ["withdraw_selected", "readmit_selected"]

    # -- permissions -----------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Movie, Movie]:
        return Movie.objects.all()

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return rights.sees_movies(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return rights.may(request, "train")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return rights.may(request, "train")

    # -- the list ----------------------------------------------------------------------------------

    empty_value_display = "–"

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        titled = catalogue.titled(rows, term)
        if term.isascii() and term.isdigit() and len(term) < 19:
            ids = titled.order_by("-popularity", "pk").values_list("pk", flat=True)[: self.list_per_page]
            return rows.filter(pk__in=[int(term), *ids])
        return titled

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Catalogue", **(extra_context or {})})

    @admin.action(description="Withdraw from recommendations", permissions=["change"])
    def withdraw_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = catalogue.withdraw(_ids(queryset), by=_by(request))
        messages.success(request, f"{_movies(count)} withdrawn: no recommendation names them from now on.")

    @admin.action(description="Readmit", permissions=["change"])
    def readmit_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        messages.success(
            request, f"{_movies(catalogue.readmit(_ids(queryset), by=_by(request)))} readmitted."
        )

    # -- one movie ---------------------------------------------------------------------------------

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        changes = obj is not None and self.has_change_permission(request, obj)
        return [*FIELDS, "withdrawn"] if changes else [*FIELDS]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("id",) if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Movie, form: MovieForm, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in FIELDS if name in form.cleaned_data}
        if not change:
            catalogue.add(Entry(**values), by=_by(request))
            return
        values.pop("id", None)
        catalogue.change(obj.pk, values, by=_by(request))
        switch = catalogue.withdraw if form.cleaned_data["withdrawn"] else catalogue.readmit
        switch([obj.pk], by=_by(request))

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> None:
        """Does nothing: the catalogue's service writes the history for the API and the admin alike."""

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> None:
        """Does nothing; see `log_addition`."""

    def page(self, request: HttpRequest, row: Movie) -> dict[str, Any]:
        links = [("In the API", reverse("movie", args=[row.pk]))]
        if rights.sees_interactions(request):
            address = reverse("admin:recommender_interaction_changelist")
            links.append(("Interactions", f"{address}?movie={row.pk}"))
        return {"title": str(row), "show_history": True, "row": row, "links": links}


def _ids(rows: QuerySet[Any]) -> list[int]:
    return list(rows.values_list("pk", flat=True))


def _by(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _movies(count: int) -> str:
    return "1 movie was" if count == 1 else f"{count:,} movies were"
