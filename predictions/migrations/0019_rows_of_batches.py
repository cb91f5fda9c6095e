"""Adds the batch of a row to the log, and the function that ends a chunk behind the fence.

The column has no constraint, because the log outlives batches, and no index: the ids of a batch's rows lie in a
known range. Adding it takes no time, but it locks the log; it must not queue behind a long query (see 0017).
"""

import time

from django.db import OperationalError, migrations, models, transaction

TRIES = 100

# Behind the fence, a chunk is ended by the worker that holds its claim, for a batch that still runs, or the whole
# statement writes nothing: VG003 means that the claim was lost, VG004 that the batch has ended or is to end. The
# rows of a batch that is cancelled at this moment may still be committed; they count, because chunks are counted.
MAKE = """
CREATE FUNCTION vigia_fence_and_chunk(
    expected bigint, chunk bigint, owner uuid, scored_rows integer, invalid_rows integer,
    result_name text, errors_name text, result_size bigint, error_size bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM vigia_fence(expected, false);
    PERFORM 1 FROM predictions_batchchunk AS mine JOIN predictions_batch AS batch ON batch.id = mine.batch_id
        WHERE mine.id = chunk AND batch.status IN ('queued', 'running')
        AND batch.cancel_requested_at IS NULL AND batch.stop_reason = '';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the batch has ended' USING ERRCODE = 'VG004';
    END IF;
    UPDATE predictions_batchchunk
        SET scored = scored_rows, invalid = invalid_rows, result = result_name,
            errors = errors_name, result_bytes = result_size, error_bytes = error_size, done_at = now(),
            lease_until = NULL
        WHERE id = chunk AND lease_owner = owner AND done_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another worker holds the chunk' USING ERRCODE = 'VG003';
    END IF;
    RETURN true;
END $$;
"""
UNMAKE = """
DROP FUNCTION vigia_fence_and_chunk(
    bigint, bigint, uuid, integer, integer, text, text, bigint, bigint
);
"""


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


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("predictions", "0018_batches")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunPython(
                    in_short("ALTER TABLE predictions_prediction ADD COLUMN IF NOT EXISTS batch_id integer NULL"),
                    in_short("ALTER TABLE predictions_prediction DROP COLUMN IF EXISTS batch_id"),
                )
            ],
            [
                migrations.AddField(
                    model_name="prediction", name="batch_id", field=models.IntegerField(null=True)
                )
            ],
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
