"""Routes of predictions and their log, below ``/api/v1/``."""

from django.urls import URLPattern, URLResolver, include, path

from predictions.views import batches, drift, exports, outcomes, predictions, quality, replays, rollouts

_ROLLOUTS = [
    path("", rollouts.RolloutsView.as_view(), name="rollouts"),
    path("<int:rollout>/", rollouts.RolloutDetailView.as_view(), name="rollout"),
    path("<int:rollout>/stop/", rollouts.StopRolloutView.as_view(), name="stop-rollout"),
    path("<int:rollout>/raise/", rollouts.RaiseRolloutView.as_view(), name="raise-rollout"),
]
_BATCHES = [
    path("", batches.BatchesView.as_view(), name="batches"),
    path("<int:batch>/", batches.BatchView.as_view(), name="batch"),
    path("<int:batch>/cancel/", batches.CancelBatchView.as_view(), name="cancel-batch"),
    path("<int:batch>/results/", batches.BatchResultsView.as_view(), name="batch-results"),
    path("<int:batch>/errors/", batches.BatchErrorsView.as_view(), name="batch-errors"),
]
_VERSION = [
    path("predictions/", predictions.PredictView.as_view(), name="version-predictions"),
    path("replays/", replays.ReplaysView.as_view(), name="replays"),
    path("replays/<int:replay>/", replays.ReplayView.as_view(), name="replay"),
    path("replays/<int:replay>/cancel/", replays.CancelReplayView.as_view(), name="cancel-replay"),
]
_EXPORTS = [
    path("", exports.LogExportsView.as_view(), name="log-exports"),
    path("<int:export>/", exports.LogExportView.as_view(), name="log-export"),
    path("<int:export>/cancel/", exports.CancelLogExportView.as_view(), name="cancel-log-export"),
    path("<int:export>/archive/", exports.LogExportArchiveView.as_view(), name="log-export-archive"),
    path("<int:export>/files/<path:path>", exports.LogExportFileView.as_view(), name="log-export-file"),
]
_MODEL: list[URLPattern | URLResolver] = [
    path("predictions/", predictions.PredictionsView.as_view(), name="predictions"),
    path("versions/<int:number>/", include(_VERSION)),
    path("batches/", include(_BATCHES)),
    path("rollouts/", include(_ROLLOUTS)),
    path("log-exports/", include(_EXPORTS)),
    path("outcomes/", outcomes.OutcomesView.as_view(), name="outcomes"),
    path("quality/", quality.QualityView.as_view(), name="quality"),
    path("drift/", drift.DriftView.as_view(), name="drift"),
    path("drift/reviews/", drift.DriftReviewsView.as_view(), name="drift-reviews"),
    path("drift/<int:review>/", drift.DriftReviewView.as_view(), name="drift-review"),
    path("drift/<int:review>/keep/", drift.KeepReviewView.as_view(), name="keep-drift-review"),
]
urlpatterns = [
    path("models/<str:model>/", include(_MODEL)),
    path("predictions/<uuid:prediction>/", predictions.PredictionView.as_view(), name="prediction"),
]
