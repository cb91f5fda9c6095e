"""A rollout ends when its version becomes the active one or is rejected, whoever changes the status.

The services end it themselves, with a name and a reason; the trigger finds what plain SQL or a shell left.
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
"""
UNMAKE = """
DROP TRIGGER end_rollouts ON training_modelversion;
DROP FUNCTION vigia_end_rollouts();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0007_rollouts_decide")]

    operations = [
        migrations.AddField(
            "rollout",
            "overridden",
            models.BooleanField(default=False, help_text="Started although the gate was not passed."),
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
