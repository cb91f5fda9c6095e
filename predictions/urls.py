"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import path

from predictions import outcome_views, quality_views, replay_views, rollout_views, views

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
    path("models/<str:model>/outcomes/", outcome_views.OutcomesView.as_view(), name="outcomes"),
    path("models/<str:model>/quality/", quality_views.QualityView.as_view(), name="quality"),
    path(
        "models/<str:model>/versions/<int:number>/replays/",
        replay_views.ReplaysView.as_view(),
        name="replays",
    ),
    path(
        "models/<str:model>/versions/<int:number>/replays/<int:replay>/",
        replay_views.ReplayView.as_view(),
        name="replay",
    ),
    path(
        "models/<str:model>/versions/<int:number>/replays/<int:replay>/cancel/",
        replay_views.CancelReplayView.as_view(),
        name="cancel-replay",
    ),
    path("predictions/<uuid:prediction>/", views.PredictionView.as_view(), name="prediction"),
]
