"""The bytes of the engine that serves a version, and how far it is from scikit-learn."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("training", "0003_versions_written_once")]

    operations = [
        migrations.AddField("modelversion", "compiled_sha256", models.CharField(blank=True, max_length=64, default=""), preserve_default=False),
        migrations.AddField("modelversion", "compiled_hmac", models.CharField(blank=True, max_length=64, default=""), preserve_default=False),
        migrations.AddField("modelversion", "compiled_size", models.PositiveBigIntegerField(blank=True, null=True)),
        migrations.AddField(
            "modelversion",
            "parity",
            models.JSONField(
                blank=True,
                null=True,
                help_text="How far the compiled engine's answers are from scikit-learn's.",
            ),
        ),
        migrations.AddConstraint(
            "modelversion",
            models.CheckConstraint(
                condition=~Q(engine="onnx") | ~Q(compiled_sha256=""), name="version_onnx_is_compiled"
            ),
        ),
    ]
