"""A pruned version answers no more: recording one grows the generation, so that no process goes on with it."""

from django.db import migrations

MAKE = """
CREATE CONSTRAINT TRIGGER grow_generation_pruned AFTER INSERT OR UPDATE OR DELETE ON training_prunedartifact
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_grow_generation();
CREATE TRIGGER grow_generation_emptied AFTER TRUNCATE ON training_prunedartifact
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_grow_generation();
"""
UNMAKE = """
DROP TRIGGER grow_generation_pruned ON training_prunedartifact;
DROP TRIGGER grow_generation_emptied ON training_prunedartifact;
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0007_rollouts_decide")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
