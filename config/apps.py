from django.apps import AppConfig, apps


class ConfigConfig(AppConfig):
    name = "config"
    label = "config"

    def ready(self) -> None:
        from config import checks  # noqa: F401 - importing registers them

        # People, groups and keys come from two packages; in the admin they are one room.
        for label in ("auth", "knox"):
            apps.get_app_config(label).verbose_name = "access"
