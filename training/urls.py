"""Routes of the registry, below ``/api/v1/``."""

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.utils import extend_schema, extend_schema_view

from training.views import archives, evaluations, events, registry, runs, versions
from training.views.base import ModelView


def _archives(prefix: str, name: str) -> list[URLPattern]:
    """Returns the routes that archive a model, a version or a dataset."""
    routes: dict[str, tuple[str, type[ModelView]]] = {
        "references": ("get", archives.ReferencesView),
        "archive": ("post", archives.ArchiveView),
        "restore": ("post", archives.RestoreView),
        "delete-bytes": ("post", archives.DeleteBytesView),
    }
    urls = []
    for route, (method, view) in routes.items():
        operation = extend_schema(operation_id=f"{route.replace('-', '_')}_{name}")
        # A class of its own, because the description of an operation belongs to the class.
        own: type[ModelView] = type(view.__name__, (view,), {"__doc__": view.__doc__})
        extend_schema_view(**{method: operation})(own)
        urls.append(path(f"{prefix}{route}/", own.as_view(), name=f"{name}-{route}"))
    return urls


_SUBSCRIPTION = [
    path("", events.SubscriptionView.as_view(), name="subscription"),
    path("test/", events.TestSubscriptionView.as_view(), name="test-subscription"),
    path("rotate-secret/", events.RotateSecretView.as_view(), name="rotate-subscription-secret"),
    path("replay/", events.ReplayView.as_view(), name="replay-subscription"),
    path("deliveries/", events.DeliveriesView.as_view(), name="deliveries"),
    path("deliveries/<int:delivery>/replay/", events.ReplayDeliveryView.as_view(), name="replay-delivery"),
]
urlpatterns: list[URLPattern | URLResolver] = [
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
    path("models/<str:model>/datasets/", archives.DatasetsView.as_view(), name="datasets"),
    path("models/<str:model>/datasets/<str:sha256>/", archives.DatasetView.as_view(), name="dataset"),
    path("events/", events.EventsView.as_view(), name="events"),
    path("subscriptions/", events.SubscriptionsView.as_view(), name="subscriptions"),
    path("subscriptions/<int:subscription>/", include(_SUBSCRIPTION)),
    *_archives("models/<str:model>/", "model"),
    *_archives("models/<str:model>/versions/<int:number>/", "version"),
    *_archives("models/<str:model>/datasets/<str:sha256>/", "dataset"),
]
