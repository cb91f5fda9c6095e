"""A version is written once: afterwards only its status changes. The database holds that too."""

from django.db import migrations

MAKE = """
CREATE FUNCTION vigia_version_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'status' IS DISTINCT FROM to_jsonb(OLD) - 'status' THEN
        RAISE EXCEPTION 'a model version is written once: only its status may change'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER written_once BEFORE UPDATE ON training_modelversion
    FOR EACH ROW EXECUTE FUNCTION vigia_version_written_once();
"""
UNMAKE = """
DROP TRIGGER written_once ON training_modelversion;
DROP FUNCTION vigia_version_written_once();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0002_constraints")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
