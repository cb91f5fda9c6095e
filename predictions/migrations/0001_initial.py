"""Creates the log's tables; SQL creates the partitioned one, which Django cannot express."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

MAKE_LOG = """
CREATE TABLE predictions_prediction (
    id uuid NOT NULL PRIMARY KEY,
    registered_model_id bigint NOT NULL REFERENCES training_registeredmodel (id),
    version_id bigint NOT NULL REFERENCES training_modelversion (id),
    client_id integer NULL REFERENCES auth_user (id),
    key varchar(200) NULL,
    inputs jsonb NOT NULL,
    prediction jsonb NOT NULL,
    probability double precision NULL,
    warnings jsonb NOT NULL,
    request_id varchar(64) NOT NULL
) PARTITION BY RANGE (id);

-- A row whose month has no partition yet is kept all the same.
CREATE TABLE predictions_prediction_default PARTITION OF predictions_prediction DEFAULT;

-- A model's log, newest first.
CREATE INDEX prediction_model_id ON predictions_prediction (registered_model_id, id DESC);
-- The same for one version; and "what still refers to this version?".
CREATE INDEX prediction_version_id ON predictions_prediction (version_id, id DESC);
-- The rows of a client's own reference.
CREATE INDEX prediction_key ON predictions_prediction (registered_model_id, key, id DESC) WHERE key IS NOT NULL;
"""

# The triggers prevent mistakes of the code and of people with a console, not a superuser's intent. Code that
# moves rows between partitions sets `vigia.maintenance` to 'move' within one transaction; the test suite sets
# 'truncate' to empty tables between tests.
APPEND_ONLY = """
CREATE FUNCTION vigia_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON predictions_prediction
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_prediction
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_prediction_default
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_activation
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON training_activation
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
"""

UNMAKE_APPEND_ONLY = """
DROP TRIGGER append_only_truncate ON training_activation;
DROP TRIGGER append_only ON training_activation;
DROP FUNCTION vigia_append_only() CASCADE;
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("training", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(MAKE_LOG, "DROP TABLE predictions_prediction")],
            state_operations=[
                migrations.CreateModel(
                    name="Prediction",
                    fields=[
                        ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                        ("key", models.CharField(max_length=200, null=True)),
                        ("inputs", models.JSONField()),
                        ("prediction", models.JSONField()),
                        ("probability", models.FloatField(null=True)),
                        ("warnings", models.JSONField()),
                        ("request_id", models.CharField(max_length=64)),
                        (
                            "client",
                            models.ForeignKey(
                                null=True,
                                on_delete=django.db.models.deletion.PROTECT,
                                related_name="predictions",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                        (
                            "registered_model",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.PROTECT,
                                related_name="predictions",
                                to="training.registeredmodel",
                            ),
                        ),
                        (
                            "version",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.PROTECT,
                                related_name="predictions",
                                to="training.modelversion",
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "prediction",
                        "verbose_name_plural": "prediction log",
                        "ordering": ["-id"],
                        "default_permissions": ("view",),
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=200)),
                ("request_sha256", models.CharField(max_length=64)),
                ("answer", models.TextField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "client",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["created_at"], name="idempotency_age")],
                "constraints": [
                    models.UniqueConstraint(fields=("client", "key"), name="idempotency_key_once")
                ],
                "default_permissions": (),
            },
        ),
        migrations.RunSQL(APPEND_ONLY, UNMAKE_APPEND_ONLY),
    ]
