"""Routes of the recommender, below ``/api/v1/``."""

from django.urls import path

from recommender import catalogue_views, pages, views

urlpatterns = [
    path("movies/", catalogue_views.CatalogueView.as_view(), name="movies"),
    path("movies/<int:movie_id>/", catalogue_views.MovieView.as_view(), name="movie"),
    path("movies/suggestions/", pages.SuggestionsView.as_view(), name="movie-suggestions"),
    path("interactions/", catalogue_views.InteractionsView.as_view(), name="interactions"),
    path("recommendations/", views.RecommendationsView.as_view(), name="recommendations"),
    path("recommendations/quality/", views.QualityView.as_view(), name="recommendation-quality"),
    path("recommendations/<uuid:recommendation>/", views.RecommendationView.as_view(), name="recommendation"),
    path(
        "recommendations/<uuid:recommendation>/feedback/",
        views.FeedbackView.as_view(),
        name="recommendation-feedback",
    ),
]
tutorial = [path("recommend", views.RecommendTutorialView.as_view(), name="tutorial-movies")]
page = [path("movies/", pages.movies, name="movies-page")]
