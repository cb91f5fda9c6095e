"""Routes of the standard protocols; no address ends with a slash."""

from __future__ import annotations

from django.urls import path

from web import views
from web.protocols import mlflow_views as mlflow
from web.protocols import v2_views as v2

VERSION = "v2/models/<str:model>/versions/<int:number>"
urlpatterns = [
    path("health", views.ready, name="mlflow-health"),
    path("version", mlflow.version, name="mlflow-version"),
    path("models/<str:model>/invocations", mlflow.InvocationsView.as_view(), name="mlflow-invocations"),
    path("models/<str:model>/ping", mlflow.ModelHealthView.as_view(), name="mlflow-model-ping"),
    path("models/<str:model>/health", mlflow.ModelHealthView.as_view(), name="mlflow-model-health"),
    path("models/<str:model>/version", mlflow.ModelVersionView.as_view(), name="mlflow-model-version"),
    path(
        "endpoints/<str:model>/invocations",
        mlflow.InvocationsView.as_view(),
        name="mlflow-endpoint-invocations",
    ),
    path("api/2.0/endpoints/", mlflow.EndpointsView.as_view(), name="mlflow-endpoints"),
    path("api/2.0/endpoints/<str:model>", mlflow.EndpointView.as_view(), name="mlflow-endpoint"),
    path("v2", v2.ServerView.as_view(), name="v2"),
    path("v2/health/live", v2.live, name="v2-live"),
    path("v2/health/ready", v2.ready, name="v2-ready"),
    path("v2/models/<str:model>", v2.MetadataView.as_view(), name="v2-model"),
    path("v2/models/<str:model>/ready", v2.ReadyView.as_view(), name="v2-model-ready"),
    path("v2/models/<str:model>/infer", v2.InferView.as_view(), name="v2-infer"),
    path(VERSION, v2.of_version(v2.MetadataView, "get", "v2_version").as_view(), name="v2-version"),
    path(
        f"{VERSION}/ready",
        v2.of_version(v2.ReadyView, "get", "v2_version_ready").as_view(),
        name="v2-version-ready",
    ),
    path(
        f"{VERSION}/infer",
        v2.of_version(v2.InferView, "post", "v2_version_infer").as_view(),
        name="v2-version-infer",
    ),
]
