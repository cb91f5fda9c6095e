"""Makes outcomes append-only in the database: a correction is another row.

One change is allowed: an outcome that arrived before its prediction gets the prediction's id, once.
"""

from django.db import migrations, models

MAKE = """
CREATE FUNCTION vigia_outcome_joined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.prediction_id IS NULL AND NEW.prediction_id IS NOT NULL THEN
        OLD.prediction_id := NEW.prediction_id;
        IF OLD IS NOT DISTINCT FROM NEW THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER joined_once BEFORE UPDATE ON predictions_outcome
    FOR EACH ROW EXECUTE FUNCTION vigia_outcome_joined();
CREATE TRIGGER append_only BEFORE DELETE ON predictions_outcome
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
"""
UNMAKE = """
DROP TRIGGER append_only_truncate ON predictions_outcome;
DROP TRIGGER append_only ON predictions_outcome;
DROP TRIGGER joined_once ON predictions_outcome;
DROP FUNCTION vigia_outcome_joined();
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0004_outcomes_replays_shadows")]

    operations = [
        migrations.AddIndex(
            model_name="outcome",
            index=models.Index(
                condition=models.Q(("key__isnull", False)), fields=["registered_model", "key"], name="outcome_key"
            ),
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
