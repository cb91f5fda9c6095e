"""The fence: one number that grows with every change of what decides about answers.

A process answers from what it knows (active versions, keys, rights), stamped with the generation at which it
learned it. The log's statement commits only if that generation is still the database's: `vigia_fence`. Whatever
changes an answer grows the generation at the end of its own transaction, by triggers, so that it holds for the
admin, the API, a shell and plain SQL alike.

Both meet at an advisory lock: log statements share it until they are committed, a change takes it alone for the
moment of its commit. So a row is either committed before a change is, or refused after it.
"""

from django.conf import settings
from django.db import migrations

MAKE = """
CREATE TABLE training_generation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    value bigint NOT NULL,
    -- The transaction of the last growth: a change of ten thousand rows grows it once.
    grown_in xid8 NOT NULL
);
INSERT INTO training_generation (value, grown_in) VALUES (1, '0');

CREATE FUNCTION vigia_grow_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(22121, 0);
    -- At least the microseconds since 1970, so that no value comes a second time after a restored back-up or
    -- a lost standby, when processes may still know what held under it.
    UPDATE training_generation
        SET value = greatest(value + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
            grown_in = pg_current_xact_id()
        WHERE grown_in <> pg_current_xact_id();
    RETURN NULL;
END $$;

-- Raises VG001 unless `expected` is still the generation; if it is, it stays so until the caller's commit.
-- `held`: the caller has the lock in another session already, and a change that queues for it must not come
-- between the two.
CREATE FUNCTION vigia_fence(expected bigint, held boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found_value bigint;
BEGIN
    IF NOT held THEN
        PERFORM pg_advisory_xact_lock_shared(22121, 0);
    END IF;
    -- A statement of its own: its snapshot is taken after the lock was granted.
    SELECT value INTO found_value FROM training_generation;
    IF found_value IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'the generation is %, not %', found_value, expected USING ERRCODE = 'VG001';
    END IF;
    RETURN true;
END $$;
"""

# Table, and when a change of a row changes an answer. Deferred: the lock is taken at the commit, not before.
GROWS = (
    ("training_modelversion", "UPDATE", "OLD.status IS DISTINCT FROM NEW.status"),
    ("training_modelversion", "DELETE", ""),
    ("training_registeredmodel", "UPDATE", "OLD.name IS DISTINCT FROM NEW.name"),
    ("training_registeredmodel", "DELETE", ""),
    ("knox_authtoken", "UPDATE OR DELETE", ""),
    (
        "auth_user",
        "UPDATE",
        "OLD.is_active IS DISTINCT FROM NEW.is_active OR OLD.is_superuser IS DISTINCT FROM NEW.is_superuser",
    ),
    ("auth_user", "DELETE", ""),
    ("auth_user_groups", "INSERT OR UPDATE OR DELETE", ""),
    ("auth_user_user_permissions", "INSERT OR UPDATE OR DELETE", ""),
    ("auth_group_permissions", "INSERT OR UPDATE OR DELETE", ""),
    ("auth_permission", "UPDATE OR DELETE", ""),
    ("training_groupscope", "INSERT OR UPDATE OR DELETE", ""),
    ("training_groupscope_registered_models", "INSERT OR UPDATE OR DELETE", ""),
)


def trigger(number, table, events, condition):
    when = f"WHEN ({condition})" if condition else ""
    return (
        f"CREATE CONSTRAINT TRIGGER grow_generation_{number} AFTER {events} ON {table} "
        f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW {when} EXECUTE FUNCTION vigia_grow_generation();"
    )


# TRUNCATE has no rows, and no deferred triggers.
EMPTIED = sorted({table for table, *_ in GROWS})
MAKE_TRIGGERS = "\n".join(
    [trigger(number, *each) for number, each in enumerate(GROWS)]
    + [
        f"CREATE TRIGGER grow_generation_emptied AFTER TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION vigia_grow_generation();"
        for table in EMPTIED
    ]
)
UNMAKE_TRIGGERS = "\n".join(
    [f"DROP TRIGGER grow_generation_{number} ON {table};" for number, (table, *_) in enumerate(GROWS)]
    + [f"DROP TRIGGER grow_generation_emptied ON {table};" for table in EMPTIED]
)
UNMAKE = """
DROP FUNCTION vigia_fence(bigint, boolean);
DROP FUNCTION vigia_grow_generation();
DROP TABLE training_generation;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("training", "0004_compiled_engines"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("knox", "0009_extend_authtoken_field"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(MAKE, UNMAKE),
        migrations.RunSQL(MAKE_TRIGGERS, UNMAKE_TRIGGERS),
    ]
