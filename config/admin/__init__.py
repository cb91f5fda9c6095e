"""The admin's front page, and people, groups and keys in it."""

from django.contrib import admin

from config.admin import keys, people

admin.site.index_template = "config/dashboard.html"
admin.site.index_title = "Models at a glance"

__all__ = ["keys", "people"]
