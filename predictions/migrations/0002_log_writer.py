"""Adds what the log writer needs: reference checks per statement, and claims of idempotency keys."""

from django.db import migrations

# A foreign key costs a look-up and a row lock for every row and reference: half of the cost of a logged row.
# These triggers check the few distinct versions and clients of each statement. A referenced row cannot be
# removed either: its removal waits for the fence (so no log statement is running) and then searches the log.
MAKE = """
ALTER TABLE predictions_prediction DROP CONSTRAINT predictions_prediction_registered_model_id_fkey;
ALTER TABLE predictions_prediction DROP CONSTRAINT predictions_prediction_version_id_fkey;
ALTER TABLE predictions_prediction DROP CONSTRAINT predictions_prediction_client_id_fkey;

CREATE FUNCTION vigia_log_refers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1
        FROM (SELECT DISTINCT registered_model_id, version_id, client_id FROM added) AS row
        LEFT JOIN training_modelversion version
            ON version.id = row.version_id AND version.registered_model_id = row.registered_model_id
        LEFT JOIN auth_user client ON client.id = row.client_id
        WHERE version.id IS NULL OR (row.client_id IS NOT NULL AND client.id IS NULL)
    ) THEN
        RAISE EXCEPTION 'a prediction names a version of this model, or a client, that is not there'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER refers AFTER INSERT ON predictions_prediction
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION vigia_log_refers();

CREATE FUNCTION vigia_kept_by_log() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    referred boolean;
    -- Ids are time: the lowest that a row could have that was written since a minute before this transaction.
    recent uuid := (
        lpad(to_hex((extract(epoch FROM now() - interval '1 minute') * 1000)::bigint), 12, '0') || repeat('0', 20)
    )::uuid;
BEGIN
    -- The whole log is looked through before the lock is taken (by client that is a long scan), and what may
    -- have come meanwhile after it, when no log statement is under way.
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM predictions_prediction WHERE %I = $1)', TG_ARGV[0])
        INTO referred USING OLD.id;
    IF NOT referred THEN
        PERFORM pg_advisory_xact_lock(22121, 0);
        EXECUTE format(
            'SELECT EXISTS (SELECT 1 FROM predictions_prediction WHERE id >= $2 AND %I = $1)', TG_ARGV[0]
        ) INTO referred USING OLD.id, recent;
    END IF;
    IF referred THEN
        RAISE EXCEPTION '% % stands in the prediction log and cannot be removed', TG_TABLE_NAME, OLD.id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON training_registeredmodel
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('registered_model_id');
CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON training_modelversion
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('version_id');
CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON auth_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('client_id');

-- Takes an idempotency key for the caller's transaction, or raises VG002 when a live one is there. Waits for an
-- uncommitted one of the same name.
CREATE FUNCTION vigia_claim(client integer, name text, sha256 text, stored text, hours integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    INSERT INTO predictions_idempotencykey AS k (client_id, key, request_sha256, answer, created_at)
        VALUES (client, name, sha256, stored, now())
        ON CONFLICT (client_id, key) DO UPDATE
        SET request_sha256 = EXCLUDED.request_sha256, answer = EXCLUDED.answer, created_at = now()
        WHERE k.created_at < now() - make_interval(hours => hours);
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN
        RAISE EXCEPTION 'the idempotency key was taken' USING ERRCODE = 'VG002';
    END IF;
    RETURN true;
END $$;
"""
UNMAKE = """
DROP FUNCTION vigia_claim(integer, text, text, text, integer);
DROP TRIGGER kept_by_log ON auth_user;
DROP TRIGGER kept_by_log ON training_modelversion;
DROP TRIGGER kept_by_log ON training_registeredmodel;
DROP FUNCTION vigia_kept_by_log();
DROP TRIGGER refers ON predictions_prediction;
DROP FUNCTION vigia_log_refers();
ALTER TABLE predictions_prediction
    ADD FOREIGN KEY (registered_model_id) REFERENCES training_registeredmodel (id),
    ADD FOREIGN KEY (version_id) REFERENCES training_modelversion (id),
    ADD FOREIGN KEY (client_id) REFERENCES auth_user (id);
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0001_initial"), ("training", "0005_generation")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
