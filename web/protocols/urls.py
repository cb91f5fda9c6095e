"""Routes of the standard protocols; no address ends with a slash."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
