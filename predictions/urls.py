"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import path

from predictions import drift_views, outcome_views, quality_views, replay_views, rollout_views, views

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
    path("models/<str:model>/drift/", drift_views.DriftView.as_view(), name="drift"),
    path("models/<str:model>/drift/reviews/", drift_views.DriftReviewsView.as_view(), name="drift-reviews"),
    path(
        "models/<str:model>/drift/<int:review>/", drift_views.DriftReviewView.as_view(), name="drift-review"
    ),
    path(
        "models/<str:model>/drift/<int:review>/keep/",
        drift_views.KeepReviewView.as_view(),
        name="keep-drift-review",
    ),
    path("predictions/<uuid:prediction>/", views.PredictionView.as_view(), name="prediction"),
]
