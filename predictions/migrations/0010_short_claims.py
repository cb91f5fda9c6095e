"""Takes fence and claim in one step that no client can prolong.

The writer sends rows and claim in one statement, which PostgreSQL executes once it is received completely: the
fence and the claim are never held while a client sends. A claim waits for another one of the same name only as
long as a commit takes; if it takes longer, PostgreSQL has a problem, and the other predictions of the process
must not wait for it.
"""

from django.db import migrations

MAKE = """
-- The fence first, always: two sessions that took them in different orders could wait for each other.
CREATE FUNCTION vigia_fence_and_claim(
    expected bigint, client integer, name text, sha256 text, stored text, hours integer
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    usual text := current_setting('lock_timeout');
BEGIN
    PERFORM vigia_fence(expected, false);
    PERFORM set_config('lock_timeout', '1s', true);
    PERFORM vigia_claim(client, name, sha256, stored, hours);
    PERFORM set_config('lock_timeout', usual, true);
    RETURN true;
END $$;
"""
UNMAKE = "DROP FUNCTION vigia_fence_and_claim(bigint, integer, text, text, text, integer);"


class Migration(migrations.Migration):
    dependencies = [("predictions", "0009_idempotency_keys")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
