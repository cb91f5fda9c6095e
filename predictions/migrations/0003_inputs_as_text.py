"""The inputs of a logged row as `json`: a log is written far more often than read, and jsonb costs a fifth of it.

Rewrites the log, at some ten seconds a million rows, and nothing is answered meanwhile.
"""

from django.db import migrations

import predictions.models


class Migration(migrations.Migration):
    dependencies = [("predictions", "0002_log_writer")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE predictions_prediction ALTER COLUMN inputs TYPE json",
                    "ALTER TABLE predictions_prediction ALTER COLUMN inputs TYPE jsonb",
                )
            ],
            state_operations=[
                migrations.AlterField("prediction", "inputs", predictions.models.JSONText()),
            ],
        )
    ]
