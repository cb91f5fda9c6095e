"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import path

from predictions.views import drift, outcomes, predictions, quality, replays, rollouts

urlpatterns = [
    path("models/<str:model>/predictions/", predictions.PredictionsView.as_view(), name="predictions"),
    path(
        "models/<str:model>/versions/<int:number>/predictions/",
        predictions.PredictView.as_view(),
        name="version-predictions",
    ),
    path("models/<str:model>/rollouts/", rollouts.RolloutsView.as_view(), name="rollouts"),
    path(
        "models/<str:model>/rollouts/<int:rollout>/",
        rollouts.RolloutDetailView.as_view(),
        name="rollout",
    ),
    path(
        "models/<str:model>/rollouts/<int:rollout>/stop/",
        rollouts.StopRolloutView.as_view(),
        name="stop-rollout",
    ),
    path(
        "models/<str:model>/rollouts/<int:rollout>/raise/",
        rollouts.RaiseRolloutView.as_view(),
        name="raise-rollout",
    ),
    path("models/<str:model>/outcomes/", outcomes.OutcomesView.as_view(), name="outcomes"),
    path("models/<str:model>/quality/", quality.QualityView.as_view(), name="quality"),
    path(
        "models/<str:model>/versions/<int:number>/replays/",
        replays.ReplaysView.as_view(),
        name="replays",
    ),
    path(
        "models/<str:model>/versions/<int:number>/replays/<int:replay>/",
        replays.ReplayView.as_view(),
        name="replay",
    ),
    path(
        "models/<str:model>/versions/<int:number>/replays/<int:replay>/cancel/",
        replays.CancelReplayView.as_view(),
        name="cancel-replay",
    ),
    path("models/<str:model>/drift/", drift.DriftView.as_view(), name="drift"),
    path("models/<str:model>/drift/reviews/", drift.DriftReviewsView.as_view(), name="drift-reviews"),
    path("models/<str:model>/drift/<int:review>/", drift.DriftReviewView.as_view(), name="drift-review"),
    path(
        "models/<str:model>/drift/<int:review>/keep/",
        drift.KeepReviewView.as_view(),
        name="keep-drift-review",
    ),
    path("predictions/<uuid:prediction>/", predictions.PredictionView.as_view(), name="prediction"),
]
