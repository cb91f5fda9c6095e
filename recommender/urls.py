"""Routes of the recommender, below ``/api/v1/``."""

from django.urls import path

from recommender.views import catalogue, pages, recommendations

urlpatterns = [
    path("movies/", catalogue.CatalogueView.as_view(), name="movies"),
    path("movies/<int:movie_id>/", catalogue.MovieView.as_view(), name="movie"),
    path("movies/suggestions/", pages.SuggestionsView.as_view(), name="movie-suggestions"),
    path("interactions/", catalogue.InteractionsView.as_view(), name="interactions"),
    path("recommendations/", recommendations.RecommendationsView.as_view(), name="recommendations"),
    path("recommendations/quality/", recommendations.QualityView.as_view(), name="recommendation-quality"),
    path(
        "recommendations/<uuid:recommendation>/",
        recommendations.RecommendationView.as_view(),
        name="recommendation",
    ),
    path(
        "recommendations/<uuid:recommendation>/feedback/",
        recommendations.FeedbackView.as_view(),
        name="recommendation-feedback",
    ),
]
tutorial = [path("recommend", recommendations.RecommendTutorialView.as_view(), name="tutorial-movies")]
page = [path("movies/", pages.movies, name="movies-page")]
