"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import path

from predictions import rollout_views, views

urlpatterns = [
    path("models/<str:model>/predictions/", views.PredictionsView.as_view(), name="predictions"),
    path(
        "models/<str:model>/versions/<int:number>/predictions/",
        views.PredictView.as_view(),
        name="version-predictions",
    ),
    path("models/<str:model>/rollouts/", rollout_views.RolloutsView.as_view(), name="rollouts"),
    path(
        "models/<str:model>/rollouts/<int:rollout>/",
        rollout_views.RolloutDetailView.as_view(),
        name="rollout",
    ),
    path(
        "models/<str:model>/rollouts/<int:rollout>/stop/",
        rollout_views.StopRolloutView.as_view(),
        name="stop-rollout",
    ),
    path(
        "models/<str:model>/rollouts/<int:rollout>/raise/",
        rollout_views.RaiseRolloutView.as_view(),
        name="raise-rollout",
    ),
    path("predictions/<uuid:prediction>/", views.PredictionView.as_view(), name="prediction"),
]
