from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "registry"

    def ready(self) -> None:
        from core.events import kinds
        from training import events

        kinds.register(events.KINDS)
