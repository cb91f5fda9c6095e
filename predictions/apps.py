from django.apps import AppConfig


class PredictionsConfig(AppConfig):
    name = "predictions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from training.services import jobs, sources

        jobs.register("predictions.replay", "predictions.services.replays.replay")
        sources.register(
            "outcomes",
            check="predictions.services.learning.check",
            collect="predictions.services.learning.collect",
        )
