from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "registry"

    def ready(self) -> None:
        from training.services import jobs

        jobs.register("training.trainingrun", "training.services.execution.train")
        jobs.register("training.comparison", "training.services.comparing.compare")
