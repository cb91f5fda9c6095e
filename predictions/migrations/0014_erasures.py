"""Records what is erased, in the transaction that erases, so that a restored backup erases it again.

Erased are: rows of the log and outcomes (with `vigia.maintenance = 'erase'`), months of the log, client keys,
users and their right to log in. Interactions follow in the migration of their application.
"""

import django.contrib.postgres.functions
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

MAKE = """
-- 'erase' for a person's rows; 'move' for rows that change their partition, which is no erasure. Nothing opens the
-- records of erasures: without them a restored backup would bring the rows back.
CREATE OR REPLACE FUNCTION vigia_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME <> 'predictions_erasure'
            AND current_setting('vigia.maintenance', true) IN ('move', 'erase') THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

-- Arguments: kind, column that names the row, column of a time (or an empty text).
CREATE FUNCTION vigia_record_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased jsonb;
BEGIN
    IF current_setting('vigia.erasures', true) = 'known' THEN
        RETURN NULL;  -- they are applied again after a restore, from their records
    END IF;
    -- Rows leave the default partition for that of their month. Elsewhere 'move' is an erasure: scripts from
    -- before 'erase' existed use it.
    IF TG_TABLE_NAME = 'predictions_prediction_default' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN NULL;
    END IF;
    erased := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    INSERT INTO predictions_erasure (id, kind, reference, moment, at) VALUES (
        gen_random_uuid(), TG_ARGV[0], erased ->> TG_ARGV[1], (erased ->> TG_ARGV[2])::timestamptz,
        clock_timestamp()
    );
    RETURN NULL;
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON predictions_erasure
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_erasure
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();

CREATE TRIGGER record_erasure AFTER DELETE ON predictions_prediction
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('prediction', 'id', '');
CREATE TRIGGER record_erasure AFTER DELETE ON predictions_outcome
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('outcome', 'id', 'received_at');
CREATE TRIGGER record_erasure AFTER INSERT OR UPDATE ON predictions_removedmonth
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('month', 'start', 'start');
CREATE TRIGGER record_erasure AFTER DELETE ON knox_authtoken
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('key', 'digest', 'created');
CREATE TRIGGER record_erasure AFTER DELETE ON auth_user
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('user_deleted', 'id', 'date_joined');
CREATE TRIGGER record_deactivation AFTER UPDATE ON auth_user
    FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active)
    EXECUTE FUNCTION vigia_record_erasure('user_deactivated', 'id', 'date_joined');
CREATE TRIGGER record_activation AFTER UPDATE ON auth_user
    FOR EACH ROW WHEN (NEW.is_active AND NOT OLD.is_active)
    EXECUTE FUNCTION vigia_record_erasure('user_activated', 'id', 'date_joined');

-- Months that were removed before.
INSERT INTO predictions_erasure (id, kind, reference, moment, at)
    SELECT gen_random_uuid(), 'month', to_jsonb(start) #>> '{}', start, at FROM predictions_removedmonth;
"""
UNMAKE = """
DROP TRIGGER record_activation ON auth_user;
DROP TRIGGER record_deactivation ON auth_user;
DROP TRIGGER record_erasure ON auth_user;
DROP TRIGGER record_erasure ON knox_authtoken;
DROP TRIGGER record_erasure ON predictions_removedmonth;
DROP TRIGGER record_erasure ON predictions_outcome;
DROP TRIGGER record_erasure ON predictions_prediction;
DROP TRIGGER append_only_truncate ON predictions_erasure;
DROP TRIGGER append_only ON predictions_erasure;
DROP FUNCTION vigia_record_erasure();
CREATE OR REPLACE FUNCTION vigia_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""


class Migration(migrations.Migration):
    dependencies = [
        ("predictions", "0013_wording"),
        ("knox", "0009_extend_authtoken_field"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Erasure",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=django.contrib.postgres.functions.RandomUUID(),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("prediction", "Prediction"),
                            ("outcome", "Outcome"),
                            ("interaction", "Interaction"),
                            ("month", "month of the log"),
                            ("key", "client key"),
                            ("user_deleted", "User Deleted"),
                            ("user_deactivated", "User Deactivated"),
                            ("user_activated", "User Activated"),
                        ],
                        max_length=20,
                    ),
                ),
                ("reference", models.CharField(max_length=200)),
                ("moment", models.DateTimeField(null=True)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"ordering": ["at", "id"], "default_permissions": ()},
        ),
        migrations.RunSQL(MAKE, UNMAKE),
    ]
