"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import path

from predictions import views

urlpatterns = [
    path("models/<str:model>/predictions/", views.PredictionsView.as_view(), name="predictions"),
    path(
        "models/<str:model>/versions/<int:number>/predictions/",
        views.PredictView.as_view(),
        name="version-predictions",
    ),
    path("predictions/<uuid:prediction>/", views.PredictionView.as_view(), name="prediction"),
]
