"""Which datasets a dataset was joined from, and what a run has to say of its rows."""

import re
from typing import Any

from django.db import migrations, models

DIGESTS = re.compile(r"[0-9a-f]{12}(?: \+ [0-9a-f]{12})*")


def parts_of_joined(apps: Any, schema_editor: Any) -> None:
    """A joined dataset's source names its parts by the first 12 digits of their digests."""
    rows = apps.get_model("training", "Dataset").objects
    held: dict[int, set[str]] = {}
    for row in rows.order_by("pk").iterator():
        if not DIGESTS.fullmatch(row.source):
            continue
        for prefix in row.source.split(" + "):
            part = rows.filter(
                registered_model_id=row.registered_model_id, sha256__startswith=prefix, pk__lt=row.pk
            ).first()
            if part is not None:
                held.setdefault(row.pk, set()).update({part.sha256}, held.get(part.pk, set()))
        rows.filter(pk=row.pk).update(parts=sorted(held.get(row.pk, set())))


class Migration(migrations.Migration):
    dependencies = [("training", "0013_heartbeats")]

    operations = [
        migrations.AddField(
            model_name="dataset",
            name="parts",
            field=models.JSONField(
                blank=True, default=list, help_text="SHA-256 of the datasets whose rows this dataset also holds."
            ),
        ),
        migrations.AddField(
            model_name="trainingrun",
            name="notes",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="Notes on the run's rows and its gate; see `vigia_ml.notes`.",
            ),
        ),
        migrations.AddField(
            model_name="trainingrun",
            name="repeat",
            field=models.BooleanField(
                default=False,
                help_text="Append also rows that the active version's dataset already holds.",
            ),
        ),
        migrations.RunPython(parts_of_joined, migrations.RunPython.noop),
    ]
