"""Takes the time of an activation at the fence, so that it separates the log's rows by their times.

Before, an activation carried the time of its statement. Until its commit, other processes continued to answer
with the previous version, and their rows carry later times than the activation.

Now a deferred trigger sets the time at the commit, under the exclusive fence: no log statement is running, and
none commits before the change does. The time is the first full millisecond (the resolution of ids) after now,
after the newest row of the model, whose process may have a clock that is ahead, and after the last activation.
It also becomes the generation, and a process gives no row a time before its generation (`core.uuid7`). So every
row of the old version precedes the activation's time, and no row of the new version does.
"""

from django.db import migrations

MAKE = """
-- A table's trigger may set the time; nobody else changes anything.
DROP TRIGGER append_only ON training_activation;
CREATE TRIGGER append_only BEFORE DELETE ON training_activation
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_update BEFORE UPDATE ON training_activation
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION vigia_append_only();

CREATE FUNCTION vigia_time_activation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
    milliseconds bigint;
    newest uuid;
    latest timestamptz;
BEGIN
    IF NEW.at < transaction_timestamp() THEN
        RETURN NULL;  -- a row of the past, such as a restored one, keeps its time
    END IF;
    PERFORM pg_advisory_xact_lock(22121, 0);
    milliseconds := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint + 1;
    -- A row that is more than a minute ahead comes from a clock that is wrong, and moves nothing.
    SELECT id INTO newest FROM predictions_prediction
        WHERE registered_model_id = NEW.registered_model_id
        AND id < (lpad(to_hex(milliseconds + 60000), 12, '0') || repeat('0', 20))::uuid
        ORDER BY id DESC LIMIT 1;
    IF newest IS NOT NULL THEN
        milliseconds := greatest(
            milliseconds, ('x' || lpad(left(replace(newest::text, '-', ''), 12), 16, '0'))::bit(64)::bigint + 1
        );
    END IF;
    SELECT max(at) INTO latest FROM training_activation
        WHERE registered_model_id = NEW.registered_model_id AND id <> NEW.id;
    IF latest IS NOT NULL THEN
        milliseconds := greatest(milliseconds, floor(extract(epoch FROM latest) * 1000)::bigint + 1);
    END IF;
    moment := timestamptz 'epoch' + milliseconds * interval '1 millisecond';
    UPDATE training_activation SET at = moment WHERE id = NEW.id;
    UPDATE training_generation
        SET value = greatest(value + 1, milliseconds * 1000), grown_in = pg_current_xact_id();
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER time_at_commit AFTER INSERT ON training_activation
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_time_activation();
"""
UNMAKE = """
DROP TRIGGER time_at_commit ON training_activation;
DROP FUNCTION vigia_time_activation();
DROP TRIGGER append_only_update ON training_activation;
DROP TRIGGER append_only ON training_activation;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_activation
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0010_short_claims"), ("training", "0001_squashed_0011_profiles_written_once")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
