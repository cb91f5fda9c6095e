from django.apps import AppConfig, apps


class ConfigConfig(AppConfig):
    name = "config"
    label = "config"

    def ready(self) -> None:
        from config import checks  # noqa: F401 - the import registers the checks

        # People, groups and keys come from two packages; the admin shows them as one section.
        for label in ("auth", "knox"):
            apps.get_app_config(label).verbose_name = "access"
