from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "core"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "events"

    def ready(self) -> None:
        from core.events import channels, mail, slack, webhook

        channels.register("webhook", webhook.WebhookChannel())
        channels.register("email", mail.EmailChannel())
        channels.register("slack", slack.SlackChannel())
