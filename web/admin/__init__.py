"""The admin's front page, and people, groups and keys in it."""

from django.contrib import admin

from web.admin import accounts, keys

admin.site.index_template = "web/dashboard.html"
admin.site.index_title = "Models at a glance"

__all__ = ["accounts", "keys"]
