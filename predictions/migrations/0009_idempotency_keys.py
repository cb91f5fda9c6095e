"""Idempotency keys serve every POST, so their model moved to `training`; the table stays as it is.

When `vigia_claim` takes over an expired key, it also resets the fields that only longer answers use.
"""

from django.db import migrations

MAKE = """
CREATE OR REPLACE FUNCTION vigia_claim(client integer, name text, sha256 text, stored text, hours integer)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    INSERT INTO predictions_idempotencykey AS k (client_id, key, request_sha256, answer, created_at)
        VALUES (client, name, sha256, stored, now())
        ON CONFLICT (client_id, key) DO UPDATE
        SET request_sha256 = EXCLUDED.request_sha256, answer = EXCLUDED.answer, created_at = now(),
            status = EXCLUDED.status, headers = EXCLUDED.headers
        WHERE k.created_at < now() - make_interval(hours => hours);
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN
        RAISE EXCEPTION 'the idempotency key was taken' USING ERRCODE = 'VG002';
    END IF;
    RETURN true;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0001_squashed_0008_changed_hours"), ("training", "0012_idempotency_keys")]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="IdempotencyKey")]),
        migrations.RunSQL(MAKE, migrations.RunSQL.noop),
    ]
