"""Records a dataset whose file was deleted, so that a restored backup deletes the file again."""

from django.db import migrations, models

MAKE = """
CREATE TRIGGER record_erasure AFTER UPDATE ON training_dataset FOR EACH ROW
    WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)
    EXECUTE FUNCTION vigia_record_erasure('dataset', 'sha256', 'deleted_at');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("predictions", "0015_ascending_indexes"),
        ("training", "0017_archives"),
    ]

    operations = [
        migrations.AlterField(
            model_name="erasure",
            name="kind",
            field=models.CharField(
                choices=[
                    ("prediction", "Prediction"),
                    ("outcome", "Outcome"),
                    ("interaction", "Interaction"),
                    ("month", "month of the log"),
                    ("key", "client key"),
                    ("dataset", "file of a dataset"),
                    ("user_deleted", "User Deleted"),
                    ("user_deactivated", "User Deactivated"),
                    ("user_activated", "User Activated"),
                ],
                max_length=20,
            ),
        ),
        migrations.RunSQL(MAKE, "DROP TRIGGER record_erasure ON training_dataset"),
    ]
