"""A rollout ends when its version becomes the active one or is rejected, whoever changes the status.

The services end it themselves, with a name and a reason; the trigger finds what plain SQL or a shell left.

A rollout's row is its audit: it is ended once, and otherwise neither changed nor removed.
"""

from django.db import migrations, models

MAKE = """
CREATE FUNCTION vigia_end_rollouts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE training_rollout
        SET stopped_at = clock_timestamp(),
            stop_reason = CASE NEW.status WHEN 'active' THEN format('version %s was activated', NEW.number)
                                          ELSE format('version %s was rejected', NEW.number) END
        WHERE stopped_at IS NULL
          AND (version_id = NEW.id OR (NEW.status = 'active' AND registered_model_id = NEW.registered_model_id));
    RETURN NULL;
END $$;

CREATE TRIGGER end_rollouts AFTER UPDATE ON training_modelversion FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.status IN ('active', 'rejected'))
    EXECUTE FUNCTION vigia_end_rollouts();

CREATE FUNCTION vigia_rollout_is_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ending text[] := ARRAY['stopped_at', 'stopped_by_id', 'stop_reason'];
BEGIN
    -- As for the log; see predictions/migrations/0001_initial.
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.stopped_at IS NULL AND to_jsonb(NEW) - ending = to_jsonb(OLD) - ending THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'a rollout is kept as it was: it can only be ended, once'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER is_audit BEFORE UPDATE OR DELETE ON training_rollout
    FOR EACH ROW EXECUTE FUNCTION vigia_rollout_is_audit();
CREATE TRIGGER is_audit_truncate BEFORE TRUNCATE ON training_rollout
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_rollout_is_audit();
"""
UNMAKE = """
DROP TRIGGER is_audit ON training_rollout;
DROP TRIGGER is_audit_truncate ON training_rollout;
DROP FUNCTION vigia_rollout_is_audit();
DROP TRIGGER end_rollouts ON training_modelversion;
DROP FUNCTION vigia_end_rollouts();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0008_pruning_decides")]

    operations = [
        migrations.AddField(
            "rollout",
            "overridden",
            models.BooleanField(default=False, help_text="Started although the gate was not passed."),
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
