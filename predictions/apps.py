from django.apps import AppConfig


class PredictionsConfig(AppConfig):
    name = "predictions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from training.registry import answers_check, archiving
        from training.runs import row_sources

        answers_check.register("JSON", "predictions.inference.answers_check.by_json")
        answers_check.register("CSV", "predictions.inference.answers_check.by_csv")
        archiving.register("predictions.references.references")
        row_sources.register("outcomes", "predictions.outcomes.training_source")
