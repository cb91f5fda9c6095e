"""A version that came from outside is served by its graph: its bytes are never unpickled."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("training", "0017_archives"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("origin", "trained"), ("engine", "onnx"), _connector="OR"),
                name="version_from_outside_is_graph",
            ),
        ),
    ]
