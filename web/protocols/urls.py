"""Routes of the standard protocols; no address ends with a slash."""

from __future__ import annotations

from django.urls import path

from web.protocols import v2_views as v2

urlpatterns = [
    path("v2", v2.ServerView.as_view(), name="v2"),
    path("v2/health/live", v2.live, name="v2-live"),
    path("v2/health/ready", v2.ready, name="v2-ready"),
    path("v2/models/<str:model>", v2.MetadataView.as_view(), name="v2-model"),
    path("v2/models/<str:model>/ready", v2.ReadyView.as_view(), name="v2-model-ready"),
    path("v2/models/<str:model>/infer", v2.InferView.as_view(), name="v2-infer"),
    path("v2/models/<str:model>/versions/<int:number>", v2.MetadataView.as_view(), name="v2-version"),
    path(
        "v2/models/<str:model>/versions/<int:number>/ready", v2.ReadyView.as_view(), name="v2-version-ready"
    ),
    path(
        "v2/models/<str:model>/versions/<int:number>/infer", v2.InferView.as_view(), name="v2-version-infer"
    ),
]
