"""Routes of the standard protocols; no address ends with a slash."""

from __future__ import annotations

from django.urls import URLPattern, path

from web import views
from web.protocols import mlflow_views

_MLFLOW: list[URLPattern] = [
    path("health", views.ready, name="health"),
    path("version", mlflow_views.version, name="version"),
    path("models/<str:model>/invocations", mlflow_views.InvocationsView.as_view(), name="mlflow-invocations"),
    path("models/<str:model>/ping", mlflow_views.ModelHealthView.as_view(), name="mlflow-ping"),
    path("models/<str:model>/health", mlflow_views.ModelHealthView.as_view(), name="mlflow-health"),
    path("models/<str:model>/version", mlflow_views.ModelVersionView.as_view(), name="mlflow-version"),
    path(
        "endpoints/<str:model>/invocations",
        mlflow_views.EndpointInvocationsView.as_view(),
        name="mlflow-endpoint-invocations",
    ),
    path("api/2.0/endpoints/", mlflow_views.EndpointsView.as_view(), name="mlflow-endpoints"),
    path("api/2.0/endpoints/<str:model>", mlflow_views.EndpointView.as_view(), name="mlflow-endpoint"),
]
urlpatterns: list[URLPattern] = [*_MLFLOW]
