"""Outcomes mark the hour of their prediction, so that its quality is aggregated again.

The trigger runs once per statement: a request of any length concerns a handful of hours. It marks them in
ascending order, so that two statements never deadlock. A mark always increases, even if the clock was set back:
an aggregation removes the mark that it has read, and no later one.

Removed outcomes mark nothing: retention removes them with their month, whose quality stays.

The index (model, received_at, id) lists outcomes in order of receipt; it replaces the index on the model.
"""

import django.db.models.deletion
from django.db import migrations, models

MAKE = """
CREATE FUNCTION vigia_milliseconds(id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- By its bytes: quicker than by its text.
    SELECT (get_byte(uuid_send(id), 0)::bigint << 40) + (get_byte(uuid_send(id), 1)::bigint << 32)
        + (get_byte(uuid_send(id), 2)::bigint << 24) + (get_byte(uuid_send(id), 3)::bigint << 16)
        + (get_byte(uuid_send(id), 4)::bigint << 8) + get_byte(uuid_send(id), 5)
$$;
COMMENT ON FUNCTION vigia_milliseconds(uuid) IS 'When the id of a prediction was made, in Unix milliseconds';

CREATE FUNCTION vigia_mark_hours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO predictions_changedhour AS changed (registered_model_id, hour, marked_at)
        SELECT registered_model_id, to_timestamp(milliseconds / 3600000 * 3600), clock_timestamp()
        FROM (
            SELECT DISTINCT registered_model_id, vigia_milliseconds(prediction_id) / 3600000 * 3600000 AS milliseconds
            FROM written WHERE prediction_id IS NOT NULL
        ) AS hours
        ORDER BY registered_model_id, milliseconds
        ON CONFLICT (registered_model_id, hour) DO UPDATE
        SET marked_at = greatest(EXCLUDED.marked_at, changed.marked_at + interval '1 microsecond');
    RETURN NULL;
END $$;

CREATE TRIGGER mark_hours AFTER INSERT ON predictions_outcome
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION vigia_mark_hours();
-- All that is ever updated is the prediction that an outcome waited for.
CREATE TRIGGER mark_joined_hours AFTER UPDATE ON predictions_outcome
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION vigia_mark_hours();

INSERT INTO predictions_changedhour (registered_model_id, hour, marked_at)
    SELECT DISTINCT registered_model_id,
        to_timestamp(vigia_milliseconds(prediction_id) / 3600000 * 3600), now()
    FROM predictions_outcome WHERE prediction_id IS NOT NULL
    ON CONFLICT DO NOTHING;
"""
UNMAKE = """
DROP TRIGGER mark_joined_hours ON predictions_outcome;
DROP TRIGGER mark_hours ON predictions_outcome;
DROP FUNCTION vigia_mark_hours();
DROP FUNCTION vigia_milliseconds(uuid);
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0007_rollups_and_reviews")]

    operations = [
        migrations.AddIndex(
            model_name="outcome",
            index=models.Index(fields=["registered_model", "received_at", "id"], name="outcome_received"),
        ),
        migrations.AlterField(
            model_name="outcome",
            name="registered_model",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="outcomes",
                to="training.registeredmodel",
            ),
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
