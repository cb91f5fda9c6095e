from django.apps import AppConfig


class PredictionsConfig(AppConfig):
    name = "predictions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from training.services import jobs, rehearsal, sources

        jobs.register("predictions.replay", "predictions.services.replays.replay")
        rehearsal.register("JSON", "predictions.services.rehearsal.by_json")
        rehearsal.register("CSV", "predictions.services.rehearsal.by_csv")
        sources.register(
            "outcomes",
            check="predictions.services.learning.check",
            collect="predictions.services.learning.collect",
            predictions="predictions.services.learning.predictions",
        )
