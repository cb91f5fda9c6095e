from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "registry"

    def ready(self) -> None:
        from training.jobs import leases

        leases.register("training.trainingrun", "training.runs.execution.train")
        leases.register("training.comparison", "training.reports.comparison_job.compare")
