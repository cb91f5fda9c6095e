"""A reference profile is frozen: it goes with its version, and never changes."""

from django.db import migrations

MAKE = """
CREATE FUNCTION vigia_profile_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a reference profile is written once' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER written_once BEFORE UPDATE ON training_referenceprofile
    FOR EACH ROW EXECUTE FUNCTION vigia_profile_written_once();
"""
UNMAKE = """
DROP TRIGGER written_once ON training_referenceprofile;
DROP FUNCTION vigia_profile_written_once();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0010_reference_profiles")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
