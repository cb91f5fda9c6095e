"""Idempotency keys serve every POST, so their model belongs to this app; the table keeps its name."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("training", "0001_squashed_0011_profiles_written_once"),
        ("predictions", "0001_squashed_0008_changed_hours"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="IdempotencyKey",
                    fields=[
                        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                        ("key", models.CharField(max_length=200)),
                        ("request_sha256", models.CharField(max_length=64)),
                        ("answer", models.TextField()),
                        ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                        ("client", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL)),
                    ],
                    options={
                        "db_table": "predictions_idempotencykey",
                        "default_permissions": (),
                        "indexes": [models.Index(fields=["created_at"], name="idempotency_age")],
                        "constraints": [models.UniqueConstraint(fields=("client", "key"), name="idempotency_key_once")],
                    },
                ),
            ],
        ),
        migrations.AddField(
            model_name="idempotencykey",
            name="status",
            field=models.PositiveSmallIntegerField(db_default=200, default=200),
        ),
        migrations.AddField(
            model_name="idempotencykey",
            name="headers",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
        ),
    ]
