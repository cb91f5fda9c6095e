"""An empty Django (no middleware, no database, one view), which measures the cost of Django itself."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DEBUG=False,
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="unused: this service signs nothing",  # noqa: S106
)


def ok(request: HttpRequest) -> HttpResponse:
    assert request.body
    return HttpResponse(b'"ok"', content_type="application/json")


urlpatterns = [path("ok", ok)]
application = get_wsgi_application()
