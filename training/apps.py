from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "registry"

    def ready(self) -> None:
        from core.events import visibility
        from training.access import event_visibility

        visibility.register(event_visibility.visible_to)
