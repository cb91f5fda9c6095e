"""A rollout decides about answers: starting, changing or stopping one grows the generation."""

from django.db import migrations

MAKE = """
CREATE CONSTRAINT TRIGGER grow_generation_rollout AFTER INSERT OR UPDATE OR DELETE ON training_rollout
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_grow_generation();
CREATE TRIGGER grow_generation_emptied AFTER TRUNCATE ON training_rollout
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_grow_generation();
"""
UNMAKE = """
DROP TRIGGER grow_generation_rollout ON training_rollout;
DROP TRIGGER grow_generation_emptied ON training_rollout;
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0006_jobs_and_rollouts")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
