from django.apps import AppConfig


class PredictionsConfig(AppConfig):
    name = "predictions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from core.events import kinds
        from predictions import events
        from training.registry import answers_check, archiving
        from training.runs import row_sources

        kinds.register(events.KINDS)
        answers_check.register("JSON", "predictions.inference.answers_check.by_json")
        answers_check.register("CSV", "predictions.inference.answers_check.by_csv")
        archiving.register("predictions.references.references")
        row_sources.register("outcomes", "predictions.outcomes.training_source")
