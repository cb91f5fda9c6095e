"""Routes of the registry, below ``/api/v1/``."""

from django.urls import path

from training.views import evaluations, registry, runs, versions

urlpatterns = [
    path("models/", registry.ModelsView.as_view(), name="models"),
    path("models/<str:model>/", registry.ModelDetailView.as_view(), name="model"),
    path("models/<str:model>/active/", registry.ActiveView.as_view(), name="active"),
    path("models/<str:model>/rollback/", registry.RollbackView.as_view(), name="rollback"),
    path("models/<str:model>/versions/", versions.VersionsView.as_view(), name="versions"),
    path("models/<str:model>/versions/<int:number>/", registry.VersionDetailView.as_view(), name="version"),
    path(
        "models/<str:model>/versions/<int:number>/activate/", registry.ActivateView.as_view(), name="activate"
    ),
    path(
        "models/<str:model>/versions/<int:number>/comparisons/",
        evaluations.ComparisonsView.as_view(),
        name="comparisons",
    ),
    path(
        "models/<str:model>/versions/<int:number>/comparisons/<int:comparison>/",
        evaluations.ComparisonView.as_view(),
        name="comparison",
    ),
    path("models/<str:model>/versions/<int:number>/card/", evaluations.CardView.as_view(), name="model-card"),
    path("models/<str:model>/evaluations/", evaluations.EvaluationsView.as_view(), name="evaluations"),
    path("models/<str:model>/training-runs/", runs.TrainingRunsView.as_view(), name="training-runs"),
    path("models/<str:model>/training-runs/<int:run>/", runs.TrainingRunView.as_view(), name="training-run"),
    path(
        "models/<str:model>/training-runs/<int:run>/cancel/",
        runs.CancelRunView.as_view(),
        name="cancel-training-run",
    ),
]
