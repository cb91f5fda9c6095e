"""Adds the column of every class's probability to the log and to the answers of shadows.

A new column that may be null changes no row, so it takes no time; but it locks the log, with all its partitions.
It must not queue behind a long query, because every write would queue behind it; so it tries again.
"""

import time

from django.db import OperationalError, migrations, transaction

import predictions.models.log

TRIES = 100


def in_short(statement):
    def run(apps, schema_editor):
        connection = schema_editor.connection
        for left in reversed(range(TRIES)):
            try:
                with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                    cursor.execute("SET LOCAL lock_timeout = '500ms'")
                    cursor.execute(statement)
                return
            except OperationalError as error:
                if not left or getattr(error.__cause__, "sqlstate", "") != "55P03":
                    raise
                time.sleep(1)

    return run


def column_of(table, model):
    make = f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS probabilities json NULL"
    unmake = f"ALTER TABLE {table} DROP COLUMN IF EXISTS probabilities"
    return migrations.SeparateDatabaseAndState(
        [migrations.RunPython(in_short(make), in_short(unmake))],
        [
            migrations.AddField(
                model_name=model,
                name="by_class",
                field=predictions.models.log.JSONText(db_column="probabilities", null=True),
            )
        ],
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("predictions", "0016_erased_datasets")]
    operations = [
        column_of("predictions_prediction", "prediction"),
        column_of("predictions_shadowanswer", "shadowanswer"),
    ]
