from django.apps import AppConfig


class RecommenderConfig(AppConfig):
    name = "recommender"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "movies"

    def ready(self) -> None:
        from core.metrics import definitions
        from recommender import declaration
        from recommender.telemetry import METRICS
        from training import providers
        from vigia_ml import engines

        engines.register(declaration.ENGINE, "recommender.index.engine:IndexEngine.from_bytes")
        definitions.register(METRICS)
        providers.register(
            providers.ModelProvider(
                name=declaration.NAME,
                title=declaration.TITLE,
                description=declaration.DESCRIPTION,
                policy=declaration.POLICY,
                primary_metrics=declaration.PRIMARY_METRICS,
                metrics=declaration.METRICS,
                smaller_is_better=declaration.SMALLER_IS_BETTER,
                source={"from": "catalogue"},
                make="recommender.training_run.make",
                remake="recommender.training_run.remake",
                asked_at="/api/v1/recommendations/",
                example=declaration.EXAMPLE,
                page="/movies/",
                quality_at="/api/v1/recommendations/quality/",
                judged_on=declaration.JUDGED_ON,
                baseline_is=declaration.BASELINE_IS,
            )
        )
