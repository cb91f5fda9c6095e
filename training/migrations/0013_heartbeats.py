"""Background processes and periodic tasks leave signs of life in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0012_idempotency_keys")]

    operations = [
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                ("name", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("role", models.CharField(max_length=20)),
                ("at", models.DateTimeField()),
            ],
        ),
    ]
