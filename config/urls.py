"""All routes."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from config import views
from config.api_root import ApiRootView
from config.telemetry.exposing import MetricsView
from predictions.admin import watch
from recommender import urls as recommender_urls

admin.site.site_url = "/"

urlpatterns = [
    path("", views.home, name="home"),
    path("ping", views.ping, name="ping"),
    path("healthz/live", views.live, name="live"),
    path("healthz/ready", views.ready, name="ready"),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("admin/watch/", include(watch.urls())),
    path("admin/", admin.site.urls),
    path("api/schema/", views.SchemaView.as_view(), name="openapi"),
    path(
        "api/docs/",
        SpectacularSwaggerSplitView.as_view(url_name="openapi", template_name="config/docs.html"),
        name="docs",
    ),
    path("docs", RedirectView.as_view(pattern_name="docs")),
    path("api/v1/", ApiRootView.as_view(name="API"), name="api-root"),
    path("api/v1/", include("training.urls")),
    path("api/v1/", include("predictions.urls")),
    path("api/v1/", include("recommender.urls")),
    path("", include("predictions.tutorials")),
    path("", include(recommender_urls.tutorial)),
    path("", include(recommender_urls.page)),
]

handler400 = "config.errors.bad_request"
handler403 = "config.errors.permission_denied"
handler404 = "config.errors.not_found"
handler500 = "config.errors.server_error"
