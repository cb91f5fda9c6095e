"""Changes nothing: its text of fields is in the first migration. Installations and backups have recorded its name."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("training", "0014_rows_known_already")]

    operations = []
