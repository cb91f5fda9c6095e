"""Adds the index that finds the longest waiting outcomes without reading joined ones."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("predictions", "0005_outcomes_append_only")]

    operations = [
        migrations.AddIndex(
            model_name="outcome",
            index=models.Index(
                condition=models.Q(("prediction_id__isnull", True)),
                fields=["registered_model", "id"],
                name="outcome_waiting_longest",
            ),
        ),
    ]
