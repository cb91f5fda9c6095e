"""The admin's dashboard, and its pages of accounts, groups and keys."""

from django.contrib import admin

from web.admin import accounts, keys

admin.site.index_template = "web/dashboard.html"
admin.site.index_title = "Overview of models"

__all__ = ["accounts", "keys"]
