"""Headers that restrict what a page loads and runs, and which pages may embed it.

Our own pages, the login included, get the strict policy. The admin's theme and Swagger UI cannot work under
it: Alpine compiles attributes, and both write styles into the page, as DRF's pages do.
"""

from __future__ import annotations

from typing import Final

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest
from django.http.response import HttpResponseBase

Directives = dict[str, list[str]]
STRICT: Final[Directives] = {
    "default-src": [NONE],
    "script-src": [SELF],
    "style-src": [SELF],
    "img-src": [SELF],
    "font-src": [SELF],
    "connect-src": [SELF],
    "form-action": [SELF],
    "base-uri": [NONE],
    "frame-ancestors": [NONE],
}
_STYLED: Final = STRICT | {"style-src": [SELF, UNSAFE_INLINE], "img-src": [SELF, "data:"]}
BY_PREFIX: Final[tuple[tuple[str, Directives], ...]] = (
    ("/admin/login/", STRICT),  # a template of our own, for this reason
    ("/admin/", _STYLED | {"script-src": [SELF, UNSAFE_EVAL]}),
    ("/api/", _STYLED),  # Swagger UI and the browsable API
)
UNUSED: Final = (
    "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation",
    "gyroscope", "magnetometer", "microphone", "midi", "payment", "picture-in-picture",
    "publickey-credentials-get", "screen-wake-lock", "usb", "xr-spatial-tracking",
)  # fmt: skip
PERMISSIONS: Final = ", ".join(f"{feature}=()" for feature in UNUSED)


class ContentPolicyMiddleware(CSPMiddleware):
    """Adds Content-Security-Policy and Permissions-Policy to every page. JSON and CSV run nothing."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            return response
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return super().process_response(request, response)

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if parts.config is None and not report_only:
            policies = (policy for prefix, policy in BY_PREFIX if request.path.startswith(prefix))
            parts.config = next(policies, STRICT)
        return parts
