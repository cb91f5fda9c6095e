"""Stores the inputs of a logged row as a `json` array in the order of its version's schema.

A log is written far more often than read. The names took two thirds of a row, and their conversion to jsonb a
third of PostgreSQL's time for it. The migration rewrites the log, about ten seconds per million rows; no
prediction is answered meanwhile.
"""

from django.db import migrations

import predictions.models

MAKE = """
CREATE FUNCTION vigia_inputs(version bigint, cells json) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(col.value ->> 'name', cells -> (col.ordinality::int - 1)), '{}')
    FROM training_modelversion, jsonb_array_elements(schema -> 'columns') WITH ORDINALITY AS col
    WHERE training_modelversion.id = version
$$;
COMMENT ON FUNCTION vigia_inputs(bigint, json) IS
    'The inputs of a logged row by the names of the columns: vigia_inputs(version_id, inputs)';

CREATE FUNCTION vigia_positional(version bigint, given jsonb) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(given -> (col.value ->> 'name') ORDER BY col.ordinality), '[]')
    FROM training_modelversion, jsonb_array_elements(schema -> 'columns') WITH ORDINALITY AS col
    WHERE training_modelversion.id = version
$$;
ALTER TABLE predictions_prediction ALTER COLUMN inputs TYPE json USING vigia_positional(version_id, inputs);
DROP FUNCTION vigia_positional(bigint, jsonb);
"""
UNMAKE = """
ALTER TABLE predictions_prediction ALTER COLUMN inputs TYPE jsonb USING vigia_inputs(version_id, inputs);
DROP FUNCTION vigia_inputs(bigint, json);
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0002_log_writer"), ("training", "0005_generation")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(MAKE, UNMAKE)],
            state_operations=[
                migrations.RemoveField("prediction", "inputs"),
                migrations.AddField(
                    "prediction", "cells", predictions.models.JSONText(db_column="inputs", default=list),
                    preserve_default=False,
                ),
            ],
        )
    ]
