"""The routes of the service."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from predictions.admin import monitoring
from recommender import urls as recommender_urls
from web import views
from web.api_root import ApiRootView
from web.metrics.views import MetricsView

admin.site.site_url = "/"

urlpatterns = [
    path("", views.home, name="home"),
    path("ping", views.ping, name="ping"),
    path("healthz/live", views.live, name="live"),
    path("healthz/ready", views.ready, name="ready"),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("admin/watch/", include(monitoring.urls())),
    path("admin/", admin.site.urls),
    path("api/schema/", views.SchemaView.as_view(), name="openapi"),
    path(
        "api/docs/",
        SpectacularSwaggerSplitView.as_view(url_name="openapi", template_name="web/docs.html"),
        name="docs",
    ),
    path("docs", RedirectView.as_view(pattern_name="docs")),
    path("api/v1/", ApiRootView.as_view(name="API"), name="api-root"),
    path("api/v1/", include("training.urls")),
    path("api/v1/", include("predictions.urls")),
    path("api/v1/", include("recommender.urls")),
    path("", include("web.protocols.urls")),
    path("", include("predictions.views.legacy_routes")),
    path("", include(recommender_urls.tutorial)),
    path("", include(recommender_urls.page)),
]

handler400 = "web.errors.bad_request"
handler403 = "web.errors.permission_denied"
handler404 = "web.errors.not_found"
handler500 = "web.errors.server_error"
