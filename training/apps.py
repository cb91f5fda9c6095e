from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "registry"

    def ready(self) -> None:
        from core.events import kinds, visibility
        from training import events
        from training.access import event_visibility

        kinds.register(events.KINDS)
        visibility.register(event_visibility.visible_to)
